"""Bad records of several kinds among good ones: their keys stop exactly there, all others flow; what is mended comes in order."""
import random
import string
import time

import pytest

from bed.blocked import blocked, rows, wait_rows
from bed.kafka import fresh_name
from bed.postgres import TABLE_WITHOUT_CONSTRAINTS

ROWS, KEYS = 20000, 200
# More than the topic takes, and not to be compressed; its limit is above what batches of the good ones come to.
BIG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=200000))
KINDS = {
    "too large for the topic": "kafka_value = '%s'" % BIG,
    "illegal topic": "kafka_topic = 'no topic'",
    "unknown topic": "kafka_topic = '%(missing)s'",
    "header arrays of unequal length": "kafka_header_keys = '{a}'",
    "no key": "kafka_key = NULL",
}


@pytest.mark.parametrize("claim", ["mark", "cursor"])
def test_bad_records_stop_their_keys_only(bed, claim):
    """One record in a thousand is bad, of one key in ten. Then all are mended at once."""
    broker = bed.own_kafka(auto_create_topics_enable="false")
    database = bed.database(TABLE_WITHOUT_CONSTRAINTS)
    topic, missing = bed.topic(broker, max_message_bytes=100000), fresh_name("missing")
    collector = bed.collector(topic, broker)
    database.execute("""INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
        SELECT now(), '%s', 'key ' || n %% %d, n::text, '{}', '{}' FROM generate_series(1, %d) n""" % (topic, KEYS, ROWS))
    rows = database.execute("SELECT id, kafka_key, kafka_value FROM outbox ORDER BY id")
    bad = {}   # the id of the first bad row of a key
    kinds = sorted(KINDS)
    for n in range(20):
        row_id, key, _ = rows[n * 1000 + 500 + n]
        bad.setdefault(key, row_id)
        change = KINDS[kinds[n % len(kinds)]].replace("%(missing)s", missing)
        database.execute("UPDATE outbox SET %s WHERE id = %d" % (change, row_id))
    keyless = {rows[n * 1000 + 500 + n][0] for n in range(20) if kinds[n % len(kinds)] == "no key"}
    stops = {key: row_id for key, row_id in bad.items() if row_id not in keyless}
    expected = {}
    for row_id, key, value in rows:
        if row_id not in keyless and not (key in stops and row_id >= stops[key]):
            expected.setdefault(key.encode(), []).append(value.encode())
    wanted = {(key, value) for key, values in expected.items() for value in values}
    # To another topic: what was in flight to this one already is not behind it in any partition.
    elsewhere = {key.encode() for n in range(20) for _, key, _ in [rows[n * 1000 + 500 + n]] if kinds[n % len(kinds)] == "unknown topic"}
    daemon = bed.harvestd(database, broker, harvest={"claim": claim}, limits={"blocked_backoff_max": "2s", "io_error_backoff": "100ms"})
    collector.wait_for(lambda ms: wanted <= {(m.key, m.value) for m in ms}, 90, "all records before the bad ones")
    for row_id in stops.values():
        daemon.wait_log("record", "blocked", id=row_id)
    arrived = {}
    for m in collector.snapshot():
        if m.value not in arrived.setdefault(m.key, []):   # a refused batch may leave duplicates of others
            arrived[m.key].append(m.value)
    for key, values in expected.items():
        got = arrived[key][:len(values) if key in elsewhere else None]
        at = next((i for i, pair in enumerate(zip(values, got)) if pair[0] != pair[1]), min(len(values), len(got)))
        assert got == values, "%s, from place %d on: %s instead of %s" % (key, at, got[at:at + 5], values[at:at + 5])
    begin = time.monotonic()
    database.execute("""UPDATE outbox SET kafka_topic = '%s', kafka_header_keys = '{}', kafka_key = coalesce(kafka_key, 'was without'),
        kafka_value = left(kafka_value, 10) WHERE id = ANY (%%s) AND kafka_topic <> '%s'""" % (topic, missing),
                     [[rows[n * 1000 + 500 + n][0] for n in range(20)]])
    broker.create_topic(missing, 2)
    collector.add(missing)
    bed.wait_empty(database, deadline=40)
    bed.note("%s: all went through %.1f s after they were mended" % (claim, time.monotonic() - begin))
    first = {}
    for m in collector.read_to_end():
        first.setdefault(m.key, [])
        if m.value not in first[m.key]:
            first[m.key].append(m.value)
    for row_id, key, value in rows:
        if row_id not in keyless and key not in stops:
            continue
        values = first[b"was without" if row_id in keyless else key.encode()]
        assert value.encode() in values or BIG[:10].encode() in values
    for key in stops:
        numbers = [int(v) for v in first[key.encode()] if v.isdigit()]
        if key.encode() not in {m.key for m in collector.snapshot() if m.topic == missing}:
            assert numbers == sorted(numbers)
    assert daemon.running()


def test_records_flow_once_their_topic_is_there(bed, tmp_path):
    """Many keys wait for a topic that does not exist, one of them tries it; those of another topic do not notice."""
    broker = bed.own_kafka(auto_create_topics_enable="false")
    database = bed.database()
    topic, missing = bed.topic(broker), fresh_name("missing")
    collector = bed.collector(topic, broker)
    daemon = bed.harvestd(database, broker, harvest={"control_socket": str(tmp_path / "control.sock")})
    daemon.wait_leading()
    insert = """INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
        SELECT now(), '%s', '%s ' || n %% %d, n::text, '{}', '{}' FROM generate_series(1, %d) n"""
    database.execute(insert % (missing, "waiting", 100, 1000))
    daemon.wait_log("record", "blocked", deadline=60, topic=missing)
    database.execute(insert % (topic, "free", 100, 5000))
    collector.wait_count(5000, deadline=60)
    keys, (closed,), end = wait_rows(daemon, lambda keys: len(keys) == 100)
    assert {row["topic"] for row in keys} == {missing} and {row["class"] for row in keys} == {"unknown topic"}
    assert (closed["topic"], closed["keys"], end["topics"], end["keys"]) == (missing, 100, 1, 100) and "nknown topic" in closed["reason"]
    assert "100 keys blocked, 1 topic closed" in blocked(daemon).stdout
    broker.create_topic(missing, 2)
    collector.add(missing)
    begin = time.monotonic()
    collector.wait_for(lambda ms: sum(m.topic == missing for m in ms) >= 1000, 60, "what waited for the topic")
    bed.note("1,000 records of 100 keys arrived %.1f s after their topic was made" % (time.monotonic() - begin))
    lanes = {}
    for m in collector.snapshot():
        lanes.setdefault((m.topic, m.key), []).append(int(m.value))
    assert all(values == sorted(values) for values in lanes.values())
    bed.wait_empty(database)
    assert rows(daemon)[:2] == ([], [])
