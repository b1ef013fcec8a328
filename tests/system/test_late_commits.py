"""Ids are drawn at insert and become visible at commit: late ones are delivered, and nobody else waits for them."""
import time

from bed.checker import Truth, check, record
from bed.writer import insert


def overtake(bed, database, topic, collector, truth, start, count=50):
    """Records of other keys, written while something is pending: they must arrive meanwhile."""
    for n in range(start, start + count):
        bed.write(database, topic, "other-%d" % (n % 5), "other %d" % n, truth=truth)
    collector.wait_value("other %d" % (start + count - 1))


def test_transaction_that_commits_after_others_overtook_it(bed):
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    bed.harvestd(database).wait_leading()
    late = database.connect(autocommit=False)
    records = [record(topic, "late", "late %d" % n) for n in range(20)]
    ids = insert(late, records[:10])
    begin = time.monotonic()
    rounds = 0
    while time.monotonic() < begin + 3 or rounds < 3:   # three seconds of traffic that goes past it
        overtake(bed, database, topic, collector, truth, rounds * 50)
        rounds += 1
    ids += insert(late, records[10:])
    assert not any(v.startswith(b"late") for v in collector.values())
    late.commit()
    late.close()
    truth.committed(zip(ids, records))
    overtake(bed, database, topic, collector, truth, rounds * 50)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_prepared_transactions(bed):
    """One is committed later, one is rolled back; both were prepared by sessions that are gone."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    bed.harvestd(database).wait_leading()
    prepared = [record(topic, "prepared", "prepared %d" % n) for n in range(10)]
    dropped = [record(topic, "dropped", "dropped %d" % n) for n in range(10)]
    with database.connect() as c:
        c.execute("BEGIN")
        ids = insert(c, prepared)
        c.execute("PREPARE TRANSACTION 'late-%s'" % topic)
        c.execute("BEGIN")
        insert(c, dropped)
        truth.not_committed(dropped)
        c.execute("PREPARE TRANSACTION 'never-%s'" % topic)
    overtake(bed, database, topic, collector, truth, 0)
    database.execute("ROLLBACK PREPARED 'never-%s'" % topic)
    overtake(bed, database, topic, collector, truth, 50)
    assert not any(v.startswith(b"prepared") for v in collector.values())
    database.execute("COMMIT PREPARED 'late-%s'" % topic)
    truth.committed(zip(ids, prepared))
    collector.wait_value("prepared 9")
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_prepared_transaction_outlives_the_daemon(bed):
    """It is committed to a daemon that was started after it had been prepared, and that found nothing but gaps."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    prepared = [record(topic, "prepared", "prepared %d" % n) for n in range(10)]
    with database.connect() as c:
        c.execute("BEGIN")
        ids = insert(c, prepared)
        c.execute("PREPARE TRANSACTION 'late-%s'" % topic)
    first = bed.harvestd(database)
    overtake(bed, database, topic, collector, truth, 0)
    first.stop()
    bed.harvestd(database)
    overtake(bed, database, topic, collector, truth, 50)
    database.execute("COMMIT PREPARED 'late-%s'" % topic)
    truth.committed(zip(ids, prepared))
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_savepoints_and_gaps_of_rollbacks(bed):
    """A part of a transaction is rolled back, the rest is not; most ids are never used."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    bed.harvestd(database).wait_leading()
    with database.connect(autocommit=False) as c:
        for n in range(100):
            kept, lost = record(topic, "k", "kept %d" % n), record(topic, "k", "lost %d" % n)
            ids = insert(c, [kept])
            c.execute("SAVEPOINT s")
            insert(c, [lost] + [record(topic, "k", "lost %d %d" % (n, i)) for i in range(20)])
            c.execute("ROLLBACK TO s")
            truth.not_committed([lost])
            if n % 10 == 9:
                c.commit()
            truth.committed(zip(ids, [kept]))
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_many_transactions_that_stay_open_for_random_times(bed):
    """Ids become visible in an order that has little to do with their size; each key's writes are serialised."""
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=40, count=3000, writers=8, hold=0.4)
    bed.harvestd(database).wait_leading()
    app.start().wait()
    bed.judge(app, collector, duplicates=0)


def test_old_snapshot_elsewhere_does_not_disturb(bed):
    """A forgotten transaction keeps dead rows from being vacuumed; records flow all the same."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    with database.connect(autocommit=False) as forgotten:
        forgotten.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        forgotten.execute("SELECT count(*) FROM outbox")
        app = bed.application(database, [topic], keys=10, count=2000, batch=30)
        bed.harvestd(database)
        app.start().wait()
        bed.judge(app, collector, duplicates=0)


def test_row_that_another_transaction_has_locked_stops_nobody_for_good(bed):
    """An operator's open transaction holds a row of the outbox; when it ends, everything flows."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    for n in range(20):
        bed.write(database, topic, "k", "%d" % n, truth=truth)
    with database.connect(autocommit=False) as operator:
        operator.execute("SELECT * FROM outbox WHERE id = (SELECT min(id) + 5 FROM outbox) FOR UPDATE")
        daemon = bed.harvestd(database, limits={"statement_timeout": "2s"})
        daemon.wait_leading()
        daemon.wait_log("database", None, deadline=30, level="warn")   # it says so
        operator.rollback()
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok()


def test_ids_that_were_drawn_long_before_their_insert(bed):
    """Generators that reserve blocks of ids: nothing tells anybody that a row with such an id is still to come. It is delivered all
    the same, when the daemon looks at the whole table again."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    bed.harvestd(database, limits={"rescan_interval": "2s"}).wait_leading()
    drawn = [row[0] for row in database.execute("SELECT nextval('outbox_id_seq') FROM generate_series(1, 10)")]
    begin = time.monotonic()
    rounds = 0
    while time.monotonic() < begin + 3:   # time enough to believe that those will never come
        overtake(bed, database, topic, collector, truth, rounds * 50)
        rounds += 1
    for n, row_id in enumerate(drawn):
        database.execute("INSERT INTO outbox VALUES (%s, now(), %s, 'drawn', %s, '{}', '{}')", [row_id, topic, "drawn %d" % n])
        truth.committed([(row_id, record(topic, "drawn", "drawn %d" % n))])
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
