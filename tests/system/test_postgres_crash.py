"""What a crash of Postgres takes back: of transactions that did not wait until their commit was on disk (synchronous_commit = off) the
last ones, whoever saw them. A mark is a commit of its own, behind theirs, so what was marked is on disk. (By cursor, with this test, the
record was published and its row gone.)"""
from bed.daemon import run_once
from bed.writer import insert
from bed.checker import record


def test_what_was_marked_outlives_a_crash(bed):
    server = bed.own_postgres(wal_writer_delay="10s", fsync="on")
    database, topic = bed.database(server=server), bed.topic()
    database.execute(run_once("schema", "--notify").stdout)
    collector = bed.collector(topic)
    # What was delivered is not deleted before the crash: that would have to be committed, too.
    daemon = bed.harvestd(database, harvest={"claim": "mark", "wakeup": "listen"},
                          limits={"mark_backoff": "60s", "idle_backoff_max": "60s", "rescan_interval": "1h"})
    daemon.wait_leading()
    with database.connect() as c:
        insert(c, [record(topic, "k", "first")])
        collector.wait_value("first")
        c.execute("SET synchronous_commit = off")
        insert(c, [record(topic, "k", "last")])
        collector.wait_value("last")
    server.stop("immediate")
    server.start()
    assert database.execute("SELECT count(*) FROM outbox WHERE kafka_value = 'last'") == [(1,)]
    daemon.stop()
