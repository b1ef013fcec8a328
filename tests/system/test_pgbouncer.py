"""Through PgBouncer: in session, transaction and statement mode; with its server connections few, recycled and cut; with other clients on
the same server connections, of whose transactions nothing may be overlooked and whose settings nothing may change."""
import re

import psycopg
import pytest

from bed.daemon import run_once, write_ini
from bed.postgres import PASSWORD
from bed.util import wait_until

LIMITS = {"io_error_backoff": "50ms", "io_error_backoff_max": "300ms", "connect_timeout": "5s"}


def but_long(*modes):
    """The last ones take their turn in `make check-long`."""
    return ["transaction"] + [pytest.param(m, marks=pytest.mark.long) for m in modes]


class Pooled:
    """A database as its clients see it through the pooler."""

    def __init__(self, pooler, database):
        self.pooler, self.database, self.name = pooler, database, database.name

    def connect(self, **options):
        options.setdefault("autocommit", True)
        # Named statements stay with a server connection.
        return psycopg.connect(self.pooler.data_source(self.database), prepare_threshold=None, **options)

    def execute(self, sql, params=None):
        return self.database.execute(sql, params)

    def count(self, *args, **options):
        return self.database.count(*args, **options)


def daemon_behind(bed, pooler, database, **options):
    limits = dict(LIMITS, **options.pop("limits", {}))
    return bed.harvestd(data_source=pooler.data_source(database), limits=limits, **options)


def works(bed, database, topic, value="works"):
    collector = bed.collector(topic)
    bed.write(database, topic, "k", value)
    collector.wait_value(value)
    bed.wait_empty(database)


# -- delivery ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["session"] + but_long("statement"))
def test_delivery_over_two_server_connections(bed, mode):
    """Late commits and rollbacks, from applications that go past the pooler; in session mode the two are ours."""
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    pooler = bed.pgbouncer(mode)
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=30, count=2000, hold=0.1)
    daemon = daemon_behind(bed, pooler, database)
    app.start().wait()
    bed.judge(app, collector, duplicates=0)
    assert not daemon.find(level=re.compile("warn|error")), daemon.tail()
    daemon.stop()


def test_delivery_with_the_applications_on_the_same_server_connections(bed):
    """Transaction mode, one pool: our statements and the applications' transactions take turns on each connection."""
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    pooler = bed.pgbouncer("transaction", default_pool_size=4)
    collector = bed.collector(topics)
    app = bed.application(Pooled(pooler, database), topics, keys=30, count=2000, hold=0.1)
    daemon = daemon_behind(bed, pooler, database, limits={"rescan_interval": "1h"})
    app.start().wait()
    bed.judge(app, collector, duplicates=0)
    assert not daemon.find(level=re.compile("warn|error")), daemon.tail()
    daemon.stop()


@pytest.mark.parametrize("mode", but_long("session"))
def test_delivery_in_rough_weather(bed, mode):
    """The pooler restarted, reloaded, paused, its server connections cut and short-lived; the database restarted behind it."""
    server = bed.own_postgres()
    database, topics = bed.database(server=server), [bed.topic(), bed.topic()]
    pooler = bed.pgbouncer(mode, server, server_lifetime=0.3, server_idle_timeout=0.5)
    collector = bed.collector(topics)
    app = bed.application(database, topics, keys=30, writers=3, pause=0.03, hold=0.1).start()
    daemon = daemon_behind(bed, pooler, database, limits={"statement_timeout": "3s", "connect_timeout": "2s"})
    daemon.wait_leading()

    def more():
        collector.wait_count(collector.count() + 100, deadline=60)
    for deed in (more, pooler.restart, lambda: pooler.admin("RELOAD"), lambda: pooler.admin("RECONNECT"),
                 lambda: pause(pooler, daemon, database), lambda: server.restart("fast"), lambda: server.restart("immediate"),
                 lambda: pooler.configure(pool_mode="session" if mode == "transaction" else "transaction").admin("RELOAD"),
                 pooler.restart):
        deed()
        more()
    app.stop()
    bed.judge(app, collector)
    daemon.stop()


def pause(pooler, daemon, database):
    """Statements that nobody answers. In session mode PAUSE would wait until all clients are gone; KILL sends them away."""
    since = daemon.position()
    pooler.admin("PAUSE" if pooler.settings["pool_mode"] == "transaction" else "KILL " + database.name)
    daemon.wait_log("database", None, reason=re.compile("no answer|did not answer"), since=since, deadline=30)
    pooler.admin("RESUME" if pooler.settings["pool_mode"] == "transaction" else "RESUME " + database.name)


# -- other clients ----------------------------------------------------------------------------------------------------


def watermarks(server, database, since):
    """(where the log ends now, the lowest ids that marks looked at: of their first gap, or above which; how often writers were asked
    for), from the server's log."""
    with open(server.log_path, errors="replace") as f:
        text = f.read()
    marks = re.findall(r"UPDATE \"outbox\" SET leader_id.*?\n.*?DETAIL:  parameters: (.*)", text[since:])
    lowest = [re.search(r"\$5 = '\{(-?\d+)", m) or re.search(r"\$2 = '(-?\d+)'", m) for m in marks]
    return len(text), [int(m[1]) for m in lowest], text[since:].count("SELECT DISTINCT virtualtransaction")


@pytest.mark.usefixtures("by_mark")
@pytest.mark.parametrize("mode", but_long("session", "statement"))
def test_watermark(bed, mode):
    """It waits for a transaction that goes on, on a server connection that was ours before, or else that transaction's row would
    never be seen; but it does not wait for ourselves: it rises, and rises again when the transaction has ended."""
    server = bed.own_postgres(log_min_duration_statement=0)
    database, topic = bed.database(server=server), bed.topic()
    pooler = bed.pgbouncer(mode, server, default_pool_size=3 if mode == "transaction" else 4)
    collector = bed.collector(topic)
    daemon = daemon_behind(bed, pooler, database, limits={"rescan_interval": "1h"})
    daemon.wait_leading()
    client = Pooled(pooler, database) if mode != "statement" else database
    state = {"since": 0, "seen": [], "asked": 0}

    def rises_above(row_id):
        bed.write(database, topic, "k", "another")   # something to do, so that marks do not become rare
        state["since"], marks, asked = watermarks(server, database, state["since"])
        state["seen"] += marks
        state["asked"] += asked
        return state["seen"] and state["seen"][-1] > row_id

    first = bed.write(database, topic, "k", "first")
    wait_until(lambda: rises_above(first), 30, "the watermark to rise", every=0.1)

    with client.connect(autocommit=False) as late:
        late_id = late.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, "
                               "kafka_header_values) VALUES (now(), %s, 'late', 'late', '{}', '{}') RETURNING id", [topic]).fetchone()[0]
        state.update(seen=[], asked=0)
        wait_until(lambda: rises_above(late_id) or state["asked"] >= 20, 60, "writers to be asked for again and again", every=0.1)
        assert state["seen"] and max(state["seen"]) <= late_id, "the watermark passed a transaction that goes on"
        late.commit()
    collector.wait_value("late")
    wait_until(lambda: rises_above(late_id), 30, "the watermark to rise again", every=0.1)
    bed.wait_empty(database)
    daemon.stop()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_other_clients_find_their_settings(bed, mode):
    """Whoever gets a server connection after us, or after `harvestd check`, finds it as it was."""
    database, topic = bed.database(), bed.topic()
    pooler = bed.pgbouncer(mode)
    settings = "SELECT name, setting FROM pg_settings WHERE name <> 'application_name' ORDER BY name"
    with Pooled(pooler, database).connect() as c:
        before = c.execute(settings).fetchall()
    daemon = daemon_behind(bed, pooler, database)
    works(bed, database, topic)
    if mode == "transaction":
        with Pooled(pooler, database).connect() as a, Pooled(pooler, database).connect() as b:
            for c in (a, b):   # inside transactions: both server connections at once
                c.execute("BEGIN")
            assert [c.execute(settings).fetchall() for c in (a, b)] == [before, before]
            assert [c.execute("SELECT name FROM pg_prepared_statements").fetchall() for c in (a, b)] == [[], []]
    daemon.stop()
    path = daemon.ini
    done = run_once("check", "-c", path)
    assert "pooler" in done.stdout, done.stdout
    with Pooled(pooler, database).connect() as a, Pooled(pooler, database).connect() as b:
        for c in (a, b):
            c.execute("BEGIN")
        assert [c.execute(settings).fetchall() for c in (a, b)] == [before, before]


def test_a_pooler_that_is_not_noticed(bed):
    """What was prepared is gone, as after a pooler's reset, here by a trigger: nothing fails, and the log says so once."""
    database, topic = bed.database(), bed.topic()
    daemon = bed.harvestd(database)
    works(bed, database, topic)
    database.execute("""CREATE FUNCTION reset() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN OLD; END $$;
        CREATE TRIGGER reset BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION reset()""")
    for n in range(3):
        works(bed, database, topic, "again %d" % n)
    assert [line["role"] for line in daemon.find("database", "statements are not prepared any more")] == ["settle"]
    assert not daemon.find("database", "statement refused"), daemon.tail()


# -- signing in, and what cannot work ---------------------------------------------------------------------------------


@pytest.mark.parametrize("auth_type, secret", [
    ("plain", "password"), ("scram-sha-256", "secret"), pytest.param("md5", "password", marks=pytest.mark.long),
    pytest.param("scram-sha-256", "password", marks=pytest.mark.long)])
def test_authentication(bed, auth_type, secret):
    """auth_file with a password, or with the server's own SCRAM secret, which the pooler signs in with at the server, too."""
    server = bed.own_postgres()
    with server.connect() as c:
        secret = PASSWORD if secret == "password" else c.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").fetchone()[0]
    database, topic = bed.database(server=server), bed.topic()
    pooler = bed.pgbouncer("transaction", server, auth_type=auth_type, users={"postgres": secret})
    daemon = daemon_behind(bed, pooler, database)
    works(bed, database, topic)
    daemon.stop()
    assert not [x for x in daemon.lines if PASSWORD in x["raw"]]


@pytest.mark.parametrize("what, source, says, advice, mend", [
    ("password", dict(password="wr0ng"), "authentication failed", "auth_file", None),
    ("options", dict(extra="options='-c search_path=public'"), "unsupported startup parameter: options", "ignore_startup_parameters",
     dict(ignore_startup_parameters="options")),
    ("limit", {}, "no more connections allowed", "max_client_conn", dict(max_client_conn=50)),
])
def test_what_the_pooler_refuses(bed, tmp_path, what, source, says, advice, mend):
    """Said with what to do, by the daemon and by check; and over once it is mended."""
    database, topic = bed.database(), bed.topic()
    pooler = bed.pgbouncer("transaction")
    if what == "limit":
        pooler.configure(max_client_conn=0).admin("RELOAD")
    daemon = bed.harvestd(data_source=pooler.data_source(database, **source), limits=LIMITS)
    line = daemon.wait_log("database", "cannot connect", reason=re.compile(says), advice=re.compile(advice))
    assert len(daemon.find("database", "cannot connect")) <= 2
    write_ini(str(tmp_path / "ini"), daemon.sections)
    done = run_once("check", "-c", str(tmp_path / "ini"))
    assert done.returncode == 1 and re.search(says, done.stdout) and advice in done.stdout, done.stdout
    if mend:
        if what == "limit":   # its console counts as a client, too
            pooler.stop()
            pooler.configure(**mend).start()
        else:
            pooler.configure(**mend).admin("RELOAD")
        works(bed, database, topic)
    bed.note(line["raw"])
    daemon.stop()


def test_pool_that_is_taken(bed):
    """Other clients hold all server connections for longer than the pooler lets us wait: said, and over when they let go."""
    database, topic = bed.database(), bed.topic()
    pooler = bed.pgbouncer("transaction", query_wait_timeout=1)
    daemon = daemon_behind(bed, pooler, database)
    works(bed, database, topic)
    with Pooled(pooler, database).connect(autocommit=False) as a, Pooled(pooler, database).connect(autocommit=False) as b:
        a.execute("SELECT 1")
        b.execute("SELECT 1")
        line = daemon.wait_log("database", None, reason=re.compile("query_wait_timeout"))
        assert "pool_size" in line["advice"]
    works(bed, database, topic, "again")
    daemon.stop()
