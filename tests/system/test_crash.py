"""kill -9 of the daemon under load: nothing lost, nothing overtaken; what was not purged comes again."""
import time


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
        print("killed with %d received, leads again after %.1f s" % (collector.count(), line["at"] - killed))
    collector.wait_count(collector.count() + 200)
    app.stop()
    bed.judge(app, collector)
    daemon.stop()


def test_kill_9_in_the_middle_of_a_backlog(bed):
    """Many records marked and in flight; small statements, so that kills fall between mark, delivery and purge."""
    database, topic = bed.database(), bed.topic()
    app = bed.application(database, [topic], keys=7, count=6000, batch=100).start().wait()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, start=False, limits={
        "heartbeat_timeout": "2s", "purge_query_records": 50, "mark_query_records": 200, "max_in_flight_records": 400})
    for share in (0.1, 0.4):
        since = daemon.position()
        daemon.start().wait_leading(since=since)
        before = collector.count()
        collector.wait_count(before + int(6000 * share * bed.random.random()) + 1)
        daemon.kill()
    daemon.start()
    bed.judge(app, collector)
