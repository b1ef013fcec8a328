"""Connections that end in the middle of a reply or of a request, that hang, and that lead nowhere."""
import pytest

from bed.util import wait_until


@pytest.mark.usefixtures("each_strategy")
def test_30_cuts_in_the_middle_of_claims_and_purges(bed):
    """The server has committed, the daemon sees a part of the reply (or: the server sees a part of the request)."""
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    proxy = bed.proxy(database.server.port, postgres=True)
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=25, writers=3, pause=0.02, hold=0.05)
    daemon = bed.harvestd(data_source=database.data_source(port=proxy.port),
                          limits={"io_error_backoff": "50ms", "io_error_backoff_max": "200ms"})
    daemon.wait_leading()
    app.start()
    kinds = ["mark", "purge"] * 15
    bed.random.shuffle(kinds)
    passed = []
    for n, kind in enumerate(kinds):
        before = collector.count()
        order = proxy.cut(kind, part="request" if n % 6 == 5 else "reply")
        if order.length:
            passed.append("%s %d/%d" % (kind, order.passed, order.length))
        collector.wait_count(before + 20)
    bed.note("cut: " + ", ".join(passed))
    app.stop()
    bed.judge(app, collector)
    assert proxy.cuts_done == 30 and proxy.accepted >= 31
    daemon.stop()


@pytest.mark.usefixtures("each_strategy")
def test_reply_that_is_complete_but_for_its_end(bed):
    """All rows passed, the completion did not; and: nothing passed at all."""
    database, topic = bed.database(), bed.topic()
    proxy = bed.proxy(database.server.port, postgres=True)
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=25, writers=2, pause=0.02)
    bed.harvestd(data_source=database.data_source(port=proxy.port), limits={"io_error_backoff": "50ms"}).wait_leading()
    app.start()
    for kind in ("mark", "purge"):
        for share in (0.0, 0.97, 0.9999):
            proxy.cut(kind, share=share)
            collector.wait_count(collector.count() + 50)
    app.stop()
    bed.judge(app, collector)


def test_database_becomes_a_black_hole(bed):
    """No packet comes back, no connection is refused: only the daemon's own time-outs help."""
    database, topic = bed.database(), bed.topic()
    proxy = bed.proxy(database.server.port, postgres=True)
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=25, writers=2, pause=0.02)
    daemon = bed.harvestd(data_source=database.data_source(port=proxy.port),
                          limits={"statement_timeout": "1s", "connect_timeout": "1s", "io_error_backoff": "100ms"})
    daemon.wait_leading()
    app.start()
    collector.wait_count(100)
    since = daemon.position()
    proxy.hang()
    daemon.wait_log("database", "disconnected", since=since, role="claim")
    accepted = proxy.accepted
    wait_until(lambda: proxy.accepted >= accepted + 4, 30, "more attempts to connect")
    assert len(daemon.find("database", since=since)) <= 8, "one line a change\n" + daemon.tail()
    proxy.flow()
    daemon.wait_log("database", "connected", since=since, role="claim")
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector)
    daemon.stop()


def test_connections_to_the_broker_are_reset(bed):
    """All of them, time and again; and for a while new ones are refused."""
    front = bed.proxy(0)
    broker = bed.own_kafka(proxied=front.port)
    front.upstream_port = broker.inner_port
    database, topic = bed.database(), bed.topic(broker)
    collector = bed.collector(topic, broker)
    app = bed.application(database, [topic], keys=25, writers=2, pause=0.02)
    daemon = bed.harvestd(database, servers="127.0.0.1:%d" % front.port)
    daemon.wait_leading()
    app.start()
    for n in range(10):
        collector.wait_count(collector.count() + 50)
        wait_until(front.reset, 30, "a connection to reset")
    front.down()
    front.allow()
    collector.wait_count(collector.count() + 50)
    app.stop()
    bed.judge(app, collector)
    daemon.stop()


def test_broker_becomes_a_black_hole(bed):
    """Longer than socket.timeout.ms, shorter than the lease; requests on their way may have reached it or not."""
    front = bed.proxy(0)
    broker = bed.own_kafka(proxied=front.port)
    front.upstream_port = broker.inner_port
    database, topic = bed.database(), bed.topic(broker)
    collector = bed.collector(topic, broker)
    app = bed.application(database, [topic], keys=25, writers=2, pause=0.02)
    daemon = bed.harvestd(database, servers="127.0.0.1:%d" % front.port, limits={"heartbeat_timeout": "20s"})
    daemon.wait_leading()
    app.start()
    collector.wait_count(100)
    since = daemon.position()
    front.hang()
    accepted = front.accepted
    wait_until(lambda: front.accepted > accepted, 30, "the daemon to give up a connection and to try anew")
    assert not daemon.find("kafka", "rewinding", since=since)
    front.flow()
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector)
    daemon.stop()
