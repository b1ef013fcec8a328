"""A policy that the database does not let be carried out, until it is mended and a signal says so."""
import signal

from bed.daemon import run_once, write_ini
from bed.postgres import TABLE_WITHOUT_CONSTRAINTS
from bed.util import wait_until

LIMITS = {"blocked_backoff_max": "60s", "io_error_backoff": "100ms", "heartbeat_timeout": "2s"}


def make_parked(daemon, database):
    write_ini(daemon.ini, daemon.sections)
    done = run_once("schema", "-c", daemon.ini, "--park")
    assert done.returncode == 0, done.stderr
    database.execute(done.stdout)


def fill(database, topic, rows, keys):
    """Returns [(id, key, value)]."""
    database.execute("""INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
        SELECT now(), '%s', 'key ' || n %% %d, 'value ' || n, '{}', '{}' FROM generate_series(1, %d) n""" % (topic, keys, rows))
    return database.execute("SELECT id, kafka_key, kafka_value FROM outbox ORDER BY id")


def test_without_a_table_to_park_in_the_key_waits(bed):
    """The log says so once. Made, and told by a signal, it takes the record at once."""
    database, topic = bed.database(TABLE_WITHOUT_CONSTRAINTS), bed.topic()
    rows = fill(database, topic, 1000, 10)
    bad = rows[500]
    database.execute("UPDATE outbox SET kafka_header_keys = '{a}' WHERE id = %d" % bad[0])
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, harvest={"on_poison": "park"}, limits=LIMITS)
    before = [value for _, key, value in rows if key != bad[1]] + [value for row_id, key, value in rows if key == bad[1] and row_id < bad[0]]
    collector.wait_for(lambda ms: {m.value.decode() for m in ms} >= set(before), 60, "all before the bad one, and other keys")
    line = daemon.wait_log("database", "statement refused", role="settle")
    assert "outbox_parked" in line["reason"] and line["advice"], line
    assert {m.value.decode() for m in collector.snapshot()} == set(before)
    wait_until(lambda: database.count() == len(rows) - len(before), 30, "others to be purged")
    make_parked(daemon, database)
    daemon.signal(signal.SIGHUP)
    bed.wait_empty(database, deadline=30)   # sooner than the longest wait
    assert database.execute("SELECT id, class FROM outbox_parked") == [(bad[0], "invalid row")]
    values = [m.value.decode() for m in collector.read_to_end() if m.key.decode() == bad[1]]
    assert values == [value for row_id, key, value in rows if key == bad[1] and row_id != bad[0]]
    assert len([x for x in daemon.lines if x["msg"] == "statement refused"]) == 1
