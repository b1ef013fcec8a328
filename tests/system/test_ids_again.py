"""What is deleted is the very row that was sent: not another one that was given its id, nor what somebody made of it meanwhile. And rows
that somebody keeps locked hold up no others."""
import pytest

from bed.checker import Truth, check, record
from bed.util import wait_until
from bed.writer import insert

pytestmark = pytest.mark.usefixtures("each_strategy")

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()"""


def held_rows(bed, database, topic, count, **limits):
    """Rows that are acknowledged, and that the database refuses to delete for now."""
    collector = bed.collector(topic)
    database.execute(REFUSE)
    with database.connect() as c:
        insert(c, [record(topic, "k%d" % n, "old %d" % n) for n in range(count)])
    daemon = bed.harvestd(database, limits=dict({"rescan_interval": "500ms"}, **limits))
    for n in range(count):
        collector.wait_value("old %d" % n)
    return collector, daemon


def test_ids_that_come_again_while_their_first_owners_are_held(bed):
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector, daemon = held_rows(bed, database, topic, 20)
    daemon.wait_log("record", "delivered, but its row cannot be deleted", deadline=60)
    records = [record(topic, "k%d" % n, "new %d" % n) for n in range(20)]
    with database.connect(autocommit=False) as c:
        c.execute("TRUNCATE outbox RESTART IDENTITY")
        ids = list(insert(c, records))
        c.execute("DROP TRIGGER refuse ON outbox")
        c.commit()
        truth.committed(zip(ids, records))
    bed.wait_empty(database)
    check(truth, [m for m in collector.read_to_end() if m.value.startswith(b"new")]).assert_ok(duplicates=0)


def test_a_row_that_is_changed_after_it_was_sent_is_sent_again(bed):
    database, topic = bed.database(), bed.topic()
    collector, daemon = held_rows(bed, database, topic, 5)
    daemon.wait_log("record", "delivered, but its row cannot be deleted", deadline=60)
    with database.connect(autocommit=False) as c:
        c.execute("UPDATE outbox SET kafka_value = 'mended' WHERE kafka_value = 'old 3'")
        c.execute("DROP TRIGGER refuse ON outbox")
        c.commit()
    bed.wait_empty(database)
    values = sorted(m.value for m in collector.read_to_end())
    assert values == sorted([b"old %d" % n for n in range(5)] + [b"mended"])


def test_a_locked_row_holds_up_no_others(bed):
    """More rows pass than can be held in memory at once."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    first = bed.write(database, topic, "first", "locked", truth=truth)
    locker = database.connect(autocommit=False)
    bed.stack.callback(locker.close)
    locker.execute("SELECT FROM outbox WHERE id = %s FOR KEY SHARE", [first])   # as a foreign key does; marks pass
    bed.harvestd(database)
    for round in range(30):
        records = [record(topic, "k%d" % (n % 50), "%d %d" % (round, n)) for n in range(1000)]
        with database.connect() as c:
            truth.committed(zip(insert(c, records), records))
    wait_until(lambda: database.execute("SELECT count(*) FROM outbox")[0][0] == 1, 120, "all but the locked row are gone")
    assert database.execute("SELECT id FROM outbox")[0][0] == first
    locker.rollback()
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
