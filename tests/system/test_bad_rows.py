"""Rows that cannot be sent as they are: never a crash, never a loss, a log line with the id; all other keys flow, also
those of the same shard (FNV-1a of the key modulo send_concurrency); and the key goes on as soon as the row is mended or deleted."""
import json
import random
import string

import pytest
from confluent_kafka.admin import ConfigResource

from bed.checker import Truth, check, record
from bed.kafka import fresh_name
from bed.postgres import TABLE_WITHOUT_CONSTRAINTS
from bed.util import fnv1a, keys_in_shard

SHARDS = 4
LIMITS = {"send_concurrency": SHARDS, "blocked_backoff_max": "500ms", "io_error_backoff": "100ms"}
# More than the topics of these tests take; that counts after compression, so it must not be compressible.
BIG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=3000))


def put(database, topic, key, value, names="{}", values="{}"):
    return database.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, "
                            "kafka_header_values) VALUES (now(), %s, %s, %s, %s, %s) RETURNING id",
                            [topic, key, value, names, values])[0][0]


class Scene:
    """A key with a good record, a bad one, and a good one; and good records of other keys, one of them in the same shard."""

    def __init__(self, bed, bad, kafka=None, key="bad", limits=None, topic=None, **topic_options):
        self.bed = bed
        self.database = bed.database(TABLE_WITHOUT_CONSTRAINTS)
        self.topic = topic or bed.topic(kafka, **topic_options)
        self.collector = bed.collector(self.topic, kafka)
        self.shard = fnv1a(key or "") % SHARDS
        self.key = key
        self.mate = keys_in_shard(self.shard, SHARDS, 1, "mate")[0]   # another key, the same shard
        self.others = [self.mate] + [k for s in range(SHARDS) if s != self.shard for k in keys_in_shard(s, SHARDS, 2, "other")]
        self.daemon = bed.harvestd(self.database, kafka, limits=dict(LIMITS, **(limits or {})))
        self.daemon.wait_leading()
        self.before = self.good(self.key or self.mate, "before")
        self.collector.wait_value("before")
        self.bad_id = bad(self)
        self.blocked = self.daemon.wait_log("record", "blocked", id=self.bad_id, deadline=40)
        if self.key is not None:
            self.good(self.key, "after")

    def good(self, key, value):
        return put(self.database, self.topic, key, value)

    def others_flow(self, rounds=3):
        for n in range(rounds):
            for k in self.others:
                self.good(k, "%s %d" % (k, n))
            for k in self.others:
                self.collector.wait_value("%s %d" % (k, n), deadline=30)
        assert b"after" not in self.collector.values(), "its key went on without it"
        assert self.daemon.running()
        assert self.database.count("id = %d" % self.bad_id) == 1, "it is still there"

    def goes_on(self):
        self.daemon.wait_log("record", "unblocked", id=self.bad_id)
        if self.key is not None:
            self.collector.wait_value("after")
        self.bed.wait_empty(self.database)

    def mend(self, sql, *params):
        self.database.execute("UPDATE outbox SET %s WHERE id = %d" % (sql, self.bad_id), params)
        self.goes_on()

    def delete(self):
        self.database.execute("DELETE FROM outbox WHERE id = %d" % self.bad_id)
        self.goes_on()


# What is wrong, and what mends it.
DEFECTS = {
    "more header keys": (dict(names="{a,b}", values="{1}"), "kafka_header_keys = '{a}'"),
    "more header values": (dict(names="{a}", values="{1,2}"), "kafka_header_values = '{1}'"),
    "no header values": (dict(names="{a}", values="{}"), "kafka_header_values = '{1}'"),
    "NULL header values": (dict(names="{a}", values=None), "kafka_header_values = '{1}'"),
    "NULL header keys": (dict(names=None, values="{1}"), "kafka_header_keys = '{a}'"),
    "NULL as a header's key": (dict(names="{NULL}", values="{1}"), "kafka_header_keys = '{a}'"),
    "NULL as a header's value": (dict(names="{a}", values="{NULL}"), "kafka_header_values = '{1}'"),
    "header arrays of two dimensions": (dict(names="{{a},{b}}", values="{{1},{2}}"),
                                        "kafka_header_keys = '{a}', kafka_header_values = '{1}'"),
    "topic with a blank": (dict(topic="no topic"), "kafka_topic = %(topic)s"),
    "topic with a slash": (dict(topic="../etc/passwd"), "kafka_topic = %(topic)s"),
    "empty topic": (dict(topic=""), "kafka_topic = %(topic)s"),
    "topic of a dot": (dict(topic="."), "kafka_topic = %(topic)s"),
    "topic of 250 characters": (dict(topic="t" * 250), "kafka_topic = %(topic)s"),
    "topic beyond ASCII": (dict(topic="thémä"), "kafka_topic = %(topic)s"),
    "NULL topic": (dict(topic=None), "kafka_topic = %(topic)s"),
}


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_defect(bed, name):
    bad, mending = DEFECTS[name]
    scene = Scene(bed, lambda s: put(s.database, bad.get("topic", s.topic), "bad", "was bad",
                                     bad.get("names", "{}"), bad.get("values", "{}")))
    assert scene.blocked.get("reason")
    scene.others_flow()
    assert b"was bad" not in scene.collector.values()
    scene.mend(mending.replace("%(topic)s", "%s"), *([scene.topic] if "%(topic)s" in mending else []))
    values = scene.collector.values()
    assert values.count(b"was bad") == 1
    mended = next(m for m in scene.collector.snapshot() if m.value == b"was bad")
    assert mended.headers in ((), (("a", b"1"),))
    assert len(scene.collector.read_to_end()) == len(scene.others) * 3 + 3


def test_defect_that_is_deleted(bed):
    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", "never", names="{a,b}", values="{1}"))
    scene.others_flow()
    scene.delete()
    assert b"never" not in [m.value for m in scene.collector.read_to_end()]


def test_null_key(bed):
    """NULL is in the shard of the empty key, and holds up nobody: those that have a key are of another one."""
    scene = Scene(bed, lambda s: put(s.database, s.topic, None, "was bad"), key=None)
    scene.others_flow()
    scene.good("", "empty")
    scene.collector.wait_value("empty")
    scene.mend("kafka_key = %s", scene.mate)
    arrived = [m for m in scene.collector.read_to_end() if m.key == scene.mate.encode()]
    assert [m.value for m in arrived][::len(arrived) - 1] == [b"before", b"was bad"]


def test_both_header_arrays_null_are_no_headers(bed):
    database, topic = bed.database(TABLE_WITHOUT_CONSTRAINTS), bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database)
    put(database, topic, "k", "v", names=None, values=None)
    assert collector.wait_value("v").headers == ()
    bed.wait_empty(database)


def test_empty_key_is_a_key(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database)
    put(database, topic, "", "v")
    assert collector.wait_value("v").key == b""


def test_record_larger_than_the_topic_takes(bed):
    """Only the broker knows; its error names a whole batch, of which the other records are innocent."""
    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", BIG), max_message_bytes=1000)
    assert scene.blocked.get("topic") == scene.topic
    scene.others_flow()
    scene.mend("kafka_value = 'shorter'")
    values = [m.value for m in scene.collector.read_to_end()]
    assert values.count(b"shorter") == 1 and values.index(b"shorter") >= 0 and b"after" in values
    assert BIG.encode() not in values


def test_record_larger_than_the_topic_takes_is_deleted(bed):
    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", BIG), max_message_bytes=1000)
    scene.others_flow()
    scene.delete()


def test_topic_is_mended_instead_of_the_row(bed):
    """The limit is raised: the record goes as it is."""

    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", BIG), max_message_bytes=1000)
    resource = ConfigResource("topic", scene.topic, set_config={"max.message.bytes": "100000"})
    admin = bed.kafka.admin()   # has to live until the answer
    admin.alter_configs([resource])[resource].result(timeout=20)
    scene.goes_on()
    assert BIG.encode() in scene.collector.values()


def test_record_larger_than_the_client_takes(bed):
    """message.max.bytes of librdkafka, a million bytes unless set otherwise: refused before it is sent."""
    big = "y" * 1500000
    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", big))
    scene.others_flow()
    scene.mend("kafka_value = 'shorter'")


def test_several_bad_rows_in_several_shards(bed):
    """Three keys blocked, for different reasons; all others flow under load; then all is mended."""
    database = bed.database(TABLE_WITHOUT_CONSTRAINTS)
    topic = bed.topic(max_message_bytes=2000)
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, limits=LIMITS)
    daemon.wait_leading()
    keys = [keys_in_shard(s, SHARDS, 3) for s in range(SHARDS)]
    bad = [put(database, topic, keys[0][0], "a", names="{a}"), put(database, "no topic", keys[1][0], "b"),
           put(database, topic, keys[2][0], BIG)]
    for row_id in bad:
        daemon.wait_log("record", "blocked", id=row_id)
    app = bed.application(database, [topic], keys=[k for s in keys for k in s], count=2000, make=dict(long_values=0, size=50))
    app.start().wait()
    free = {k.encode() for s in keys for k in s} - {keys[s][0].encode() for s in range(3)}
    expected = sum(len(rows) for (_, key), rows in app.truth.lanes.items() if key in free)
    collector.wait_for(lambda ms: sum(m.key in free for m in ms) >= expected, 60, "all records of the free keys")
    assert {m.key for m in collector.snapshot()} == free
    database.execute("DELETE FROM outbox WHERE id = ANY(%s)", [bad])
    for row_id in bad:
        daemon.wait_log("record", "unblocked", id=row_id)
    bed.judge(app, collector)


def test_bad_row_survives_a_restart_of_the_daemon(bed):
    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", "was bad", names="{a,b}", values="{1}"))
    scene.daemon.stop()
    since = scene.daemon.position()
    scene.daemon.start()
    scene.daemon.wait_log("record", "blocked", since=since, id=scene.bad_id)
    scene.others_flow(1)
    scene.mend("kafka_header_keys = '{}', kafka_header_values = '{}'")
    assert [m.value for m in scene.collector.read_to_end() if m.key == b"bad"] == [b"before", b"was bad", b"after"]


def test_a_blocked_record_is_not_shouted_about(bed):
    """It is tried again and again; the log says it once, or seldom."""
    scene = Scene(bed, lambda s: put(s.database, s.topic, "bad", BIG), max_message_bytes=1000,
                  limits={"blocked_backoff_max": "100ms", "io_error_backoff": "20ms"})
    since = scene.daemon.position()
    scene.others_flow(10)
    lines = [x for x in scene.daemon.lines[since:] if x["level"] in ("warn", "error", "info")]
    assert len(lines) < 20, scene.daemon.tail()
    scene.delete()


def test_topic_that_does_not_exist_and_is_not_created(bed):
    """A matter of configuration: it blocks with a clear line, and flows once the topic is there."""
    broker = bed.own_kafka(auto_create_topics_enable="false")
    missing = fresh_name("missing")
    scene = Scene(bed, lambda s: put(s.database, missing, "bad", "waited"), kafka=broker)
    assert scene.blocked["topic"] == missing
    scene.others_flow()
    broker.create_topic(missing, 2)
    scene.collector.add(missing)
    scene.goes_on()
    scene.collector.wait_value("waited", topic=missing)


def test_header_name_and_value_of_any_text(bed):
    database, topic, truth = bed.database(), bed.topic(), Truth()
    headers = [("", ""), ("a=b", "\"'\\{},"), ("ключ", "😀" * 1000), ("x" * 5000, "\n\t\r\x01"), ("", "again")]
    bed.write(database, topic, "k", json.dumps("v"), headers, truth=truth)
    collector = bed.collector(topic)
    bed.harvestd(database)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
    assert record(topic, "k", '"v"', headers) in truth.ids
