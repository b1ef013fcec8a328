"""What is committed arrives: once, byte for byte, in the order of each key; and the table is empty afterwards."""
import pytest

from bed.checker import Truth, check, record
from bed.kafka import fresh_name
from bed.postgres import COLUMNS, TABLE_BYTEA
from bed.writer import insert


def hundred_keys():
    """Short ones, long ones (100 characters), ones beyond ASCII, one with every awkward character."""
    keys = ["key-%d" % n for n in range(60)]
    keys += ["%02d" % n + "k" * 98 for n in range(20)]
    keys += ["ключ-%d-é漢字😀" % n for n in range(18)]
    keys += ["%%'\"\\{},;= \t\n", " "]
    assert len(keys) == 100 and max(map(len, keys)) == 100
    return keys


@pytest.mark.usefixtures("each_strategy")
def test_20000_records_of_100_keys_arrive_exactly_once(bed):
    database = bed.database()
    topics = [bed.topic() for _ in range(3)]
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=hundred_keys(), count=20000, writers=4, batch=20)
    daemon = bed.harvestd(database)
    daemon.wait_leading()
    app.start().wait(120)
    bed.judge(app, collector, duplicates=0)
    assert app.rolled_back > 100
    values = [m.value for m in collector.snapshot()]
    assert None in values and b"" in values and any(v and len(v.decode()) == 10000 for v in values)
    assert {len(m.headers) for m in collector.snapshot()} == set(range(11))
    daemon.stop()
    assert not daemon.find(level="error") and not daemon.find("kafka", "rewinding")


def test_backlog_is_drained(bed):
    """Written before the daemon starts, with the smallest limits that make sense."""
    database = bed.database()
    topic = bed.topic()
    app = bed.application(database, [topic], keys=5, count=1500).start().wait()
    collector = bed.collector(topic)
    bed.harvestd(database, limits={"mark_query_records": 7, "max_in_flight_records": 20, "send_concurrency": 3,
                                   "send_buffer": 5, "purge_query_records": 4})
    bed.judge(app, collector, duplicates=0)


def test_one_hot_key_and_one_shard(bed):
    database = bed.database()
    topic = bed.topic()
    app = bed.application(database, [topic], keys=["hot"], count=3000, batch=50)
    collector = bed.collector(topic)
    bed.harvestd(database, limits={"send_concurrency": 1})
    app.start().wait()
    bed.judge(app, collector, duplicates=0)


def test_bytea_values_pass_unchanged(bed):
    """Every byte value, invalid UTF-8, NUL bytes; NULL stays NULL and empty stays empty."""
    database = bed.database(TABLE_BYTEA)
    topic = bed.topic()
    truth = Truth()
    values = [bytes(range(256)), b"\xff\xfe\xc3\x28\x80", b"\x00", b"\x00" * 1000, b"", None, b"\\x4142", b"\\000",
              bytes(reversed(range(256))) * 100]
    for n, value in enumerate(values):
        bed.write(database, topic, "k%d" % (n % 2), value, truth=truth, binary=True)
    collector = bed.collector(topic)
    bed.harvestd(database)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_bytea_under_load(bed):
    database = bed.database(TABLE_BYTEA)
    topic = bed.topic()
    app = bed.application(database, [topic], keys=10, count=1000, make=dict(binary=True))
    collector = bed.collector(topic)
    bed.harvestd(database)
    app.start().wait()
    bed.judge(app, collector, duplicates=0)


def test_table_in_a_schema_with_quoted_names(bed):
    database = bed.database(table=None)
    database.execute('CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema"."Out.""Box" (%s)' % COLUMNS)
    table = '"My Schema"."Out.""Box"'
    topic = bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database, harvest={"outbox_table": table})
    truth = Truth()
    for n in range(20):
        bed.write(database, topic, "k", "%d" % n, truth=truth, table=table)
    bed.wait_empty(database, table=table)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_unquoted_table_name_is_folded(bed):
    database = bed.database()
    topic = bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database, harvest={"outbox_table": "Public.OutBox"})
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")


def test_ids_in_any_order(bed):
    """Sequences are restarted and cached, applications draw ids long before they use them: an id below everything that
    was ever seen is a record like any other."""
    database = bed.database()
    topic = bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database)
    for row_id in (1000, 5, 2000, 1, 1001, 9_000_000_000_000, 3, 1002, -7, 0):
        database.execute("INSERT INTO outbox VALUES (%s, now(), %s, %s, %s, '{}', '{}')",
                         [row_id, topic, "k%d" % row_id, "id %d" % row_id])
        collector.wait_value("id %d" % row_id)
    bed.wait_empty(database)
    assert len(collector.read_to_end()) == 10


@pytest.mark.usefixtures("each_strategy")
def test_rows_marked_by_another_leader_are_taken_over(bed):
    """Left behind by a leader that is gone, of this or of another program with the same protocol."""
    database = bed.database()
    topic = bed.topic()
    truth = Truth()
    for n in range(100):
        bed.write(database, topic, "k%d" % (n % 3), "%d" % n, truth=truth)
    database.execute("UPDATE outbox SET leader_id = gen_random_uuid() WHERE id % 2 = 0")
    collector = bed.collector(topic)
    bed.harvestd(database)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def murmur2(data):
    """Kafka's own placement of keys, as its Java client does it."""
    mask = 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i:i + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ (k >> 24)) * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ k
    if len(data) & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & mask
    h = (h ^ (h >> 13)) * 0x5BD1E995 & mask
    return h ^ (h >> 15)


def test_keys_are_placed_as_by_the_java_client(bed):
    database = bed.database()
    topic = bed.topic(partitions=5)
    keys = ["key-%d" % n for n in range(50)] + ["é漢字%d" % n for n in range(10)]
    with database.connect() as c:
        insert(c, [record(topic, k, "v") for k in keys])
    collector = bed.collector(topic)
    bed.harvestd(database)
    collector.wait_count(len(keys))
    assert {m.key: m.partition for m in collector.snapshot()} == {
        k.encode(): (murmur2(k.encode()) & 0x7FFFFFFF) % 5 for k in keys}


def test_topics_that_do_not_exist_are_created_by_the_broker(bed):
    database = bed.database()
    topics = [fresh_name("auto") for _ in range(3)]
    app = bed.application(database, topics, keys=10, count=200)
    collector = bed.collector(topics)
    bed.harvestd(database)
    app.start().wait()
    bed.judge(app, collector, duplicates=0)
