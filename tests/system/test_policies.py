"""Policies for records that Kafka refuses for good, by topic; and a database that does not let them be carried out."""
import random
import signal
import string

import pytest

from bed.checker import Truth, check, record
from bed.daemon import run_once, write_ini
from bed.kafka import fresh_name
from bed.postgres import TABLE_WITHOUT_CONSTRAINTS
from bed.util import wait_until

LIMITS = {"blocked_backoff_max": "60s", "io_error_backoff": "100ms", "heartbeat_timeout": "2s"}
BIG = "".join(random.Random(2).choices(string.ascii_letters + string.digits, k=200000))
KINDS = {
    "too large": "kafka_value = '%s'" % BIG,
    "invalid topic": "kafka_topic = 'no topic'",
    "invalid row": "kafka_header_keys = '{a}'",
    "unknown topic": "kafka_topic = '%(missing)s'",
}


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


def skipped(daemon):
    return [x for x in list(daemon.lines) if x["msg"].startswith("skipped")]


def class_of(kind):
    return "invalid row" if kind == "invalid topic" else kind


@pytest.mark.parametrize("policy, claim", [("park", "cursor"), pytest.param("skip", "mark", marks=pytest.mark.long)])
def test_bad_records_leave_and_their_keys_go_on(bed, policy, claim):
    """Some have their own policy by topic: an illegal one is skipped where others are parked, and the other way round. Records of a topic
    that is not there are no record's fault: they wait, until it is made."""
    broker = bed.own_kafka(auto_create_topics_enable="false")
    database = bed.database(TABLE_WITHOUT_CONSTRAINTS)
    topic, missing, truth = bed.topic(broker, max_message_bytes=100000), fresh_name("missing"), Truth()
    collector = bed.collector(topic, broker)
    rows, bad = fill(database, topic, 4000, 100), {}
    kinds = sorted(KINDS)
    for n in range(40):
        row_id, key, _ = rows[n * 98 + 50 + n % 5]
        bad[row_id] = kinds[n % len(kinds)]
        database.execute("UPDATE outbox SET %s WHERE id = %d" % (KINDS[bad[row_id]].replace("%(missing)s", missing), row_id))
    waiting = {key for row_id, key, _ in rows if bad.get(row_id) == "unknown topic"}
    for row_id, key, value in rows:
        if bad.get(row_id, "unknown topic") == "unknown topic":
            truth.committed([(row_id, record(missing if row_id in bad else topic, key, value))])
    other = "skip" if policy == "park" else "park"
    daemon = bed.harvestd(database, broker, start=False, limits=LIMITS, harvest={
        "claim": claim, "on_poison": policy, "on_poison_topics": "other.*=block, no?topic=%s" % other})
    make_parked(daemon, database)
    daemon.start()
    here = sum(1 for row_id, key, _ in rows if row_id not in bad and key not in waiting)
    collector.wait_for(lambda ms: sum(m.key.decode() not in waiting for m in ms) >= here, 90, "all good records of keys that do not wait")
    policies = {row_id: other if kind == "invalid topic" else policy for row_id, kind in bad.items() if kind != "unknown topic"}
    parks, skips = ({row_id for row_id, p in policies.items() if p == which} for which in ("park", "skip"))
    wait_until(lambda: {i for i, in database.execute("SELECT id FROM outbox_parked")} >= parks, 60, lambda: "rows that are parked")
    wait_until(lambda: len(skipped(daemon)) >= len(skips), 60, lambda: "lines of what is skipped")
    parked = database.execute("SELECT id, class, attempts, error FROM outbox_parked")
    assert {i for i, _, _, _ in parked} == parks and all(class_of(bad[i]) == c and a == 1 and e for i, c, a, e in parked), parked
    lines = skipped(daemon)
    assert {int(x["id"]): x["class"] for x in lines} == {i: class_of(bad[i]) for i in skips}
    assert all(x["level"] == "error" and x["key"] and x["table"] == "outbox" and x["reason"] for x in lines)
    assert not any(BIG[:100] in x["raw"] for x in daemon.lines)
    left = {row_id for row_id, kind in bad.items() if kind == "unknown topic"}
    assert {i for i, in database.execute("SELECT id FROM outbox WHERE kafka_topic = %s", [missing])} == left
    broker.create_topic(missing, 2)
    collector.add(missing)
    bed.wait_empty(database, deadline=60)
    report = check(truth, collector.read_to_end())
    bed.note("%s: %s" % (policy, report))
    report.assert_ok()


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
