"""Both ways of claiming, over what makes ids appear out of order; and a claim that forgets what it has not seen yet, which must be
found out."""
import itertools
import os
import random
import re
import string
import time

import psycopg
import pytest

from bed.checker import Truth, check, record
from bed.kafka import fresh_name
from bed.postgres import COLUMNS, TABLE_WITHOUT_CONSTRAINTS
from bed.util import SANITIZED, fnv1a, keys_in_shard, wait_until
from bed.writer import insert

SLOW = {"rescan_interval": "1h"}   # nothing that was passed over is found by looking at everything again
QUICK = {"rescan_interval": "500ms"}


LONG_BY_MARK = pytest.mark.parametrize("strategy", ["cursor", pytest.param("mark", marks=pytest.mark.long)], indirect=True)


@pytest.fixture(params=["mark", "cursor"])
def strategy(request):
    return {"claim": request.param}


class Outbox:
    """A table, a topic, a consumer and a truth; records of one text each."""

    def __init__(self, bed, strategy, limits=None, sql=None, table="outbox", **options):
        self.bed, self.table, self.truth = bed, table, Truth()
        self.database = bed.database(sql) if sql else bed.database()
        self.topic = bed.topic()
        self.collector = bed.collector(self.topic)
        harvest = dict(strategy, **({} if table == "outbox" else {"outbox_table": table}))
        self.daemon = bed.harvestd(self.database, harvest=harvest, limits=limits or {}, **options)
        self.daemon.wait_leading()
        self.numbers = itertools.count()

    def write(self, key=None, row_id=None, connection=None):
        """One record, of a key of its own unless given, with an id that was drawn somewhere else if given; its value."""
        value = "value %d" % next(self.numbers)
        r = record(self.topic, key or "key of " + value, value)
        names = "create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values"
        values = "now(), %s, %s, %s, '{}', '{}'"
        if row_id is not None:
            names, values = "id, " + names, "%d, %s" % (row_id, values)
        sql = "INSERT INTO %s (%s) VALUES (%s) RETURNING id" % (self.table, names, values)
        parameters = [self.topic, r.key.decode(), value]
        if connection:
            found = connection.execute(sql, parameters).fetchall()[0][0]
        else:
            found = self.database.execute(sql, parameters)[0][0]
        self.truth.committed([(found, r)])
        return value

    def flows(self, count=1):
        for _ in range(count):
            value = self.write()
        self.collector.wait_value(value, deadline=60)

    def passed_over(self):
        """Later ids arrive, for so long that nothing below them is expected any more."""
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            self.flows()

    def judge(self, duplicates=0):
        self.bed.wait_empty(self.database, table=self.table)
        report = check(self.truth, self.collector.read_to_end())
        self.bed.note(str(report))
        return report.assert_ok(duplicates)


# ---- transactions that end when they like ----------------------------------------------------------------------------------------

def crowd(bed, strategy, count, program=None, limits=SLOW):
    """16 writers that roll back, wait and overtake each other, a transaction that lasts for the whole run, and prepared ones. Returns
    the application, the collector and a function that ends what is pending."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=64, writers=16, count=count, rollbacks=0.2, hold=0.5, pause=0.01)
    daemon = bed.harvestd(database, harvest=strategy, limits=dict({"heartbeat_timeout": "2s"}, **limits), program=program)
    daemon.wait_leading()
    pending = [record(topic, "pending", "pending %d" % n) for n in range(60)]
    long = database.connect(autocommit=False)
    ids = insert(long, pending[:10])
    app.start()
    with database.connect() as c:
        for n, name in ((20, "kept"), (30, "dropped"), (40, "kept too")):
            wait_until(lambda: len(app.truth) > count * n / 100, 60, "the writers to write")
            c.execute("BEGIN")
            records = [record(topic, name, "%s %d" % (name, i)) for i in range(10)]
            found = insert(c, records)
            c.execute("PREPARE TRANSACTION '%s %s'" % (name, topic))
            if name == "dropped":
                app.truth.not_committed(records)
            else:
                app.truth.committed(zip(found, records))

    def end():
        ids.extend(insert(long, pending[10:]))
        long.commit()
        long.close()
        app.truth.committed(zip(ids, pending))
        for what, name in (("COMMIT", "kept"), ("ROLLBACK", "dropped"), ("COMMIT", "kept too")):
            database.execute("%s PREPARED '%s %s'" % (what, name, topic))
    return daemon, app, collector, end


def test_sixteen_writers_and_transactions_of_all_kinds(bed, strategy):
    _, app, collector, end = crowd(bed, strategy, 1200)
    app.wait()
    end()
    bed.judge(app, collector, duplicates=0)


def test_a_cursor_without_gaps_is_found_out(bed):
    """The control: a build that takes what is above its last id only. The same run must be seen to lose rows, or it proves nothing."""
    daemon, app, collector, end = crowd(bed, {"claim": "cursor"}, 1000, program="tests/harvestd_without_gaps")
    app.wait()
    end()
    database = app.database
    last = "the very last"
    bed.write(database, app.maker.topics[0], "last", last, truth=app.truth)
    collector.wait_value(last)
    report = check(app.truth, collector.read_to_end())
    bed.note("without gaps: %s" % report)
    assert len(report.lost) > 20 and not report.invented and not report.corrupted
    assert database.count() >= len(report.lost), "what was passed over is still in the table"
    assert daemon.running()


@pytest.mark.long
def test_a_cursor_without_gaps_that_looks_again_overtakes(bed):
    """The same build finds by its rescan what it passed over: nothing is lost then, but order is."""
    _, app, collector, end = crowd(bed, {"claim": "cursor"}, 1000, program="tests/harvestd_without_gaps", limits=QUICK)
    app.wait()
    end()
    bed.wait_empty(app.database)
    report = check(app.truth, collector.read_to_end())
    bed.note("without gaps, rescan: %s" % report)
    assert report.overtaken and not report.lost


@pytest.mark.long
def test_kill_9_every_second_for_a_minute(bed, strategy):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=64, writers=16, rollbacks=0.2, hold=0.5, pause=0.02)
    # A process that was killed leaves a member of its group behind, for which the next would wait: each has a group of its own.
    daemons = [bed.harvestd(database, harvest=strategy, limits=SLOW, start=False) for _ in range(60)]
    app.start()
    for daemon in daemons:
        daemon.start()
        daemon.wait_leading()
        time.sleep(bed.random.random() * 2)   # one second on average, and any moment will do
        daemon.kill()
    app.stop()
    bed.harvestd(database, harvest=strategy, limits=SLOW).wait_leading()
    bed.judge(app, collector)


@LONG_BY_MARK
def test_kill_9_of_the_relay(bed, strategy):
    """The short twin of the minute of kills."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=64, writers=16, rollbacks=0.2, hold=0.5, pause=0.02).start()
    for _ in range(2):
        daemon = bed.harvestd(database, harvest=strategy, limits=SLOW)
        daemon.wait_leading()
        collector.wait_count(collector.count() + 300, deadline=60)
        daemon.kill()
    app.stop()
    bed.harvestd(database, harvest=strategy, limits=SLOW)
    bed.judge(app, collector)


# ---- ids that come in another order than usual -------------------------------------------------------------------------------------

def test_ids_drawn_before_their_insert(bed, strategy):
    """By nextval() in another transaction; and by sessions that draw 50 at a time (CACHE)."""
    outbox = Outbox(bed, strategy, QUICK)
    drawn = [row[0] for row in outbox.database.execute("SELECT nextval('outbox_id_seq') FROM generate_series(1, 20)")]
    outbox.database.execute("ALTER SEQUENCE outbox_id_seq CACHE 50")
    with outbox.database.connect() as first, outbox.database.connect() as second:
        outbox.write(connection=first)
        outbox.write(connection=second)
        outbox.passed_over()
        late = [outbox.write(row_id=n) for n in drawn]
        late += [outbox.write(connection=c) for _ in range(30) for c in (second, first)]
        for value in late:
            outbox.collector.wait_value(value, deadline=60)
    outbox.judge()


@LONG_BY_MARK
def test_falling_identity(bed, strategy):
    sql = "CREATE TABLE outbox (%s)" % COLUMNS.replace(
        "BIGSERIAL", "BIGINT GENERATED BY DEFAULT AS IDENTITY (INCREMENT BY -1 MINVALUE -9223372036854775808 MAXVALUE 100 START 50)")
    outbox = Outbox(bed, strategy, QUICK, sql)
    for _ in range(3):
        for _ in range(40):
            value = outbox.write()
        outbox.collector.wait_value(value, deadline=60)
    assert min(outbox.truth.ids.values()) < 0
    outbox.judge()


@LONG_BY_MARK
def test_ids_inserted_by_hand(bed, strategy):
    """Below all, in between, negative, at both ends of int8."""
    outbox = Outbox(bed, strategy, QUICK)
    outbox.database.execute("ALTER SEQUENCE outbox_id_seq RESTART 1000000")
    outbox.passed_over()
    for row_id in (999999, 1, 0, -1, -9223372036854775807, -9223372036854775808, 5, 500000):
        outbox.collector.wait_value(outbox.write(row_id=row_id), deadline=60)
    outbox.passed_over()
    top = outbox.write(row_id=9223372036854775807)
    outbox.collector.wait_value(top)
    for row_id in (9223372036854775807, 9223372036854775806, -9223372036854775808, 7):   # the same ids again, now that they are gone
        outbox.bed.wait_empty(outbox.database)
        outbox.collector.wait_value(outbox.write(row_id=row_id), deadline=60)
    outbox.flows(5)
    outbox.judge()


@LONG_BY_MARK
def test_ids_wrap_at_the_top_of_int8(bed, strategy):
    outbox = Outbox(bed, strategy, QUICK)
    outbox.database.execute("ALTER SEQUENCE outbox_id_seq CYCLE RESTART 9223372036854775790")
    outbox.passed_over()
    outbox.flows(60)
    ids = set(outbox.truth.ids.values())
    assert 9223372036854775807 in ids and 1 in ids
    outbox.judge()


# ---- tables ----------------------------------------------------------------------------------------------------------------------

@LONG_BY_MARK
def test_partitioned_table(bed, strategy):
    """Partitions in an order of their own, written to directly as well; one is added and one detached while it runs."""
    sql = """CREATE TABLE outbox (%s) PARTITION BY RANGE (id); CREATE TABLE third PARTITION OF outbox FOR VALUES FROM (2000) TO (9000);
        CREATE TABLE first PARTITION OF outbox FOR VALUES FROM (MINVALUE) TO (1000);
        CREATE TABLE second PARTITION OF outbox FOR VALUES FROM (1000) TO (2000)""" % COLUMNS
    outbox = Outbox(bed, strategy, SLOW, sql)
    topic = outbox.topic
    with outbox.database.connect(autocommit=False) as late:
        records = [record(topic, "late", "late %d" % n) for n in range(40)]
        outbox.database.execute("SELECT setval('outbox_id_seq', 980)")
        ids = insert(late, records)   # over the seam
        outbox.passed_over()
        directly = [record(topic, "direct", "direct %d" % n) for n in range(5)]
        with outbox.database.connect(autocommit=False) as c:
            found = insert(c, directly, "second")
            outbox.flows(20)
            c.commit()
        outbox.truth.committed(zip(found, directly))
        late.commit()
    outbox.truth.committed(zip(ids, records))
    outbox.flows()
    outbox.database.execute("CREATE TABLE fourth PARTITION OF outbox FOR VALUES FROM (9000) TO (MAXVALUE)")
    outbox.bed.wait_empty(outbox.database)
    outbox.database.execute("ALTER TABLE outbox DETACH PARTITION first")
    outbox.database.execute("SELECT setval('outbox_id_seq', 8990)")
    outbox.flows(30)
    outbox.judge()


@LONG_BY_MARK
def test_table_in_another_schema_with_odd_quotes(bed, strategy):
    table = '"My ""Own"" schema"."out.box; ""é"""'
    columns = COLUMNS.replace("BIGSERIAL", "BIGINT GENERATED BY DEFAULT AS IDENTITY")
    sql = 'CREATE SCHEMA "My ""Own"" schema"; CREATE TABLE %s (%s); CREATE TABLE outbox (%s)' % (table, columns, columns)
    outbox = Outbox(bed, strategy, QUICK, sql, table=table)
    outbox.passed_over()
    with outbox.database.connect() as c:
        outbox.write(connection=c)
    outbox.collector.wait_value(outbox.write(row_id=-5), deadline=60)
    outbox.judge()
    assert outbox.database.count(table="outbox") == 0


# ---- memory, and a key that blocks ---------------------------------------------------------------------------------------------------

def peak_bytes(daemon):
    with open("/proc/%d/status" % daemon.pid) as f:
        return int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1)) << 10


@pytest.mark.parametrize("strategy, where", [
    ("mark", "above"), ("cursor", "in gaps"), pytest.param("mark", "in gaps", marks=pytest.mark.long),
    pytest.param("cursor", "above", marks=pytest.mark.long)], indirect=["strategy"])
def test_memory_is_bounded_with_values_of_a_megabyte(bed, strategy, where):
    """100 MB: at once; or in transactions whose ids alternate with others', and which all commit at the same moment, so that each lies
    in a gap of its own."""
    if SANITIZED:
        pytest.skip("memory that was freed is kept for a while")
    outbox = Outbox(bed, strategy, SLOW, TABLE_WITHOUT_CONSTRAINTS)
    outbox.flows(5)
    before = peak_bytes(outbox.daemon)
    big = "".join(random.Random(1).choices(string.ascii_letters, k=980000))
    sql = "INSERT INTO outbox VALUES (DEFAULT, now(), %s, %s, %s || %s::text, '{}', '{}')"
    with outbox.database.connect(autocommit=False) as c:
        for n in range(100):
            key, start = "big %d" % (n % 10), "%03d " % n
            c.execute(sql + "", [outbox.topic, key, start, big])
            row_id = c.execute("SELECT currval('outbox_id_seq')").fetchone()[0]
            outbox.truth.committed([(row_id, record(outbox.topic, key, start + big))])
            if where == "in gaps":
                outbox.write()
        if where == "in gaps":
            outbox.flows()
        c.commit()
    outbox.judge()
    after = peak_bytes(outbox.daemon)
    bed.note("%s, %s: %.1f MB at first, %.1f MB at most" % (strategy["claim"], where, before / 1e6, after / 1e6))
    assert after - before < 48e6   # twice max_in_flight_bytes (records and the client's copies), replies, malloc's share


@LONG_BY_MARK
def test_keys_flow_beside_a_blocked_one_with_many_rows(bed, strategy):
    """More rows of a blocked key than are kept in memory lie in the table: they are not taken for rows that were overlooked, and
    do not make everything start from the first id again and again."""
    shards = 4
    outbox = Outbox(bed, strategy, dict(QUICK, send_concurrency=shards, blocked_backoff_max="30s", io_error_backoff="20s",
                                        io_error_backoff_max="30s"), TABLE_WITHOUT_CONSTRAINTS)
    blocked, free = keys_in_shard(0, shards, 1, "blocked")[0], keys_in_shard(1, shards, 1, "free")[0]
    assert fnv1a(free) % shards != fnv1a(blocked) % shards
    outbox.flows()
    bad = outbox.database.execute("INSERT INTO outbox VALUES (DEFAULT, now(), 'no topic', %s, 'bad', '{}', '{}') RETURNING id",
                                  [blocked])[0][0]
    outbox.daemon.wait_log("record", "blocked", id=bad)
    rows = outbox.database.execute(
        """INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
        SELECT now(), %s, CASE n %% 2 WHEN 0 THEN %s ELSE %s END, 'many ' || n, '{}', '{}' FROM generate_series(1, 30000) n
        RETURNING id, kafka_key, kafka_value""", [outbox.topic, blocked, free])
    outbox.truth.committed((i, record(outbox.topic, k, v)) for i, k, v in rows)
    longest = 0.0
    outbox.collector.wait_value("many 29999", deadline=120)
    for _ in range(20):
        begin = time.monotonic()
        value = outbox.write(key=free)
        outbox.collector.wait_value(value, deadline=60)
        longest = max(longest, time.monotonic() - begin)
        time.sleep(0.1)
    bed.note("%s: %.2f s at most for a record of another key" % (strategy["claim"], longest))
    reads = outbox.database.execute("SELECT sum(idx_tup_fetch) FROM pg_stat_user_tables WHERE relname = 'outbox'")[0][0]
    bed.note("%s: %s rows fetched by index" % (strategy["claim"], reads))
    outbox.database.execute("DELETE FROM outbox WHERE id = %s", [bad])
    outbox.judge()


@LONG_BY_MARK
def test_keys_flow_after_a_restart_beside_a_blocked_one_and_a_forgotten_transaction(bed, strategy):
    """The rows of a blocked key alternate with ids that are gone, and a transaction keeps all gaps open."""
    shards = 4
    outbox = Outbox(bed, strategy, {"send_concurrency": shards}, TABLE_WITHOUT_CONSTRAINTS)
    blocked, free = keys_in_shard(0, shards, 1, "blocked")[0], keys_in_shard(1, shards, 1, "free")[0]
    bad = outbox.database.execute("INSERT INTO outbox VALUES (DEFAULT, now(), 'no topic', %s, 'bad', '{}', '{}') RETURNING id",
                                  [blocked])[0][0]
    outbox.daemon.wait_log("record", "blocked", id=bad)
    outbox.daemon.stop()
    outbox.database.execute("""INSERT INTO outbox SELECT 10 + 2 * n, now(), %s, %s, 'many ' || n, '{}', '{}'
        FROM generate_series(1, 20000) n""", [outbox.topic, blocked])
    outbox.database.execute("SELECT setval('outbox_id_seq', 100000)")
    with outbox.database.connect(autocommit=False) as forgotten:
        forgotten.execute("INSERT INTO outbox VALUES (DEFAULT, now(), 'x', 'x', 'x', '{}', '{}')")
        value = outbox.write(key=free)
        since = outbox.daemon.position()
        outbox.daemon.start().wait_leading(since=since)
        outbox.collector.wait_value(value, deadline=60)
        for _ in range(5):
            outbox.collector.wait_value(outbox.write(key=free), deadline=60)
        forgotten.rollback()


# ---- the strategies together -----------------------------------------------------------------------------------------------------------

def test_the_strategy_changes_between_restarts(bed):
    database, topic = bed.database(), bed.topic()
    collector, group = bed.collector(topic), fresh_name("group")
    app = bed.application(database, [topic], keys=20, writers=4, rollbacks=0.2, hold=0.3, pause=0.01).start()
    for turn, claim in enumerate(["mark", "cursor", "mark", "cursor"]):
        daemon = bed.harvestd(database, group=group, harvest={"claim": claim}, limits=SLOW)
        daemon.wait_leading()
        collector.wait_count(collector.count() + 200, deadline=60)
        if turn == 3:
            app.stop()
            bed.judge(app, collector, duplicates=0)
        daemon.stop()


def test_members_of_one_group_with_different_strategies(bed):
    """They take turns, once by a clean stop, once by a kill."""
    database, topic = bed.database(), bed.topic()
    collector, group = bed.collector(topic), fresh_name("group")
    app = bed.application(database, [topic], keys=20, writers=4, rollbacks=0.2, hold=0.3, pause=0.02)
    pair = {claim: bed.harvestd(database, group=group, harvest={"claim": claim}, start=False,
                                limits=dict(SLOW, heartbeat_timeout="2s")) for claim in ("mark", "cursor")}
    pair["mark"].start()
    pair["mark"].wait_leading()
    pair["cursor"].start()
    pair["cursor"].wait_log("leader", "joined", deadline=40)
    app.start()
    collector.wait_count(300, deadline=60)
    pair["mark"].stop()
    pair["cursor"].wait_leading()
    collector.wait_count(collector.count() + 300, deadline=60)
    since = pair["mark"].position()
    pair["mark"].start()
    pair["mark"].wait_log("leader", "joined", deadline=40, since=since)
    pair["cursor"].kill()
    pair["mark"].wait_leading(since=since)
    collector.wait_count(collector.count() + 300, deadline=60)
    app.stop()
    bed.judge(app, collector)


# ---- the server restarts -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pooled, modes", [
    (False, ["immediate"]), (True, ["fast"]), pytest.param(False, ["fast", "immediate"], marks=pytest.mark.long),
    pytest.param(True, ["fast", "immediate"], marks=pytest.mark.long)],
    ids=["directly", "through PgBouncer", "directly, all ways", "through PgBouncer, all ways"])
def test_prepared_transaction_that_outlives_the_server(bed, strategy, pooled, modes):
    """A prepared transaction has another name in pg_locks after a restart. Its rows must not be overtaken all the same, by none
    of their key that is committed after them. Through a pooler the daemon may not even notice the restart."""
    server = bed.own_postgres()
    database, topic, truth = bed.database(server=server), bed.topic(), Truth()
    collector = bed.collector(topic)
    pooler = bed.pgbouncer(server=server) if pooled else None
    source = pooler.data_source(database) if pooled else None
    daemon = bed.harvestd(database, data_source=source, harvest=strategy, limits=dict(SLOW, io_error_backoff="100ms"))
    daemon.wait_leading()
    for turn, mode in enumerate(modes):
        records = [record(topic, "prepared", "prepared %d %d" % (turn, n)) for n in range(10)]
        with database.connect() as c:
            c.execute("BEGIN")
            ids = insert(c, records)
            c.execute("PREPARE TRANSACTION 'pending'")
        for n in range(20):   # until its ids lie in a gap whose writers are known
            bed.write(database, topic, "other", "before %d %d" % (turn, n), truth=truth)
            collector.wait_value("before %d %d" % (turn, n), deadline=60)
        time.sleep(0.3)
        server.stop(mode)
        server.start()
        end = time.monotonic() + 1.5
        n = 0
        while time.monotonic() < end or n < 10:
            bed.write(database, topic, "other", "after %d %d" % (turn, n), truth=truth)
            collector.wait_value("after %d %d" % (turn, n), deadline=60)
            n += 1
        # Its rows and their successors appear at once: whoever sees the successors only has passed its rows over.
        with database.connect() as c:
            c.execute("COMMIT PREPARED 'pending'")
            truth.committed(zip(ids, records))
            last = [record(topic, "prepared", "last %d" % turn)]
            truth.committed(zip(insert(c, last), last))
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok()


def test_what_only_reads_is_refused_by_a_standby(bed):
    """A proxy may send to a standby what only reads. What is missing there may have been committed: a cursor would pass it over, and a
    record that waits would be taken for deleted."""
    server = bed.own_postgres(log_statement="all")
    database = bed.database(TABLE_WITHOUT_CONSTRAINTS, server=server)
    daemon = bed.harvestd(database, harvest={"claim": "cursor"}, limits=dict(QUICK, io_error_backoff="50ms", blocked_backoff_max="100ms"))
    daemon.wait_leading()
    database.execute("INSERT INTO outbox VALUES (5, now(), 'no topic', 'k', 'v', '{}', '{}')")
    kinds = {"scan": r"WHERE id >= \$1 AND .* AS few", "list": r"SELECT id, kafka_key FROM",
             "fetch": r"WHERE id = ANY \(\$1\) AND .* AS few"}
    found = {}

    def seen():
        with open(server.log_path, encoding="utf-8") as f:
            for sql in re.findall(r"execute \S+: (SELECT .*)", f.read()):
                found.update((kind, sql) for kind, form in kinds.items() if re.search(form, sql) and "unnest" not in sql)
        return len(found) == len(kinds)
    wait_until(seen, 60, lambda: "statements of all kinds; found: %s" % sorted(found))
    daemon.stop()
    calls = {"scan": ("int8, int8, int8", "0, 10, 1000"), "list": ("int8, int8, int8", "0, 10, 10"), "fetch": ("int8[], int8, int8", "'{5}', 10, 1000")}
    for rows in (1, 0):
        for kind, (types, values) in calls.items():
            with database.connect() as c:
                c.execute("PREPARE s (%s) AS %s" % (types, found[kind]), prepare=False)
                assert len(c.execute("EXECUTE s (%s)" % values, prepare=False).fetchall()) == rows
        if rows:
            database.execute("DELETE FROM outbox")
    server.stop()
    with open(os.path.join(server.data, "standby.signal"), "w"):
        pass
    server.start()
    for kind, (types, values) in calls.items():
        with database.connect() as c:
            c.execute("PREPARE s (%s) AS %s" % (types, found[kind]), prepare=False)
            with pytest.raises(psycopg.Error, match="recovery is in progress"):
                c.execute("EXECUTE s (%s)" % values, prepare=False)
