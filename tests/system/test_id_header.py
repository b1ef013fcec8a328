"""[harvest] id_header: each record carries its row's id, whichever way it takes, so that consumers can tell duplicates."""
import json
import random
import string

from bed.daemon import run_once, write_ini
from bed.util import keys_in_shard

NAME = "outbox-id"
KEEP = """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
    CREATE TRIGGER keep BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION keep()"""
LIMITS = {"blocked_backoff_max": "300ms", "io_error_backoff": "100ms"}


def put(database, topic, key, value, names=(), values=()):
    return database.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, "
                            "kafka_header_values) VALUES (now(), %s, %s, %s, %s, %s) RETURNING id",
                            [topic, key, value, list(names), list(values)])[0][0]


def ids(message):
    """What the last header of that name says, which is what Java's lastHeader and a dict of the list give."""
    return int(dict(message.headers)[NAME])


def test_the_id_is_the_last_header(bed):
    """Rows with headers, without, with one of the same name; a tombstone; ids of many digits. The row's own headers stay."""
    database, topic = bed.database(), bed.topic(partitions=1)
    collector = bed.collector(topic)
    cases = [((), ()), (("a", "b"), ("1", "")), ((NAME,), ("the row's own",)), ((NAME, "a", NAME), ("x", "1", "y"))]
    expected = []
    for start in (1, 10 ** 12, 2 ** 63 - 20):
        database.execute("SELECT setval('outbox_id_seq', %s)", [start])
        for names, values in cases:
            row_id = put(database, topic, "k", None if len(expected) == 2 else "v", names, values)
            expected.append([(n, v.encode()) for n, v in zip(names, values)] + [(NAME, b"%d" % row_id)])
    bed.harvestd(database, harvest={"id_header": NAME})
    bed.wait_empty(database)
    assert [list(m.headers) for m in collector.read_to_end()] == expected


def test_without_the_setting_there_is_none(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    put(database, topic, "k", "v")
    bed.harvestd(database, harvest={"id_header": ""})
    assert collector.wait_value("v").headers == ()


def test_records_under_suspicion(bed):
    """A record that the broker refuses, those that were in its batch, and itself once it was mended. Incompressible, so too large."""
    big = "".join(random.Random(1).choices(string.ascii_letters, k=3000))
    database, topic = bed.database(), bed.topic(partitions=1, max_message_bytes=1000)
    collector = bed.collector(topic)
    truth = {}
    with database.connect(autocommit=False):
        for n in range(20):
            truth[put(database, topic, "k%d" % n, "v%d" % n)] = b"v%d" % n
        bad = put(database, topic, "bad", big)
    mate = keys_in_shard(0, 1, 1, "mate")[0]
    truth[put(database, topic, mate, "behind it")] = b"behind it"
    daemon = bed.harvestd(database, harvest={"id_header": NAME}, limits=dict(LIMITS, send_concurrency=1))
    daemon.wait_log("record", "blocked", id=bad)
    database.execute("UPDATE outbox SET kafka_value = 'mended' WHERE id = %s", [bad])
    daemon.wait_log("record", "unblocked", id=bad)
    truth[bad] = b"mended"
    bed.wait_empty(database)
    received = collector.read_to_end()
    assert {ids(m): m.value for m in received} == truth
    assert all(truth[ids(m)] == m.value and len(m.headers) == 1 for m in received)


def test_a_row_with_defective_headers(bed):
    """It is not sent; mended, it carries its headers and its id."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, harvest={"id_header": NAME}, limits=LIMITS)
    row_id = put(database, topic, "k", "v", ["a", "b"], ["1"])
    daemon.wait_log("record", "blocked", id=row_id)
    database.execute("UPDATE outbox SET kafka_header_values = '{1,2}' WHERE id = %s", [row_id])
    assert collector.wait_value("v").headers == (("a", b"1"), ("b", b"2"), (NAME, b"%d" % row_id))
    daemon.stop()


def test_duplicates_carry_the_same_id(bed):
    """Delivered and not deleted, killed, started again, twice: a consumer that keeps the ids that it saw ends up with each record
    once; in the order of ids, for each key."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    database.execute(KEEP)
    truth = {put(database, topic, "k%d" % (n % 5), "v%d" % n): b"v%d" % n for n in range(300)}
    daemon = bed.harvestd(database, start=False, harvest={"id_header": NAME}, limits=dict(LIMITS, heartbeat_timeout="2s"))
    for lap in (1, 2):
        daemon.start()
        collector.wait_count(300 * lap, deadline=60)
        daemon.kill()
    database.execute("DROP TRIGGER keep ON outbox")
    daemon.start()
    bed.wait_empty(database)
    received = collector.read_to_end()
    seen, last = {}, {}
    for m in received:
        if ids(m) not in seen:
            assert ids(m) > last.get(m.key, 0)
            seen[ids(m)] = last[m.key] = ids(m)
        assert truth[ids(m)] == m.value
    assert sorted(seen) == sorted(truth)
    assert len(received) >= 900
    bed.note("%d records, %d ids" % (len(received), len(seen)))


def test_a_name_that_cannot_be_one(tmp_path):
    path = str(tmp_path / "harvestd.ini")
    write_ini(path, {})
    done = run_once("run", "-c", path, "--set", "harvest.id_header=a\x01b")
    assert done.returncode == 2 and "id_header" in done.stderr and "control character" in done.stderr


def test_values_with_an_id_are_not_larger_than_counted(bed):
    """The header counts for the client's limits: many small records with a long name, in small windows."""
    name = "n" * 249
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    count = 2000
    database.execute("INSERT INTO outbox SELECT n, now(), %s, 'k' || n %% 50, %s || n, '{}', '{}' FROM generate_series(1, %s) n",
                     [topic, json.dumps("v"), count])
    bed.harvestd(database, harvest={"id_header": name}, limits={"max_in_flight_bytes": "64KiB", "mark_query_bytes": "16KiB"},
                 kafka_producer={"batch.size": "20000", "message.max.bytes": "30000"})
    bed.wait_empty(database)
    received = collector.read_to_end()
    assert len(received) == count and all(m.headers[0][0] == name for m in received)
