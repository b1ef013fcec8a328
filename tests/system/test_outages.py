"""Servers go away and come back under load: nothing lost, nothing overtaken, no operator needed."""
import os
import re
import signal
import time

import pytest

from bed.util import SANITIZED, wait_until


def under_load(bed, database, broker=None, limits=None, **options):
    topics = [bed.topic(broker), bed.topic(broker)]
    collector = bed.collector(topics, broker)
    app = bed.application(database, topics, keys=25, writers=3, pause=0.03, **options)
    daemon = bed.harvestd(database, broker, limits=limits or {})
    daemon.wait_leading()
    app.start()
    collector.wait_count(200)
    return app, collector, daemon


def finish(bed, app, collector, daemon, duplicates=None):
    collector.wait_count(collector.count() + 200)
    app.stop()
    bed.judge(app, collector, duplicates=duplicates)
    daemon.stop()
    assert daemon.starts == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_restarts(bed, mode):
    server = bed.own_postgres()
    database = bed.database(server=server)
    app, collector, daemon = under_load(bed, database)
    for _ in range(3):
        since = daemon.position()
        server.restart(mode)
        daemon.wait_log("database", "connected", since=since, role="claim")
        daemon.wait_log("database", "connected", since=since, role="settle")
        collector.wait_count(collector.count() + 200)
    assert len(daemon.find("database", "connected")) == 8   # two, and two after each restart: once per change
    finish(bed, app, collector, daemon)


def test_postgres_is_away_for_a_while(bed):
    """Long enough for many attempts; the log says once that it is away and once that it is back."""
    server = bed.own_postgres()
    database = bed.database(server=server)
    app, collector, daemon = under_load(bed, database, limits={"io_error_backoff": "50ms", "io_error_backoff_max": "200ms"})
    since = daemon.position()
    server.stop("fast")
    daemon.wait_log("database", None, since=since, role="claim", reason=True)
    daemon.wait_log("database", None, since=since, role="settle", reason=True)
    time.sleep(4)   # nothing is to be seen while nothing changes
    assert len(daemon.lines) - since < 12, "too talkative\n" + daemon.tail()
    assert daemon.running()
    server.start()
    daemon.wait_log("database", "connected", since=since, role="claim")
    finish(bed, app, collector, daemon)


def test_postgres_freezes(bed):
    """Connections stay open and nothing answers: the statement time-out ends it."""
    server = bed.own_postgres()
    database = bed.database(server=server)
    app, collector, daemon = under_load(bed, database, limits={"statement_timeout": "2s", "connect_timeout": "2s"})
    since = daemon.position()
    server.freeze()
    daemon.wait_log("database", "disconnected", since=since, role="claim")
    server.thaw()
    daemon.wait_log("database", "connected", since=since, role="claim")
    finish(bed, app, collector, daemon)


def test_backends_are_terminated(bed):
    database = bed.database()
    app, collector, daemon = under_load(bed, database)
    for n in range(10):
        since = daemon.position()
        killed = database.execute("""SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = %s AND pid <> pg_backend_pid() AND client_addr IS NOT NULL""", [database.name])[0][0]
        assert killed == 2, "the daemon's two connections come over TCP, and only they"
        daemon.wait_log("database", "connected", since=since, role="claim")
        daemon.wait_log("database", "connected", since=since, role="settle")
    finish(bed, app, collector, daemon)


def test_statements_are_cancelled(bed):
    """pg_cancel_backend, as an operator or a statement_timeout of the role does it: refused, not lost."""
    database = bed.database()
    app, collector, daemon = under_load(bed, database)
    end = time.monotonic() + 3
    cancelled = 0
    with database.connect() as c:
        while time.monotonic() < end or not cancelled:
            cancelled += c.execute("""SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                WHERE datname = %s AND client_addr IS NOT NULL AND state = 'active'""", [database.name]).fetchone()[0]
            assert time.monotonic() < end + 20
    bed.note("%d statements cancelled" % cancelled)
    finish(bed, app, collector, daemon)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_broker_goes_and_comes_back(bed, how):
    broker = bed.own_kafka()
    database = bed.database()
    app, collector, daemon = under_load(bed, database, broker)
    for _ in range(2):
        broker.stop(how)
        broker.start()
        collector.wait_count(collector.count() + 200, deadline=60)
    finish(bed, app, collector, daemon)
    errors = daemon.find(level="error")
    assert len(errors) < 20, "too talkative"


def test_both_are_away(bed):
    server, broker = bed.own_postgres(), bed.own_kafka()
    database = bed.database(server=server)
    app, collector, daemon = under_load(bed, database, broker)
    broker.kill()
    server.stop("immediate")
    broker.start()
    server.start()
    finish(bed, app, collector, daemon)


def test_broker_hangs_for_20_seconds(bed):
    """SIGSTOP, while the lease holds (30 s): no rewind, next to no CPU, next to no log; then everything flows again."""
    broker = bed.own_kafka()
    database = bed.database()
    app, collector, daemon = under_load(bed, database, broker, limits={
        "heartbeat_timeout": "30s", "queue_timeout": "60s"})
    since = daemon.position()
    broker.freeze()
    begin, cpu = time.monotonic(), daemon.cpu_seconds()
    app.wait_written(len(app.truth) + 500)   # the writers do not notice
    time.sleep(max(0.0, begin + 20 - time.monotonic()))
    spent = daemon.cpu_seconds() - cpu
    share = spent / (time.monotonic() - begin)
    bed.note("broker frozen for %.1f s: the daemon used %.2f s of CPU, %.1f %% of a core; %d log lines" % (
        time.monotonic() - begin, spent, 100 * share, daemon.position() - since))
    assert not daemon.find("kafka", "rewinding", since=since), daemon.tail()
    assert not daemon.find("leader", "fenced", since=since)
    broker.thaw()
    assert share < (0.1 if SANITIZED else 0.05)   # all of it the daemon's own thread: claims, as rows keep coming
    finish(bed, app, collector, daemon)
    woken = daemon.find("kafka", "rewinding", since=since)
    bed.note("rewound after the broker woke: %s" % ([line.get("reason") for line in woken] or "no"))


def test_broker_hangs_amid_a_backlog(bed):
    """Frozen while batches are full: the Kafka client must not poll without sleeping for the answers that do not come."""
    broker = bed.own_kafka()
    database = bed.database()
    topic = bed.topic(broker)
    database.execute("""INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
        SELECT now(), %s, 'k' || n %% 1000, repeat('x', 200), '{}', '{}' FROM generate_series(1, 300000) n""", [topic])
    collector = bed.collector(topic, broker)
    daemon = bed.harvestd(database, broker, limits={"heartbeat_timeout": "30s", "queue_timeout": "60s"})
    collector.wait_count(10000)
    broker.freeze()
    assert database.execute("SELECT 1 FROM outbox LIMIT 1"), "all was sent before the broker was frozen"
    begin, cpu = time.monotonic(), daemon.cpu_seconds()
    time.sleep(8)
    share = (daemon.cpu_seconds() - cpu) / (time.monotonic() - begin)
    bed.note("broker frozen amid a backlog: %.1f %% of a core" % (100 * share))
    broker.thaw()
    assert share < 0.1


def test_broker_hangs_longer_than_the_lease(bed):
    """The leader fences itself, without being told; when the broker wakes, it leads again, with a new leader id."""
    broker = bed.own_kafka()
    database = bed.database()
    app, collector, daemon = under_load(bed, database, broker, limits={"heartbeat_timeout": "2s"})
    since = daemon.position()
    broker.freeze()
    daemon.wait_log("leader", "fenced", since=since, reason=re.compile("heartbeat"))   # by its own clock
    broker.thaw()
    again = daemon.wait_leading(since=since)
    assert again["leader_id"] != daemon.find("leader", "acquired")[0]["leader_id"]
    finish(bed, app, collector, daemon)


def test_handles_and_threads_do_not_pile_up(bed):
    """Many reconnections and rewinds later there are as many descriptors and threads as before."""

    database = bed.database()
    app, collector, daemon = under_load(bed, database, limits={"io_error_backoff": "20ms"})
    count = lambda what: len(os.listdir("/proc/%d/%s" % (daemon.pid, what)))   # noqa: E731
    fds, threads = count("fd"), count("task")
    for _ in range(15):
        since = daemon.position()
        database.execute("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = %s AND pid <> pg_backend_pid() AND client_addr IS NOT NULL""", [database.name])
        daemon.wait_log("database", "connected", since=since, role="claim")
        daemon.wait_log("database", "connected", since=since, role="settle")
    collector.wait_count(collector.count() + 200)
    wait_until(lambda: count("fd") <= fds + 3 and count("task") <= threads + 2, 30,
               lambda: "%d descriptors (were %d), %d threads (were %d)" % (count("fd"), fds, count("task"), threads))
    finish(bed, app, collector, daemon)
