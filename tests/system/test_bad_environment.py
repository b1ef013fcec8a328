"""Things around the daemon that are not as they should be. It keeps trying, says so once per change with what to do, and works as soon
as it is mended. The database is reached through a proxy that counts the attempts, so that "keeps trying" and "says it once" are
seen and not guessed."""
import re

import psycopg
import pytest

from bed.kafka import fresh_name
from bed.postgres import PASSWORD, TABLE
from bed.util import wait_until

LIMITS = {"io_error_backoff": "30ms", "io_error_backoff_max": "100ms", "connect_timeout": "2s"}


class Scene:
    """A daemon in front of something that is wrong; and what shows that it works once that is mended."""

    def __init__(self, bed, server=None, dbname=None, user="postgres", password=PASSWORD, table=TABLE, **options):
        self.bed = bed
        self.server = server or bed.postgres
        self.database = bed.database(table, server)
        self.topic = bed.topic()
        self.proxy = bed.proxy(self.server.port, postgres=True)
        limits = dict(LIMITS, **options.pop("limits", {}))
        self.daemon = bed.harvestd(data_source=self.server.data_source(
            dbname or self.database.name, port=self.proxy.port, user=user, password=password), limits=limits, **options)
        self.password = password

    def complains(self, pattern, attempts=6, lines=2):
        """Told with a reason and an advice, once for each of the two connections, however often it is tried."""
        line = self.daemon.wait_log("database", re.compile("cannot connect|disconnected"), reason=re.compile(pattern),
                                    advice=True)
        assert line["level"] in ("warn", "error") and line["role"] in ("claim", "settle")
        tried = self.proxy.accepted
        wait_until(lambda: self.proxy.accepted >= tried + attempts, 30, "more attempts")
        told = self.daemon.find("database", re.compile("cannot connect|disconnected"), reason=re.compile(pattern))
        assert len(told) <= lines, self.daemon.tail()
        assert self.daemon.running()
        return line

    def works(self):
        self.daemon.wait_log("database", "connected", role="claim")
        self.daemon.wait_log("database", "connected", role="settle")
        collector = self.bed.collector(self.topic)
        self.bed.write(self.database, self.topic, "k", "mended")
        collector.wait_value("mended")
        self.bed.wait_empty(self.database)
        self.daemon.stop()
        assert not [x for x in self.daemon.lines if self.password in x["raw"]], "a password in the log"


def test_database_is_down_at_the_start(bed):
    server = bed.own_postgres()
    database = bed.database(server=server)
    server.stop()
    topic = bed.topic()
    daemon = bed.harvestd(database, limits=LIMITS)
    line = daemon.wait_log("database", "cannot connect", role="claim", advice=True)
    assert "refused" in line["reason"].lower()
    daemon.wait_log("database", "cannot connect", role="settle", advice=True)
    daemon.wait_leading()   # and leads meanwhile, or another could not take over
    assert len(daemon.find("database")) == 2, daemon.tail()
    server.start()
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    daemon.stop()


def test_broker_is_down_at_the_start(bed):
    broker = bed.own_kafka(start=False)
    database = bed.database()
    bed.write(database, "from-the-start", "k", "v")
    daemon = bed.harvestd(database, broker)
    line = daemon.wait_log("kafka", None, level=re.compile("warn|error"), deadline=30)
    bed.note("told: " + line["raw"])
    broker.start()
    daemon.wait_leading()
    collector = bed.collector("from-the-start", broker)
    bed.wait_empty(database)
    assert [m.value for m in collector.read_to_end()] == [b"v"]
    daemon.stop()


def test_neither_is_there_and_it_is_told_to_stop(bed):
    server, broker = bed.own_postgres(start=False), bed.own_kafka(start=False)
    daemon = bed.harvestd(data_source=server.data_source(), kafka=broker, limits=LIMITS)
    daemon.wait_log("database", "cannot connect", role="claim")
    daemon.stop(deadline=20)


def test_wrong_password(bed):
    server = bed.own_postgres()
    server_role(server, "relay", "right one")
    scene = Scene(bed, server, user="relay", password="wr0ng-and-secret")
    scene.database.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO relay")
    scene.complains("password authentication failed")
    server_role(server, "relay", "wr0ng-and-secret")
    scene.works()


def server_role(server, name, password, options="LOGIN"):
    with server.connect() as c:
        there = c.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
        c.execute("%s ROLE %s %s PASSWORD '%s'" % ("ALTER" if there else "CREATE", name, options, password))


def test_no_such_role(bed):
    server = bed.own_postgres()
    scene = Scene(bed, server, user="newcomer", password="pass-word-1")
    scene.complains("authentication failed|does not exist")
    server_role(server, "newcomer", "pass-word-1", "SUPERUSER LOGIN")
    scene.works()


def test_no_such_database(bed):
    name = fresh_name("late_db").replace("-", "_")
    scene = Scene(bed, dbname=name)
    scene.complains("database .* does not exist")
    with scene.server.connect() as c:
        c.execute("ALTER DATABASE %s RENAME TO %s" % (scene.database.name, name))
    scene.database.name = name
    scene.works()


def test_no_such_table(bed):
    scene = Scene(bed, table=None)
    scene.complains("outbox")
    scene.database.execute(TABLE)
    scene.works()


def test_no_such_schema(bed):
    scene = Scene(bed, harvest={"outbox_table": "app.outbox"})
    scene.complains("app")
    scene.database.execute("CREATE SCHEMA app; ALTER TABLE outbox SET SCHEMA app; "
                           "CREATE VIEW outbox AS SELECT * FROM app.outbox")
    scene.works()


@pytest.mark.parametrize("column", ["id", "leader_id", "kafka_topic", "kafka_key", "kafka_value", "kafka_header_keys",
                                    "kafka_header_values"])
def test_missing_column(bed, column):
    scene = Scene(bed, table=TABLE + "; ALTER TABLE outbox RENAME %s TO renamed" % column)
    scene.complains(column)
    scene.database.execute("ALTER TABLE outbox RENAME renamed TO " + column)
    scene.works()


@pytest.mark.parametrize("column, wrong, right", [
    ("kafka_header_keys", "JSONB USING '[]'", "TEXT[] USING '{}'"),
    ("kafka_header_values", "TEXT USING ''", "TEXT[] USING '{}'"),
    ("kafka_key", "INTEGER USING 0", "TEXT USING ''"),
    ("kafka_topic", "INTEGER USING 0", "TEXT USING ''"),
    ("leader_id", "BIGINT USING 0", "UUID USING NULL"),
])
def test_wrong_column_type(bed, column, wrong, right):
    scene = Scene(bed, table=TABLE + "; ALTER TABLE outbox ALTER %s TYPE %s" % (column, wrong))
    scene.complains(column)
    scene.database.execute("ALTER TABLE outbox ALTER %s TYPE %s" % (column, right))
    scene.works()


@pytest.mark.parametrize("missing", ["SELECT", "UPDATE", "DELETE", "USAGE ON SCHEMA"])
def test_missing_rights(bed, missing):
    """Whether it finds out when connecting or at the first statement: it says so, loses nothing, and works once it may."""
    server = bed.own_postgres()
    server_role(server, "relay", "pass-word-1")
    database = bed.database(server=server)
    rights = [r for r in ("SELECT", "UPDATE", "DELETE") if r != missing]
    database.execute("GRANT %s ON outbox TO relay" % ", ".join(rights))
    if missing.startswith("USAGE"):
        database.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    topic = bed.topic()
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "early")
    daemon = bed.harvestd(data_source=database.data_source(user="relay", password="pass-word-1"), limits=LIMITS)
    daemon.wait_leading()
    line = daemon.wait_log("database", None, level=re.compile("warn|error"), reason=re.compile("permission denied|does not exist|right"))
    assert line.get("advice")
    database.execute("GRANT SELECT, UPDATE, DELETE ON outbox TO relay; GRANT USAGE ON SCHEMA public TO relay")
    collector.wait_value("early")
    bed.wait_empty(database)
    assert len(daemon.find("database", None, level=re.compile("warn|error"))) <= 6, daemon.tail()
    daemon.stop()


def test_rights_are_taken_away_and_given_back(bed):
    """DELETE only: records are sent, cannot be purged, and are not sent again and again."""
    server = bed.own_postgres()
    server_role(server, "relay", "pass-word-1")
    database = bed.database(server=server)
    database.execute("GRANT SELECT, UPDATE, DELETE ON outbox TO relay")
    topic = bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(data_source=database.data_source(user="relay", password="pass-word-1"), limits=LIMITS)
    bed.write(database, topic, "k", "first")
    bed.wait_empty(database)
    database.execute("REVOKE DELETE ON outbox FROM relay")
    bed.write(database, topic, "k", "second")
    collector.wait_value("second")
    daemon.wait_log("database", None, level=re.compile("warn|error"), reason=re.compile("permission denied|right"))
    assert database.count() == 1
    database.execute("GRANT DELETE ON outbox TO relay")
    bed.wait_empty(database)
    assert [m.value for m in collector.read_to_end()] == [b"first", b"second"]
    daemon.stop()


def test_table_is_dropped_and_made_again(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, limits=LIMITS)
    bed.write(database, topic, "k", "first")
    bed.wait_empty(database)
    database.execute("DROP TABLE outbox")
    daemon.wait_log("database", None, level=re.compile("warn|error"), reason=re.compile("outbox"))
    database.execute(TABLE)
    bed.write(database, topic, "k", "second")
    collector.wait_value("second")
    bed.wait_empty(database)
    daemon.stop()


def test_row_that_must_not_be_deleted(bed):
    """A trigger forbids it for one row; the others are purged, and the daemon says which one it is."""
    database, topic = bed.database(), bed.topic()
    database.execute("""CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF OLD.kafka_value = 'keep' THEN RAISE EXCEPTION 'this one stays'; END IF; RETURN OLD; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION keep()""")
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, limits=LIMITS)
    for n in range(20):
        bed.write(database, topic, "k%d" % n, "keep" if n == 10 else "v%d" % n)
    collector.wait_count(20)
    wait_until(lambda: database.count() == 1, 30, "the others to be purged")
    stuck = database.execute("SELECT id FROM outbox")[0][0]
    line = daemon.wait_log(None, None, id=stuck, level=re.compile("warn|error"))
    bed.note(line["raw"])
    database.execute("DROP TRIGGER keep ON outbox")
    bed.wait_empty(database)
    assert len(collector.read_to_end()) == 20
    daemon.stop()


def test_too_many_connections(bed):
    server = bed.own_postgres(max_connections=8, superuser_reserved_connections=3)
    server_role(server, "relay", "pass-word-1")
    database = bed.database(server=server)
    database.execute("GRANT ALL ON outbox TO relay")
    topic = bed.topic()
    held = []
    with pytest.raises(psycopg.OperationalError):
        while True:
            held.append(psycopg.connect(database.data_source(user="relay", password="pass-word-1")))
    daemon = bed.harvestd(data_source=database.data_source(user="relay", password="pass-word-1"), limits=LIMITS)
    daemon.wait_log("database", "cannot connect", role="claim", advice=True)
    for c in held:
        c.close()
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    daemon.stop()


def test_read_only_server(bed):
    """A standby, or a server in maintenance."""
    server = bed.own_postgres()
    database = bed.database(server=server)
    topic = bed.topic()
    bed.write(database, topic, "k", "v")
    with server.connect() as c:
        c.execute("ALTER DATABASE %s SET default_transaction_read_only = on" % database.name)
    daemon = bed.harvestd(database, limits=LIMITS)
    daemon.wait_leading()
    daemon.wait_log("database", None, level=re.compile("warn|error"))
    with server.connect() as c:
        c.execute("ALTER DATABASE %s RESET default_transaction_read_only" % database.name)
    with server.connect() as c:   # sessions keep the setting that they began with
        c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database.name])
    collector = bed.collector(topic)
    collector.wait_value("v")
    daemon.stop()


def test_session_timeout_that_the_broker_refuses(bed):
    """3 x heartbeat_timeout below the broker's group.min.session.timeout.ms: said once, with what to change."""
    database = bed.database()
    daemon = bed.harvestd(database, limits={"heartbeat_timeout": "1s"})
    line = daemon.wait_log(None, None, level=re.compile("warn|error"), raw=re.compile("session", re.I))
    assert "heartbeat_timeout" in line["raw"], "it names the setting"
    assert not daemon.find("leader", "acquired")
    daemon.stop()


def test_host_name_that_does_not_resolve(bed):
    database = bed.database()
    daemon = bed.harvestd(data_source="host=no-such-host.invalid port=5432 user=postgres dbname=postgres", limits=LIMITS)
    line = daemon.wait_log("database", "cannot connect", role="claim", advice=True, deadline=40)
    assert "no-such-host.invalid" in line["raw"]
    assert database.count() == 0
    daemon.stop()


def test_several_hosts_of_which_the_first_is_dead(bed):
    """libpq's list of hosts and ports; and target_session_attrs finds the one that can be written to."""
    dead = bed.proxy(1)
    dead.refuse()
    database, topic = bed.database(), bed.topic()
    source = "host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres password=%s dbname=%s sslmode=disable " \
             "target_session_attrs=read-write" % (dead.port, database.server.port, "'se cret\\'\\\\1'", database.name)
    daemon = bed.harvestd(data_source=source)
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    daemon.stop()


@pytest.mark.parametrize("form", ["uri", "name"])
def test_other_forms_of_data_source(bed, form):
    database, topic = bed.database(), bed.topic()
    port, name = database.server.port, database.name
    source = {"uri": "postgresql://postgres:se%%20cret%%27%%5C1@127.0.0.1:%d/%s?sslmode=disable" % (port, name),
              "name": "host=localhost port=%d user=postgres password='se cret\\'\\\\1' dbname=%s" % (port, name)}[form]
    daemon = bed.harvestd(data_source=source)
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    daemon.stop()
    assert not [x for x in daemon.lines if "cret" in x["raw"]], "a password in the log"


def test_unix_socket(bed):
    database, topic = bed.database(), bed.topic()
    daemon = bed.harvestd(data_source=database.server.dsn(database.name))
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    daemon.stop()


def test_passwords_stay_out_of_the_log_at_every_level(bed):
    database = bed.database()
    daemon = bed.harvestd(database, log={"level": "debug"}, kafka_producer={"sasl.password": "kafka-pass-word"},
                          limits=LIMITS)
    daemon.wait_leading()
    with database.connect() as c:
        c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
                  "AND pid <> pg_backend_pid()", [database.name])
    daemon.wait_log("database", "connected", count=3)
    daemon.stop()
    assert not [x for x in daemon.lines if "cret" in x["raw"] or "kafka-pass-word" in x["raw"]]
