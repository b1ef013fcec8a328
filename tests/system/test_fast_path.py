"""What the fast path must stand, for both ways of claiming: transactions of all kinds while the relay is killed again and again, ids
that were drawn long before they were written, large rows in bounded memory, ids that come once more. Runs of a minute are marked long;
each has a short twin."""
import contextlib
import os
import re
import signal
import time

import psycopg
import pytest

from bed.checker import Truth, check, record
from bed.kafka import fresh_name
from bed.postgres import TABLE_WITHOUT_CONSTRAINTS
from bed.util import SANITIZED, wait_until
from bed.writer import insert

SLOW = {"rescan_interval": "1h"}   # nothing that was passed over is found by looking at everything again
MIB = 1 << 20


LONG_BY_MARK = pytest.mark.parametrize("claim", ["cursor", pytest.param("mark", marks=pytest.mark.long)], indirect=True)


@pytest.fixture(params=["mark", "cursor"])
def claim(request):
    return request.param


# ---- transactions of all kinds, and a relay that is killed again and again ---------------------------------------------------------

class Storm:
    """16 writers that roll back, wait and overtake each other; a transaction that lasts for the whole run; and prepared ones, which
    outlive the relay under which they were prepared."""

    def __init__(self, bed, claim, program=None):
        self.bed, self.claim, self.program = bed, claim, program
        self.database, self.topic = bed.database(), bed.topic()
        self.collector = bed.collector(self.topic)
        self.app = bed.application(self.database, [self.topic], keys=64, writers=16, rollbacks=0.2, hold=0.5, pause=0.03)
        self.truth = self.app.truth
        self.long = self.database.connect(autocommit=False)
        self.long_rows, self.turn, self.pending = [], 0, []
        self.write_long()

    def write_long(self):
        records = [record(self.topic, "long", "long %d" % (len(self.long_rows) + n)) for n in range(5)]
        self.long_rows += zip(insert(self.long, records), records)

    def prepare(self):
        """One that will be committed, and one that will not be."""
        self.turn += 1
        with self.database.connect() as c:
            for kept in (True, False):
                name = "%s %d %s" % (self.topic, self.turn, kept)
                records = [record(self.topic, "prepared %s" % kept, "prepared %d %s %d" % (self.turn, kept, n)) for n in range(5)]
                c.execute("BEGIN")
                ids = insert(c, records)
                c.execute("PREPARE TRANSACTION '%s'" % name)
                self.pending.append((name, kept, ids, records))
        self.write_long()

    def end_prepared(self):
        for name, kept, ids, records in self.pending:
            self.database.execute("%s PREPARED '%s'" % ("COMMIT" if kept else "ROLLBACK", name))
            if kept:
                self.truth.committed(zip(ids, records))
            else:
                self.truth.not_committed(records)
        self.pending = []

    def relay(self):
        # One that was killed leaves a member of its group behind, for which the next would wait: each has a group of its own.
        daemon = self.bed.harvestd(self.database, harvest={"claim": self.claim}, limits=SLOW, program=self.program)
        daemon.wait_leading()
        return daemon

    def run(self, seconds):
        """kill -9 about every second. The last relay lives: under it the writers go on, and all that is pending ends."""
        self.app.start()
        begin, kills = time.monotonic(), 0
        while time.monotonic() - begin < seconds or kills < 2:
            daemon = self.relay()
            self.end_prepared()
            self.prepare()
            time.sleep(self.bed.random.random())   # any moment will do
            daemon.kill()
            kills += 1
        self.relay()
        self.end_prepared()
        self.prepare()
        self.collector.wait_count(self.collector.count() + 500, deadline=60)
        self.app.stop()
        self.write_long()
        self.long.commit()
        self.long.close()
        self.truth.committed(self.long_rows)
        self.end_prepared()
        return kills

    def survives(self, seconds):
        kills = self.run(seconds)
        self.bed.wait_empty(self.database, deadline=90)
        report = check(self.truth, self.collector.read_to_end())
        self.bed.note("%s, %d kills: %s; rolled back transactions: %d" % (self.claim, kills, report, self.app.rolled_back))
        report.assert_ok()

    def is_found_out(self, seconds):
        """By the same run: rows are passed over for good, and lie in the table; others were passed over until the next relay began
        from the first id, and come too late."""
        kills = self.run(seconds)
        self.bed.write(self.database, self.topic, "last", "the very last", truth=self.truth)
        self.collector.wait_value("the very last", deadline=60)
        report = check(self.truth, self.collector.read_to_end())
        self.bed.note("above the last id only, %d kills: %s" % (kills, report))
        assert len(report.lost) >= 5 and report.overtaken and not report.invented and not report.corrupted
        assert self.database.count() >= len(report.lost)


def test_storm_and_kills(bed, claim):
    Storm(bed, claim).survives(2)


@pytest.mark.long
def test_storm_and_kills_for_a_minute(bed, claim):
    Storm(bed, claim).survives(60)


def test_a_relay_that_looks_above_its_last_id_only_loses_rows_in_that_storm(bed):
    """The control: a test build without gaps."""
    Storm(bed, "cursor", "tests/harvestd_without_gaps").is_found_out(2)


@pytest.mark.long
def test_a_relay_that_looks_above_its_last_id_only_loses_rows_in_a_minute(bed):
    Storm(bed, "cursor", "tests/harvestd_without_gaps").is_found_out(60)


# ---- ids that are drawn before their INSERT ---------------------------------------------------------------------------------------

def start(bed, claim, sql=None, **limits):
    database, topic = bed.database(sql) if sql else bed.database(), bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, harvest={"claim": claim}, limits=limits)
    daemon.wait_leading()
    return database, topic, collector, daemon


def write_drawn(connection, truth, topic, key, value, row_id):
    connection.execute("INSERT INTO outbox VALUES (%s, now(), %s, %s, %s, '{}', '{}')", [row_id, topic, key, value])
    truth.committed([(row_id, record(topic, key, value))])


def later_ids_flow(bed, database, topic, collector, truth, seconds=1.5):
    """For so long that nothing below them is expected any more."""
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end or n < 5:
        value = "%s %f" % (fresh_name(), time.monotonic())
        bed.write(database, topic, value, value, truth=truth)
        collector.wait_value(value, deadline=60)
        n += 1


def test_ids_drawn_before_their_insert_come_with_the_rescan(bed, claim):
    """By nextval() in a transaction that has ended; in blocks by a generator of the application (hi/lo); by sessions that keep 50."""
    interval = 1.0
    database, topic, collector, _ = start(bed, claim, rescan_interval="%ds" % interval)
    truth = Truth()
    with database.connect() as session:
        drawn = session.execute("SELECT nextval('outbox_id_seq')").fetchone()[0]
        block = session.execute("SELECT setval('outbox_id_seq', nextval('outbox_id_seq') + 100)").fetchone()[0] - 50
        session.execute("ALTER SEQUENCE outbox_id_seq CACHE 50")
        begin = record(topic, "begin", "begin")
        truth.committed(zip(insert(session, [begin]), [begin]))   # from now on it has 49 ids of its own
        ways = {"nextval": drawn, "hi/lo": block, "CACHE 50": None}
        taken = []
        for way, row_id in ways.items():
            later_ids_flow(bed, database, topic, collector, truth, seconds=0.8)
            if row_id is None:
                row_id = session.execute("SELECT nextval('outbox_id_seq')").fetchone()[0]
            write_drawn(session, truth, topic, way, way, row_id)
            begin = time.monotonic()
            collector.wait_value(way, deadline=60)
            taken.append("%.2f s (%s)" % (time.monotonic() - begin, way))
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
    bed.note("%s, rescan_interval %.0f s: delivered after %s" % (claim, interval, ", ".join(taken)))


@LONG_BY_MARK
def test_an_id_drawn_in_the_transaction_that_writes_it_later_is_waited_for(bed, claim):
    """nextval() locks the sequence: who draws an id first and writes it a while after is seen as a writer, and not overtaken."""
    database, topic, collector, _ = start(bed, claim, **SLOW)
    truth = Truth()
    with database.connect(autocommit=False) as c:
        row_id = c.execute("SELECT nextval('outbox_id_seq')").fetchone()[0]
        later_ids_flow(bed, database, topic, collector, truth, seconds=2.5)
        write_drawn(c, truth, topic, "k", "first", row_id)
        c.commit()
    bed.write(database, topic, "k", "second", truth=truth)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)


# ---- large rows --------------------------------------------------------------------------------------------------------------------

LIMITS = {"max_in_flight_bytes": 4 * MIB, "mark_query_bytes": MIB // 2}


def grown_at_most(row):
    """What the limits allow: rows that wait, rows in flight and the Kafka client's copies of those, each with the row that reached the
    limit; a reply twice, as it came and as records; and 8 MiB that the client makes requests in (5 of 1 MB) and malloc keeps."""
    return 3 * (LIMITS["max_in_flight_bytes"] + row) + 2 * (LIMITS["mark_query_bytes"] + row) + 8 * MIB


def peak_bytes(daemon):
    with open("/proc/%d/status" % daemon.pid) as f:
        return int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1)) << 10


SMALL = "'small ' || n", "'1'", "'{}'", "'{}'"
ROWS = {   # what, rows, bytes of one; key, value, headers
    "values of 1 MB": (100, 10**6, ("'k' || n %% 10", "repeat(md5(n::text), 31000)", "'{}'", "'{}'")),
    "keys of 100 kB": (300, 10**5, ("n || repeat('k', 100000)", "'1'", "'{}'", "'{}'")),
    "headers of 100 kB": (300, 10**5, ("'k' || n %% 10", "n", "'{h}'", "ARRAY[repeat('h', 100000)]")),
    "100 headers of 1 kB": (300, 10**5, ("'k' || n %% 10", "n", "array_fill('h'::text, ARRAY[100])", "array_fill(repeat('h', 1000), ARRAY[100])")),
    "jsonb of 100 kB": (300, 10**5, ("'k' || n %% 10", "jsonb_build_object('n', n, 'v', repeat('v', 100000))", "'{}'", "'{}'")),
}


@LONG_BY_MARK
@pytest.mark.parametrize("what", [
    "values of 1 MB", "keys of 100 kB", "headers of 100 kB", pytest.param("100 headers of 1 kB", marks=pytest.mark.long), "jsonb of 100 kB"])
def test_memory_follows_the_limits(bed, claim, what):
    """10,000 small rows first, so that much is asked for at a time; then large ones, all visible at one moment, and behind them small
    ones. What compresses well is small in the table, and large on the wire."""
    if SANITIZED:
        pytest.skip("memory that was freed is kept for a while")
    count, size, form = ROWS[what]
    jsonb = "jsonb" in what
    sql = TABLE_WITHOUT_CONSTRAINTS.replace("kafka_value TEXT", "kafka_value JSONB") if jsonb else TABLE_WITHOUT_CONSTRAINTS
    database, topic, collector, daemon = start(bed, claim, sql, **LIMITS)
    write = "INSERT INTO outbox SELECT nextval('outbox_id_seq'), now(), %%s, %s, %s%s, %s, %s FROM generate_series(1, %d) AS n"
    cast = "::jsonb" if jsonb else "::text"
    small = write % (*SMALL[:2], cast, *SMALL[2:], 10000)
    database.execute(small.replace("'small '", "'first '"), [topic])
    bed.wait_empty(database)
    before = peak_bytes(daemon)
    with database.connect(autocommit=False) as c:
        c.execute(small.replace("10000", "3000"), [topic])
        c.execute(write % (*form[:2], cast, *form[2:], count), [topic])
        c.execute(small.replace("10000", "3000").replace("'small '", "'behind '"), [topic])
        c.commit()
    bed.wait_empty(database, deadline=120)
    after = peak_bytes(daemon)
    bed.note("%s, %s, %d MB in all: %.1f MB before, %.1f MB at most; allowed %.1f MB more" % (
        claim, what, count * size / 1e6, before / 1e6, after / 1e6, grown_at_most(size) / 1e6))
    assert after - before <= grown_at_most(size)
    assert len(collector.read_to_end()) == 16000 + count, "nothing lost, nothing twice"


# ---- another server than before, behind the same name -----------------------------------------------------------------------------

def answers(database):
    with contextlib.suppress(psycopg.Error):
        return database.execute("SELECT 1")


@LONG_BY_MARK
def test_prepared_transaction_and_a_crash_of_one_backend_behind_a_pooler(bed, claim):
    """The server recovers without a new process, and gives the prepared transaction another name; the pooler hides that. Its rows must
    not be overtaken."""
    server = bed.own_postgres()
    database, topic, truth = bed.database(server=server), bed.topic(), Truth()
    collector = bed.collector(topic)
    source = bed.pgbouncer(server=server).data_source(database)
    bed.harvestd(database, data_source=source, harvest={"claim": claim}, limits=dict(SLOW, io_error_backoff="100ms")).wait_leading()
    records = [record(topic, "prepared", "prepared %d" % n) for n in range(10)]
    with database.connect() as c:
        c.execute("BEGIN")
        ids = insert(c, records)
        c.execute("PREPARE TRANSACTION 'pending'")
    later_ids_flow(bed, database, topic, collector, truth, seconds=1.5)   # its ids lie in a gap whose writers are known
    with database.connect() as c:
        os.kill(c.execute("SELECT pg_backend_pid()").fetchone()[0], signal.SIGKILL)
        with contextlib.suppress(psycopg.Error):
            while True:   # until the others are told to go
                c.execute("SELECT pg_sleep(0.01)")
    wait_until(lambda: answers(database), 60, "the server to recover")
    later_ids_flow(bed, database, topic, collector, truth, seconds=2.5)
    with database.connect() as c:
        c.execute("COMMIT PREPARED 'pending'")
        truth.committed(zip(ids, records))
        last = [record(topic, "prepared", "last")]
        truth.committed(zip(insert(c, last), last))
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok()


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@LONG_BY_MARK
def test_ids_that_a_crash_gave_back(bed, claim):
    """Without synchronous commits a crash loses what was committed last, the sequence's state included: the same ids are given once more.
    Rows that were published and then lost cannot be helped; those that are written afterwards must come, and in order."""
    server = bed.own_postgres(synchronous_commit="off", bgwriter_lru_maxpages="0")
    database, topic, truth = bed.database(server=server), bed.topic(), Truth()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, harvest={"claim": claim}, limits=dict(SLOW, io_error_backoff="50ms"))
    daemon.wait_leading()
    bed.write(database, topic, "before", "first")
    collector.wait_value("first")
    bed.wait_empty(database)
    wal_writer = database.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")[0][0]
    bed.stack.callback(kill, wal_writer)
    database.execute("CHECKPOINT")
    os.kill(wal_writer, signal.SIGSTOP)   # what is written from now on is lost
    for n in range(60):
        before = bed.write(database, topic, "before", "before %d" % n)
    collector.wait_value("before 59")
    bed.wait_empty(database)   # nothing is held that a new row could be taken for
    time.sleep(0.2)
    since = daemon.position()
    server.stop("kill")
    kill(wal_writer)
    server.start()
    daemon.wait_log("database", "connected", since=since, role="claim", deadline=60)
    first = None
    for n in range(100):
        row_id = bed.write(database, topic, "k%d" % (n % 5), "after %d" % n, truth=truth)
        first = first or row_id
    bed.note("%s: ids went from %d back to %d" % (claim, before, first))
    assert first < before
    bed.wait_empty(database)
    report = check(truth, [m for m in collector.read_to_end() if m.value.startswith(b"after")])
    bed.note(str(report))
    report.assert_ok(duplicates=0)


@pytest.mark.long
def test_ids_that_come_again_while_their_first_owners_are_held(bed, claim):
    """An operator empties the table while Kafka hangs, and ids begin anew: those that are written then are other rows than those in
    flight under the same ids. Nothing of them is lost; order is promised only while ids rise, so each has a key of its own."""
    broker, database, truth = bed.own_kafka(), bed.database(), Truth()
    topic = bed.topic(broker)
    collector = bed.collector(topic, broker)
    bed.harvestd(database, broker, harvest={"claim": claim}, limits={"heartbeat_timeout": "10s", "rescan_interval": "500ms"}).wait_leading()
    bed.write(database, topic, "k", "before")
    collector.wait_value("before")
    bed.wait_empty(database)
    database.execute("ALTER SEQUENCE outbox_id_seq RESTART")
    broker.freeze()
    with database.connect() as c:
        insert(c, [record(topic, "k", "old %d" % n) for n in range(50)])
    time.sleep(1)   # they are in flight
    database.execute("TRUNCATE outbox RESTART IDENTITY")
    records = [record(topic, "k%d" % n, "new %d" % n) for n in range(50)]
    with database.connect() as c:
        truth.committed(zip(insert(c, records), records))
    broker.thaw()
    bed.wait_empty(database)
    report = check(truth, [m for m in collector.read_to_end() if m.value.startswith(b"new")])
    bed.note("%s: %s" % (claim, report))
    report.assert_ok()
