"""A transaction that somebody forgot: idle, holding a snapshot or with a row of its own in the outbox, while records pass. Vacuum may remove
nothing that was deleted since it began, so the table grows behind the daemon.

Records come in portions; each is committed at once and has to be through, rows deleted, before the next. pg_stat_statements tells what the
daemon's claims took meanwhile (planning included, which suffers from dead rows as well), and how many rows were deleted: asking the
table would walk the dead rows itself.

Every rescan_interval all ids are looked at, dead ones too, by other statements; the slowest of them is told with the slowest claim."""
import time

from . import Wrong, cpu, daemon
from .topic import Topic

# What the daemon's claims look like, and its look at ids from the first on.
CLAIMS = {"mark": "%UPDATE % SET leader_id = $1 %", "cursor": "%SELECT id, kafka_topic, %ORDER BY id LIMIT%"}
LISTS = "SELECT id, kafka_key FROM % WHERE id >= % ORDER BY id DESC LIMIT%"
IDLE = 1.0      # seconds without records, in which empty claims are looked at
DEADLINE = 120  # of one portion


class _Statements:
    """What pg_stat_statements knows of this database."""

    def __init__(self, database, strategy):
        self.database, self.pattern = database, CLAIMS[strategy]
        database.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        database.execute("ALTER DATABASE %s SET pg_stat_statements.track = 'top'" % database.name)
        self.connection = database.connect()
        self.connection.execute("SET pg_stat_statements.track = 'none'")  # not our own

    def close(self):
        self.connection.close()

    def _sum(self, what, pattern):
        return self.connection.execute(
            "SELECT " + what + " FROM pg_stat_statements WHERE query LIKE %s"
            " AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())", [pattern]).fetchone()

    def deleted(self):
        return self._sum("coalesce(sum(rows), 0)::bigint", "DELETE%")[0]

    def claims(self):
        """(ms, calls, rows, ms of the slowest) since they were forgotten"""
        return self._sum("coalesce(sum(total_plan_time + total_exec_time), 0)::float8, coalesce(sum(calls), 0)::bigint,"
                         " coalesce(sum(rows), 0)::bigint, coalesce(max(max_exec_time), 0)", self.pattern)

    def slowest(self):
        """ms of the slowest claim or look since they were forgotten"""
        return max(self._sum("coalesce(max(max_exec_time), 0)", pattern)[0] for pattern in (self.pattern, LISTS))

    def forget_claims(self):
        for pattern in (self.pattern, LISTS):
            self._sum("count(pg_stat_statements_reset(0, dbid, queryid))", pattern)

    def all(self):
        """Every statement of the daemon's, for the file of results: where else time went."""
        return [dict(zip(("calls", "rows", "plan_ms", "exec_ms", "text"), row)) for row in self.connection.execute(
            "SELECT calls, rows, total_plan_time, total_exec_time, left(query, 80) FROM pg_stat_statements"
            " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND query NOT LIKE %s ORDER BY total_exec_time DESC LIMIT 12", ["INSERT%"]).fetchall()]


def _wait_deleted(statements, harvestd, wanted):
    end = time.monotonic() + DEADLINE
    while statements.deleted() < wanted:
        if not harvestd.running() or time.monotonic() > end:
            raise Wrong("%d of %d rows deleted\n%s" % (statements.deleted(), wanted, harvestd.tail()))
        time.sleep(0.01)
    return time.monotonic()


def _portion(statements, harvestd, records, c, topic, first, count):
    statements.forget_claims()
    with c.transaction():
        records.insert(c, topic, first, count)
    start = time.monotonic()
    end = _wait_deleted(statements, harvestd, first + count)
    busy_ms, _, busy_rows, _ = statements.claims()
    slowest = statements.slowest()
    statements.forget_claims()
    time.sleep(IDLE)
    idle_ms, idle_calls, idle_rows, idle_max = statements.claims()
    if idle_rows > 0 or idle_calls < 3 or busy_rows < count:
        raise Wrong("claims of %d rows, then %d of %d rows\n%s" % (busy_rows, idle_calls, idle_rows, harvestd.tail()))
    return {"passed": first, "rate": count / (end - start),
            "claim_ms": busy_ms / busy_rows * 1000,                 # of 1000 rows
            "empty_ms": (idle_ms - idle_max) / (idle_calls - 1),    # of a claim that finds nothing
            "slowest_ms": max(slowest, statements.slowest())}


def _forget(database, records, kind, topic, number):
    """The transaction; `number`: of the record that it holds, if it writes one."""
    c = database.connect(autocommit=False)
    c.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    c.execute("SELECT count(*) FROM outbox")
    if kind == "insert":
        records.insert(c, topic, number, 1)
    return c


def _warm_up(statements, harvestd, database, records, topic, count):
    """A portion before the transaction begins, with statistics of a table that is in use: a new one has none, and worse plans."""
    with database.connect() as c:
        records.insert(c, topic, 0, count)
        c.execute("ANALYZE outbox")
        harvestd.start()
        daemon.wait_leading(harvestd)
        _wait_deleted(statements, harvestd, count)
        c.execute("VACUUM outbox")


def _pass_by(statements, harvestd, database, records, topic, portions, size):
    """What each portion took, and the daemon's CPU."""
    used, series = cpu.seconds(harvestd.pid), []
    with database.connect() as c:
        for n in range(portions):
            series.append(_portion(statements, harvestd, records, c, topic, (n + 1) * size, size))
    return series, cpu.seconds(harvestd.pid) - used


def forgotten(servers, database, records, strategy, kind, count, portions, settings=()):
    """kind: snapshot or insert. database: a new one, without anybody else's dead rows."""
    topic, size = servers.new_topic(), count // portions
    total = (portions + 1) * size
    statements = _Statements(database, strategy)
    harvestd = daemon.make(servers, database, strategy, settings)
    try:
        _warm_up(statements, harvestd, database, records, topic, size)
        old = _forget(database, records, kind, topic, total)
        series, used = _pass_by(statements, harvestd, database, records, topic, portions, size)
        old.commit()
        old.close()
        total += kind == "insert"  # the late one has the highest number, and comes last
        _wait_deleted(statements, harvestd, total)
        told = statements.all()
        read = Topic(servers.broker, topic)
        try:
            read.check(records, total)
        finally:
            read.close()
        harvestd.stop(60)
    finally:
        harvestd.destroy()
        statements.close()
    servers.drop_topic(topic)
    database.drop()
    return {"records": portions * size, "cpu": used * 1e6 / (portions * size), "series": series, "statements": told,
            **_ends(series)}


def _ends(series):
    """The first and the last fifth, in means."""
    n = max(1, len(series) // 5)
    ends = {}
    for name in ("rate", "claim_ms", "empty_ms"):
        ends[name + "_start"] = sum(s[name] for s in series[:n]) / n
        ends[name + "_end"] = sum(s[name] for s in series[-n:]) / n
    ends["slowest_ms"] = max(s["slowest_ms"] for s in series)
    ends["claim_ratio"] = ends["claim_ms_end"] / ends["claim_ms_start"]
    ends["empty_ratio"] = ends["empty_ms_end"] / ends["empty_ms_start"]
    return ends
