"""The bed itself: servers come back as they were, the proxy hurts what it is asked to hurt, the log is parsed."""
import threading

import psycopg
import pytest
from confluent_kafka import Producer

from bed.daemon import parse_logfmt
from bed.util import fnv1a, keys_in_shard


def test_logfmt():
    line = r'time=2026-01-02T03:04:05.678Z level=info component=leader msg="acq \"x\" \\ \n" name=a leader_id= empty=""'
    assert parse_logfmt(line) == {
        "time": "2026-01-02T03:04:05.678Z", "level": "info", "component": "leader", "msg": 'acq "x" \\ \n',
        "name": "a", "leader_id": "", "empty": ""}
    for noise in ("==123==ERROR: AddressSanitizer", "harvestd: x.c:1: f: Assertion `a == b' failed.", "", 'level=info msg="'):
        assert parse_logfmt(noise) is None


def test_fnv1a():
    assert fnv1a("") == 0x811C9DC5 and fnv1a("a") == 0xE40C292C and fnv1a("foobar") == 0xBF9CF968
    assert {fnv1a(k) % 8 for k in keys_in_shard(3, 8, 5)} == {3}


def test_records_come_back_byte_for_byte(bed):
    topic = bed.topic()
    producer = Producer({"bootstrap.servers": bed.kafka.servers})
    sent = [(b"k", b"v", []), (b"k", None, []), (b"k", b"", []), (b"k", bytes(range(256)), [("h", b""), ("h", b"\xff")]),
            (b"k", b"x", [("", b"1"), ("ключ", "✓".encode())])]
    for key, value, headers in sent:
        producer.produce(topic, key=key, value=value, headers=headers, partition=0)
    producer.flush(10)
    got = bed.collector(topic).read_to_end()
    assert [(m.key, m.value, list(m.headers)) for m in got] == sent


def test_writers_keep_the_truth(bed):
    database = bed.database()
    app = bed.application(database, ["a", "b"], keys=10, count=500).start().wait()
    rows = database.execute("SELECT id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values "
                            "FROM outbox ORDER BY id")
    assert len(rows) == len(app.truth) == 500 and app.rolled_back > 0
    by_lane = {}
    for row_id, topic, key, value, names, values in rows:
        by_lane.setdefault((topic, key.encode()), []).append(
            (row_id, value.encode() if value is not None else None, tuple(zip(names, (v.encode() for v in values)))))
    assert by_lane == {lane: [(i, r.value, r.headers) for i, r in found] for lane, found in app.truth.lanes.items()}


def test_writers_survive_a_server_that_crashes(bed):
    server = bed.own_postgres()
    database = bed.database(server=server)
    app = bed.application(database, ["a"], keys=10).start()
    for n in range(3):
        app.wait_written(100 * (n + 1))
        server.restart("immediate")
    app.wait_written(600)
    app.stop()
    found = database.execute("SELECT id FROM outbox ORDER BY id")
    assert sorted(app.truth.ids.values()) == [row[0] for row in found]


@pytest.mark.parametrize("part", ["reply", "request"])
def test_proxy_cuts_a_mark(bed, part):
    database = bed.database()
    database.execute("INSERT INTO outbox VALUES (1, now(), 't', 'k', 'v', '{}', '{}')")
    proxy = bed.proxy(database.server.port, postgres=True)

    order = []
    thread = threading.Thread(target=lambda: order.append(proxy.cut("mark", part, share=0.5)))
    with psycopg.connect(database.data_source(port=proxy.port), autocommit=True) as c:
        assert c.execute("SELECT 1").fetchone() == (1,)
        thread.start()
        while not proxy.cut_order:
            pass
        if part == "reply":   # one without rows is not what was asked for
            c.execute("UPDATE outbox SET kafka_value = NULL WHERE id = 2 RETURNING id, kafka_topic", prepare=True)
        with pytest.raises(psycopg.OperationalError):
            c.execute("UPDATE outbox SET kafka_value = %s WHERE id = 1 RETURNING id, kafka_topic", ["new"], prepare=True)
    thread.join()
    assert order[0].done.is_set()
    # In the middle of a reply the server has committed already, in the middle of a request it knows of nothing.
    assert database.execute("SELECT kafka_value FROM outbox") == [("new" if part == "reply" else "v",)]


def test_proxy_refuses_and_resets(bed):
    database = bed.database()
    proxy = bed.proxy(database.server.port)
    c = psycopg.connect(database.data_source(port=proxy.port), autocommit=True)
    proxy.down()
    with pytest.raises(psycopg.OperationalError):
        c.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.data_source(port=proxy.port))
    proxy.allow()
    psycopg.connect(database.data_source(port=proxy.port)).close()
    proxy.hang()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.data_source(port=proxy.port, extra="connect_timeout=2"))
    proxy.flow()
    psycopg.connect(database.data_source(port=proxy.port)).close()


def test_broker_keeps_its_records_over_kill_and_restart(bed):
    broker = bed.own_kafka()
    topic = bed.topic(broker)
    producer = Producer({"bootstrap.servers": broker.servers})
    producer.produce(topic, key="k", value="1")
    assert producer.flush(10) == 0
    collector = bed.collector(topic, broker)
    collector.wait_value("1")
    broker.kill()
    broker.start()
    producer.produce(topic, key="k", value="2")
    assert producer.flush(30) == 0
    collector.wait_value("2")
    assert [m.value for m in collector.read_to_end()] == [b"1", b"2"]
