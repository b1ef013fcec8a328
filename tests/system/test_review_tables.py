"""Outbox tables of other shapes, and what operators do to them."""
import re

import pytest

from bed.checker import Truth, check, record
from bed.postgres import COLUMNS
from bed.util import wait_until
from bed.writer import insert

PARTITIONED = """CREATE TABLE outbox (%s) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF outbox FOR VALUES FROM (MINVALUE) TO (MAXVALUE)""" % COLUMNS
INHERITED = """CREATE TABLE outbox (%s);
    CREATE TABLE part () INHERITS (outbox);
    CREATE UNIQUE INDEX ON part (id)""" % COLUMNS


@pytest.mark.parametrize("table", [PARTITIONED, INHERITED], ids=["partitioned", "inherited"])
def test_late_commit_to_a_part_of_the_table(bed, table):
    """Written to directly, a part is all that the writer locks."""
    database, topic, truth = bed.database(table), bed.topic(), Truth()
    collector = bed.collector(topic)
    bed.harvestd(database, limits={"rescan_interval": "10m"}).wait_leading()
    late = database.connect(autocommit=False)
    first = record(topic, "late", "first")
    ids = insert(late, [first], "part")
    for n in range(60):   # for some seconds, all else is delivered
        bed.write(database, topic, "other", "other %d" % n, truth=truth, table="part")
        collector.wait_value("other %d" % n)
        wait_until(lambda: database.count() == 0, 20, lambda: "the table to be empty", every=0.06)
    late.commit()
    late.close()
    truth.committed(zip(ids, [first]))
    bed.write(database, topic, "late", "second", truth=truth, table="part")
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


def test_read_only_and_back(bed):
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    database.execute("ALTER DATABASE %s SET default_transaction_read_only = on" % database.name)
    daemon = bed.harvestd(database)
    daemon.wait_leading()
    daemon.wait_log("database", "cannot connect", role="claim")
    with database.connect() as c:
        c.execute("SET default_transaction_read_only = off")
        c.execute("ALTER DATABASE %s RESET default_transaction_read_only" % database.name)
    bed.write(database, topic, "k", "v", truth=truth)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
    assert len(daemon.find("database", role="claim")) == 2   # that it could not, and that it can


def test_table_locked_for_longer_than_a_statement_may_take(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, limits={"statement_timeout": "1s", "io_error_backoff_max": "500ms"})
    app = bed.application(database, [topic], keys=10, writers=2, pause=0.01)
    app.start()
    collector.wait_count(100)
    with database.connect(autocommit=False) as c:
        c.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        daemon.wait_log("database", "statement refused", sqlstate="57014")
    collector.wait_count(collector.count() + 200)
    app.stop()
    bed.judge(app, collector, duplicates=0)


def test_rows_that_share_an_id(bed):
    """Without a unique key. One of them is not to be taken for the other."""
    database, topic, truth = bed.database(), bed.topic(), Truth()
    collector = bed.collector(topic)
    database.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_pkey; CREATE INDEX ON outbox (id)")
    with database.connect() as c:
        insert(c, [record(topic, "a", "first"), record(topic, "b", "second")])
        c.execute("UPDATE outbox SET id = 1")
    daemon = bed.harvestd(database)
    daemon.wait_log("database", reason=re.compile("make id its primary key"))
    assert database.count() == 2
    database.execute("UPDATE outbox SET id = 2 WHERE kafka_key = 'b'")
    database.execute("ALTER TABLE outbox ADD PRIMARY KEY (id)")
    truth.committed([(1, record(topic, "a", "first")), (2, record(topic, "b", "second"))])
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
