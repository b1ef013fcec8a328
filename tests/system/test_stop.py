"""SIGTERM and SIGINT: what is in flight is drained and purged, the group is left, exit code 0; a second signal hurries, a third ends."""
import signal
import time

import pytest

from bed.checker import Record
from bed.kafka import fresh_name


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stops_under_load_without_duplicates(bed, signum):
    """Five times in the middle of it; what was sent before is not sent again by the next one."""
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=20, writers=3, pause=0.02)
    daemon = bed.harvestd(database, start=False)
    app.start()
    for _ in range(5):
        since = daemon.position()
        daemon.start().wait_leading(since=since)
        collector.wait_count(collector.count() + 100)
        time.sleep(bed.random.random() * 0.2)
        daemon.signal(signum)
        assert daemon.wait_exit(20) == 0, daemon.tail()
        daemon.wait_log("main", "stopping", since=since)
        daemon.wait_log("main", "stopped", since=since)
        # Everything that arrived has left the table.
        arrived = {m for m in collector.read_to_end()}
        with app.truth.lock:
            ids = dict(app.truth.ids)
        left = {row[0] for row in database.execute("SELECT id FROM outbox")}
        both = left & {ids[r] for m in arrived for r in [_record(m)] if r in ids}
        assert not both, "delivered and not purged: %s" % sorted(both)[:5]
    app.stop()
    daemon.start()
    bed.judge(app, collector, duplicates=0)


def _record(m):
    return Record(m.topic, m.key, m.value, m.headers)


def test_stops_at_once_when_there_is_nothing_to_do(bed):
    database = bed.database()
    daemon = bed.harvestd(database)
    daemon.wait_leading()
    begin = time.monotonic()
    daemon.stop(deadline=10)
    bed.note("stopped after %.2f s" % (time.monotonic() - begin))


def test_stops_before_it_ever_led(bed):
    database = bed.database()
    daemon = bed.harvestd(database)
    daemon.wait_started()
    daemon.stop(deadline=15)


def test_stop_as_standby(bed):
    database, group = bed.database(), fresh_name("group")
    first = bed.harvestd(database, group=group)
    first.wait_leading()
    second = bed.harvestd(database, group=group)
    second.wait_log("database", "connected", role="settle")
    second.stop(deadline=15)
    assert first.running() and not first.find("leader", "revoked")
    first.stop(deadline=15)


def test_drain_is_limited(bed):
    """Nothing can be drained: the broker does not answer. It ends all the same, and what it could not deliver comes later."""
    broker = bed.own_kafka()
    database, topic = bed.database(), bed.topic(broker)
    collector = bed.collector(topic, broker)
    app = bed.application(database, [topic], keys=10, count=300)
    daemon = bed.harvestd(database, broker, limits={"heartbeat_timeout": "30s", "drain_timeout": "2s"})
    daemon.wait_leading()
    bed.write(database, topic, "warm", "up", truth=app.truth)
    collector.wait_value("up")
    broker.freeze()
    app.start().wait()
    begin = time.monotonic()
    daemon.terminate()
    code = daemon.wait_exit(30)
    bed.note("drain_timeout 2s, broker frozen: ended with %d after %.1f s" % (code, time.monotonic() - begin))
    assert code >= 0, "died of a signal"
    assert daemon.wait_log("main", "stopped")["drained"] == "no"
    broker.thaw()
    second = bed.harvestd(database, broker)
    second.wait_leading()
    bed.judge(app, collector)
    second.stop()


def test_second_signal_hurries(bed):
    broker = bed.own_kafka()
    database, topic = bed.database(), bed.topic(broker)
    collector = bed.collector(topic, broker)
    app = bed.application(database, [topic], keys=10, count=300)
    daemon = bed.harvestd(database, broker, limits={"heartbeat_timeout": "60s", "drain_timeout": "120s"})
    daemon.wait_leading()
    bed.write(database, topic, "warm", "up", truth=app.truth)
    collector.wait_value("up")
    broker.freeze()
    app.start().wait()
    daemon.terminate()
    daemon.wait_log("main", "stopping")
    daemon.terminate()
    begin = time.monotonic()
    code = daemon.wait_exit(30)   # drain_timeout would be two minutes
    bed.note("second signal: ended with %d after %.1f s" % (code, time.monotonic() - begin))
    broker.thaw()
    bed.harvestd(database, broker)
    bed.judge(app, collector)


def test_third_signal_ends(bed, tmp_path):
    broker = bed.own_kafka()
    database, topic = bed.database(), bed.topic(broker)
    control = tmp_path / "control.sock"
    daemon = bed.harvestd(database, broker, limits={"heartbeat_timeout": "60s", "drain_timeout": "120s"},
                          harvest={"control_socket": str(control)})
    daemon.wait_leading()
    assert control.is_socket()
    broker.freeze()
    for n in range(20):
        bed.write(database, topic, "k", "v%d" % n)
    for _ in range(3):
        daemon.terminate()
        time.sleep(0.05)   # signals that are pending together are one
        if not daemon.running():
            break
    daemon.wait_exit(5)
    assert not control.exists()


def test_stop_while_the_database_is_away(bed):
    server = bed.own_postgres()
    database = bed.database(server=server)
    topic = bed.topic()
    daemon = bed.harvestd(database, limits={"drain_timeout": "2s"})
    daemon.wait_leading()
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    server.stop("immediate")
    daemon.wait_log("database", "cannot connect", role="settle")
    daemon.terminate()
    assert daemon.wait_exit(20) >= 0
    server.start()


def test_paused_and_told_to_stop(bed):
    """SIGTERM while stopped by SIGSTOP: it stops in order once it wakes."""
    database = bed.database()
    daemon = bed.harvestd(database)
    daemon.wait_leading()
    daemon.pause()
    daemon.terminate()
    daemon.resume()
    assert daemon.wait_exit(20) == 0
    daemon.wait_log("main", "stopped")


def test_sighup_and_sigpipe_do_not_end_it(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database)
    daemon.wait_leading()
    for s in (signal.SIGPIPE, signal.SIGHUP):
        daemon.signal(s)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    daemon.stop()
