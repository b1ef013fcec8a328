"""kill -9 of the daemon under load: nothing lost, nothing overtaken; what was not purged comes again."""
import time

import pytest

from bed.checker import Truth, check, record

pytestmark = pytest.mark.usefixtures("each_strategy")


def test_kill_9_five_times_under_load(bed):
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=30, writers=3, pause=0.02, hold=0.1)
    daemon = bed.harvestd(database, limits={"heartbeat_timeout": "2s"})
    app.start()
    for _ in range(5):
        daemon.wait_leading()
        collector.wait_count(collector.count() + 200)
        time.sleep(bed.random.random() * 0.3)   # any moment will do
        killed = time.monotonic()
        daemon.kill()
        since = daemon.position()
        daemon.start()
        line = daemon.wait_leading(since=since)
        bed.note("killed with %d received, leads again after %.1f s" % (collector.count(), line["at"] - killed))
    collector.wait_count(collector.count() + 200)
    app.stop()
    bed.judge(app, collector)
    daemon.stop()


def test_kill_9_in_the_middle_of_a_backlog(bed):
    """Many records marked and in flight; small statements, so that kills fall between mark, delivery and purge."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    count = 40000
    database.execute("""INSERT INTO outbox SELECT n, now(), %s, 'k' || n %% 7, 'value ' || n, '{}', '{}'
        FROM generate_series(1, %s) n""", [topic, count])
    truth.committed((n, record(topic, "k%d" % (n % 7), "value %d" % n)) for n in range(1, count + 1))
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, start=False, limits={
        "heartbeat_timeout": "2s", "purge_query_records": 50, "mark_query_records": 200, "max_in_flight_records": 400})
    for goal in (2000, 10000):
        since = daemon.position()
        daemon.start().wait_leading(since=since)
        collector.wait_count(goal + bed.random.randrange(2000))
        daemon.kill()
        assert database.count() > 0, "too late to be of interest"
    daemon.start()
    bed.wait_empty(database)
    report = check(truth, collector.read_to_end())
    bed.note(str(report))
    report.assert_ok()
