"""The smallest rights that work: for harvestd and for an application in Postgres, for harvestd at brokers with ACLs. Each right taken away
leads to a line that names it and what to run; when that is run, harvestd works, without a restart."""
import re

import psycopg
import pytest

from bed.acl import PROPERTIES, Acls, broker_with_acls
from bed.daemon import run_once, write_ini
from bed.kafka import fresh_name
from bed.postgres import TABLE
from bed.util import wait_until


LIMITS = {"io_error_backoff": "30ms", "io_error_backoff_max": "200ms", "blocked_backoff_max": "300ms", "rescan_interval": "1h"}
INSERT = "INSERT INTO %s (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) " \
         "VALUES (now(), %%s, %%s, %%s, '{}', '{}')"


class Scene:
    """A database in which PUBLIC may nothing, an outbox, a role for harvestd and one for an application, with the grants that
    `harvestd schema` prints."""

    def __init__(self, bed, tmp_path, schema="app", search_path=False):
        self.bed, self.schema = bed, schema
        self.relay, self.application = (fresh_name(n).replace("-", "_") for n in ("relay", "shop"))
        self.database = bed.database(table=None)
        self.table = "outbox" if search_path else schema + ".outbox"
        self.topic = bed.topic()
        self.collector = bed.collector(self.topic)
        with self.database.connect() as c:
            c.execute("REVOKE ALL ON DATABASE %s FROM PUBLIC" % self.database.name)
            c.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE SCHEMA IF NOT EXISTS " + schema)
            c.execute(TABLE.replace("TABLE outbox", "TABLE %s.outbox" % schema))
            for role in (self.relay, self.application):
                c.execute("CREATE ROLE %s LOGIN PASSWORD 'pw'" % role)
                if search_path:
                    c.execute("ALTER ROLE %s IN DATABASE %s SET search_path = '$user', %s" % (role, self.database.name, schema))
        self.ini = str(tmp_path / "harvestd.ini")
        self.daemon = bed.harvestd(start=False, harvest={"outbox_table": self.table}, limits=LIMITS,
                                   data_source=self.database.data_source(user=self.relay, password="pw"))

    def grant(self):
        sql = run_once("schema", "--set", "harvest.outbox_table=%s.outbox" % self.schema, "--grants", self.relay,
                       "--application-grants", self.application, "-c", self.write_ini())
        assert sql.returncode == 0, sql.stderr
        self.database.execute(sql.stdout)
        return self

    def write_ini(self):
        write_ini(self.ini, self.daemon.sections)
        return self.ini

    def check(self):
        return run_once("check", "-c", self.write_ini())

    def connect(self, role=None):
        return psycopg.connect(self.database.data_source(user=role or self.application, password="pw"), autocommit=True)

    def write(self, value):
        with self.connect() as c:
            c.execute(INSERT % self.table, [self.topic, "k", value])

    def works(self, value):
        self.write(value)
        self.collector.wait_value(value)
        self.bed.wait_empty(self.database, table=self.schema + ".outbox")


@pytest.mark.parametrize("search_path", [False, True], ids=["schema.table", "search_path"])
def test_printed_grants_are_enough(bed, tmp_path, search_path):
    """For marks, purges, resets of rows that cannot be sent, and the question for writers; for inserts; and `check` finds nothing."""
    scene = Scene(bed, tmp_path, search_path=search_path).grant()
    done = scene.check()
    assert done.returncode == 0, done.stdout + done.stderr
    scene.daemon.start().wait_leading()
    scene.works("first")
    with scene.connect() as c, scene.connect() as late:
        late.execute("BEGIN")
        late.execute(INSERT % scene.table, [scene.topic, "k2", "late"])
        for n in range(200):
            c.execute(INSERT % scene.table, [scene.topic, "k%d" % (n % 3), "v%d" % n])
        scene.collector.wait_value("v199")
        late.execute("COMMIT")
        scene.collector.wait_value("late")
        c.execute(INSERT % scene.table, ["no topic", "k", "bad"])
        line = scene.daemon.wait_log("record", "blocked")
        for sql in ("SELECT * FROM %s", "DELETE FROM %s", "UPDATE %s SET leader_id = NULL"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                c.execute(sql % scene.table)
    scene.database.execute("UPDATE %s.outbox SET kafka_topic = '%s' WHERE id = %s" % (scene.schema, scene.topic, line["id"]))
    scene.collector.wait_value("bad")
    bed.wait_empty(scene.database, table=scene.schema + ".outbox")
    assert not scene.daemon.find("database", level=re.compile("warn|error")), scene.daemon.tail()
    scene.daemon.stop()


def test_select_on_its_columns_is_enough(bed, tmp_path):
    """A table with columns of the application's own, which harvestd need not read."""
    scene = Scene(bed, tmp_path).grant()
    scene.database.execute("ALTER TABLE app.outbox ADD own TEXT; REVOKE SELECT ON app.outbox FROM %s; "
                           "GRANT SELECT (id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values, leader_id) "
                           "ON app.outbox TO %s" % (scene.relay, scene.relay))
    scene.write("before")
    done = scene.check()
    assert done.returncode == 0, done.stdout + done.stderr
    scene.daemon.start()
    scene.works("v")
    scene.database.execute("REVOKE SELECT (kafka_key, leader_id) ON app.outbox FROM " + scene.relay)
    scene.write("more")
    line = scene.daemon.wait_log("database", None, reason=re.compile(r"SELECT \(kafka_key, leader_id\) on app.outbox"))
    scene.database.execute(line["reason"].partition("run: ")[2])
    scene.works("again")
    scene.daemon.stop()


RIGHTS = {"CONNECT": "CONNECT ON DATABASE {db}", "USAGE": "USAGE ON SCHEMA app", "SELECT": "SELECT ON app.outbox",
          "UPDATE": "UPDATE (leader_id) ON app.outbox", "DELETE": "DELETE ON app.outbox"}


@pytest.mark.usefixtures("by_mark")
@pytest.mark.parametrize("right, search_path", [(right, False) for right in RIGHTS] + [("USAGE", True), ("SELECT", True)])
def test_a_right_that_is_missing(bed, tmp_path, right, search_path):
    """At the start and later on: the daemon and check name exactly that one; what they say is run and helps."""
    scene = Scene(bed, tmp_path, search_path=search_path).grant()
    what = RIGHTS[right].format(db=scene.database.name)
    scene.write("early")
    scene.database.execute("REVOKE %s FROM %s" % (what, scene.relay))

    done = scene.check()
    assert done.returncode == 1, done.stdout
    told = [x for x in done.stdout.splitlines() if x.startswith(("not ok", "  "))]
    assert len(told) == 2 and right in told[0] + told[1], done.stdout
    statement = re.escape(what).replace(re.escape(scene.database.name), '"?%s"?' % scene.database.name)
    assert re.search('GRANT %s TO "?%s"?' % (statement, scene.relay), done.stdout), done.stdout

    said = re.compile('run: (GRANT %s TO "?%s"?;)$' % (statement, scene.relay))
    scene.daemon.start().wait_leading()
    line = scene.daemon.wait_log("database", "cannot connect", reason=said, advice=True)
    bed.note(line["raw"])
    scene.database.execute(said.search(line["reason"]).group(1))
    scene.collector.wait_value("early")
    scene.works("works")

    if right != "CONNECT":   # which a session that stands does not need
        since = scene.daemon.position()
        scene.database.execute("REVOKE %s FROM %s" % (what, scene.relay))
        scene.write("later")
        line = scene.daemon.wait_log("database", None, since=since, reason=said)
        scene.database.execute(said.search(line["reason"]).group(1))
        scene.collector.wait_value("later")
        scene.works("works again")
    assert len(scene.daemon.find("database", level=re.compile("warn|error"))) <= 6, scene.daemon.tail()
    scene.daemon.stop()


@pytest.mark.parametrize("right, what", [("USAGE ON SEQUENCE", "app.outbox_id_seq"), ("INSERT (kafka_value) ON", "app.outbox"),
                                         ("USAGE ON SCHEMA", "app")])
def test_an_application_needs_each_of_its_rights(bed, tmp_path, right, what):
    scene = Scene(bed, tmp_path).grant()
    scene.write("v")
    scene.database.execute("REVOKE %s %s FROM %s" % (right, what, scene.application))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        scene.write("w")


def test_names_in_the_printed_grants(bed, tmp_path):
    """Quoted where needed; a role that cannot be one is refused."""
    database = bed.database(table=None)
    role = 'Da"ve O\'' + fresh_name("x")
    quoted = '"%s"' % role.replace('"', '""')
    database.execute('CREATE SCHEMA "My App"; CREATE ROLE %s' % quoted)
    database.execute(TABLE.replace("TABLE outbox", 'TABLE "My App"."Out\'box"'))
    done = run_once("schema", "--set", "harvest.outbox_table=\"My App\".\"Out'box\"", "--grants", quoted, "--application-grants", quoted)
    assert done.returncode == 0, done.stderr
    database.execute(done.stdout)
    has = database.execute("SELECT has_table_privilege(%s, c.oid, 'DELETE'), has_schema_privilege(%s, 'My App', 'USAGE'), "
                           "has_sequence_privilege(%s, pg_get_serial_sequence('\"My App\".\"Out''box\"', 'id'), 'USAGE'), "
                           "has_table_privilege(%s, c.oid, 'INSERT'), has_table_privilege(%s, c.oid, 'UPDATE') "
                           "FROM pg_class c WHERE relname = 'Out''box'", [role] * 5)
    assert has == [(True, True, True, False, False)]
    for wrong in ("a.b", "a b", ""):
        done = run_once("schema", "--grants", wrong)
        assert done.returncode in (1, 2) and "--grants" in done.stderr and not done.stdout


# -- Kafka ------------------------------------------------------------------------------------------------------------


class KafkaScene:
    """A broker on which harvestd's user may nothing but what acls grants."""

    def __init__(self, bed, tmp_path):
        self.bed = bed
        self.broker = broker_with_acls(bed)
        self.acls = Acls(self.broker)
        self.database, self.group = bed.database(), fresh_name("group")
        self.topic = self.broker.create_topic(fresh_name(), 2)
        self.collector = bed.collector(self.topic, self.broker)
        self.daemon = bed.harvestd(self.database, servers=self.broker.user_servers, group=self.group, start=False,
                                   limits=dict(LIMITS, heartbeat_timeout="2s"))
        self.daemon.sections["kafka"].update(PROPERTIES)
        self.ini = str(tmp_path / "harvestd.ini")
        write_ini(self.ini, self.daemon.sections)

    def check(self):
        return run_once("check", "-c", self.ini)

    def works(self, value):
        self.bed.write(self.database, self.topic, "k", value)
        self.collector.wait_value(value)
        self.bed.wait_empty(self.database)


def test_acls_of_kafka_one_by_one(bed, tmp_path):
    """Granted one after the other, each after the daemon and check said that it is missing; nothing more is needed. No right on the
    cluster: brokers before 2.8 also want IdempotentWrite there."""
    scene = KafkaScene(bed, tmp_path)
    leader_topic = scene.group + ".neli"
    bed.write(scene.database, scene.topic, "k", "waits")
    scene.daemon.start()

    def lacks(kind, name, operation, daemon, check=None, component="kafka", **fields):
        line = scene.daemon.wait_log(component, None, deadline=60, level=re.compile("warn|error"), raw=re.compile(daemon), **fields)
        bed.note(line["raw"])
        done = scene.check()
        assert done.returncode == 1, done.stdout
        assert (check or "--operation %s --%s %s" % (operation.capitalize(), kind, name)) in done.stdout, done.stdout
        scene.acls.grant(kind, name, operation)

    lacks("group", scene.group, "read", "grant READ on it .*--group " + scene.group)
    lacks("topic", leader_topic, "create", "grant READ and WRITE on it, and CREATE", check="--create --topic " + leader_topic)
    scene.acls.grant("topic", leader_topic, "describe")   # it is made now; implied by Read and Write, which follow
    wait_until(lambda: leader_topic in scene.broker.topics(), 40, "the leader topic to be made")
    lacks("topic", leader_topic, "read", "not allowed to read topic")
    scene.daemon.wait_log("leader", "joined", deadline=40)
    lacks("topic", leader_topic, "write", "grant WRITE on it .*--topic " + leader_topic)
    scene.acls.revoke("topic", leader_topic, "describe")
    scene.acls.grant("topic", scene.topic, "describe")   # or check could not tell it from one that is not there
    scene.daemon.wait_leading()
    lacks("topic", scene.topic, "write", "authorization failed", component="record", advice=re.compile("WRITE"))
    scene.acls.revoke("topic", scene.topic, "describe")
    scene.collector.wait_value("waits")
    scene.works("works")
    done = scene.check()
    assert done.returncode == 0 and "the brokers allow" in done.stdout, done.stdout
    assert [m.value for m in scene.collector.read_to_end()] == [b"waits", b"works"], "check wrote something"
    scene.daemon.stop()


@pytest.mark.parametrize("operation", ["write", pytest.param("read", marks=pytest.mark.long)])
def test_acls_of_the_leader_topic_taken_away_and_given_back(bed, tmp_path, operation):
    """Without heartbeats it stops by itself, says why, and leads again once it may."""
    scene = KafkaScene(bed, tmp_path)
    leader_topic = scene.group + ".neli"
    for kind, name, op in (("group", scene.group, "read"), ("topic", leader_topic, "create"), ("topic", leader_topic, "read"),
                           ("topic", leader_topic, "write"), ("topic", scene.topic, "write")):
        scene.acls.grant(kind, name, op)
    scene.daemon.start()
    scene.works("before")
    since = scene.daemon.position()
    scene.acls.revoke("topic", leader_topic, operation)
    scene.daemon.wait_log("kafka", "trouble", since=since, reason=re.compile("grant .*" + operation.upper()))
    scene.daemon.wait_log("leader", "fenced", since=since, deadline=40)
    scene.acls.grant("topic", leader_topic, operation)
    scene.daemon.wait_leading(since=since)
    scene.works("after")
    scene.daemon.stop()
