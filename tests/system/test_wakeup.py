"""wakeup = listen: with the trigger that `harvestd schema --notify` prints, a record does not wait until rows are looked for; without it,
or when notifications get lost, it does, and that is all."""
import re
import shlex
import subprocess

import psycopg
import pytest

from bed.daemon import command, run_once, write_ini
from bed.postgres import TABLE
from bed.readme import block
from bed.util import wait_until

# Nothing is found in time by looking for it. (What was delivered is deleted after mark_backoff, too.)
NEVER = {"mark_backoff": "60s", "idle_backoff_max": "60s", "rescan_interval": "1h", "io_error_backoff": "100ms"}
SOON = 30   # seconds


@pytest.fixture(params=["mark", "cursor"])
def harvest(request):
    return {"claim": request.param, "wakeup": "listen"}


def print_trigger(table="outbox"):
    done = run_once("schema", "--notify", "--set", "harvest.outbox_table=" + table)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Scene:
    def __init__(self, bed, harvest, sql=TABLE, table="outbox", trigger=True, limits=NEVER):
        self.bed, self.table, self.count = bed, table, 0
        self.database, self.topic = bed.database(sql), bed.topic()
        if trigger:
            self.database.execute(print_trigger(table))
        self.collector = bed.collector(self.topic)
        self.harvest = dict(harvest, outbox_table=table)
        self.options = dict(harvest=self.harvest, limits=limits, group=self.topic)
        self.daemon = bed.harvestd(self.database, **self.options)
        self.daemon.wait_leading()

    def write(self, table=None):
        self.count += 1
        self.bed.write(self.database, self.topic, "k", "value %d" % self.count, table=table or self.table)

    def flows(self, table=None, deadline=SOON):
        """The first one may be found by the first look, and the second one by a look that was under way; the third may not."""
        for _ in range(3):
            self.write(table)
            self.collector.wait_value("value %d" % self.count, deadline=deadline)


def test_a_record_arrives_at_once(bed, harvest):
    scene = Scene(bed, harvest)
    scene.flows()
    since = scene.daemon.position()
    with scene.database.connect() as c:   # a new session listens again
        assert c.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'harvestd claim%%' "
                         "AND datname = current_database()").fetchone() == (1,)
        scene.write()   # nobody is told of this one
    scene.daemon.wait_log("database", "connected", since=since, role="claim")
    scene.collector.wait_value("value %d" % scene.count, deadline=SOON)
    scene.flows()
    other = bed.harvestd(scene.database, **scene.options)   # and so does the next leader
    other.wait_log("leader", "joined")
    scene.flows()
    scene.daemon.stop()
    other.wait_leading()
    scene.flows()


def test_without_the_trigger_a_record_waits_and_arrives(bed, harvest):
    scene = Scene(bed, harvest, trigger=False, limits=dict(NEVER, mark_backoff="2s", idle_backoff_max="2s"))
    scene.flows(deadline=60)
    bed.wait_empty(scene.database)


def test_a_burst_is_told_of_once_for_each_transaction(bed, harvest):
    """Many statements, many writers: all arrive, none twice."""
    scene = Scene(bed, harvest, limits={"idle_backoff_max": "60s"})
    app = bed.application(scene.database, [scene.topic], keys=30, count=2000, writers=4, hold=0.1, rollbacks=0.1)
    app.start().wait()
    bed.judge(app, scene.collector, duplicates=0)


@pytest.mark.parametrize("table", ['"My App"."Out\'b""ox"', "app." + 60 * "x"])
def test_names_in_the_printed_trigger(bed, table):
    """Quoted where needed, and never too long; it can be run again."""
    schema = table.split(".")[0]
    scene = Scene(bed, {"wakeup": "listen"}, "CREATE SCHEMA %s; %s" % (schema, TABLE.replace("TABLE outbox", "TABLE " + table)), table)
    scene.database.execute(print_trigger(table))
    scene.flows()
    assert scene.database.execute("SELECT count(*) FROM pg_trigger WHERE tgname = 'harvestd_notify'") == [(1,)]


def test_writers_need_no_right_for_it(bed):
    """Whatever their search_path; and what a trigger that notifies forbids."""
    scene = Scene(bed, {"wakeup": "listen"})
    with scene.database.connect() as c:
        c.execute("CREATE SCHEMA evil; CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS "
                  "$$ BEGIN RAISE 'evil'; END $$; REVOKE ALL ON FUNCTION harvestd_notify() FROM PUBLIC; "
                  "CREATE ROLE r%s; GRANT INSERT ON outbox TO r%s; GRANT USAGE ON SEQUENCE outbox_id_seq TO r%s; "
                  "GRANT USAGE ON SCHEMA evil, public TO r%s; GRANT SELECT (id) ON outbox TO r%s"
                  % ((scene.database.name,) * 5))
        try:
            for n in range(3):
                c.execute("SET ROLE r%s; SET search_path = evil, public" % scene.database.name)
                c.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, "
                          "kafka_header_values) VALUES (now(), %s, 'k', %s, '{}', '{}')", [scene.topic, "by the role %d" % n])
                scene.collector.wait_value("by the role %d" % n, deadline=SOON)
        finally:
            c.execute("RESET ROLE; DROP OWNED BY r%s; DROP ROLE r%s" % (scene.database.name, scene.database.name))
    with scene.database.connect() as c, pytest.raises(psycopg.Error, match="PREPARE"):
        c.execute("BEGIN")
        c.execute("INSERT INTO outbox SELECT 1000000, now(), 't', 'k', 'v', '{}', '{}'")
        c.execute("PREPARE TRANSACTION 'x'")


def test_a_partitioned_table(bed):
    sql = TABLE.replace("BIGSERIAL PRIMARY KEY", "BIGSERIAL") + " PARTITION BY RANGE (id); ALTER TABLE outbox ADD PRIMARY KEY (id); " \
        "CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM (1) TO (1000000)"
    scene = Scene(bed, {"wakeup": "listen"}, sql)
    scene.flows()
    # As the README says of those who insert there directly.
    scene.database.execute("CREATE TRIGGER harvestd_notify AFTER INSERT ON outbox_1 EXECUTE FUNCTION harvestd_notify('harvestd_outbox')")
    scene.flows("outbox_1")


def test_check_tells_what_is_missing(bed, tmp_path):
    path = str(tmp_path / "harvestd.ini")
    database = bed.database()

    def wakeup(says, **options):
        write_ini(path, bed.settings(database, harvest={"wakeup": "listen"}, **options))
        done = run_once("check", "-c", path)
        assert done.returncode == 0, done.stdout + done.stderr
        found = [line for line in done.stdout.splitlines() if re.search(r"\bwakeup:", line)]
        assert len(found) == 1 and re.match(says, found[0]), done.stdout

    wakeup("note .*no trigger .*harvestd_outbox.*idle_backoff_max, 1s.*schema --notify")
    database.execute(print_trigger())
    wakeup("ok .*harvestd_outbox")
    database.execute("ALTER TABLE outbox DISABLE TRIGGER harvestd_notify")
    wakeup("note .*no trigger")
    database.execute("ALTER TABLE outbox ENABLE TRIGGER harvestd_notify")
    for mode, says in (("session", "ok"), ("transaction", "note .*do not arrive.*pooler")):
        wakeup(says, data_source=bed.pgbouncer(mode).data_source(database))
    write_ini(path, bed.settings(database))
    assert "wakeup" not in run_once("check", "-c", path).stdout


def test_the_readme(bed, tmp_path):
    database = bed.database()
    write_ini(str(tmp_path / "harvestd.ini"), bed.settings(database))
    script = "harvestd() { %s \"$@\"; }\npsql() { command psql -qv ON_ERROR_STOP=1 %s; }\n%s" % (
        " ".join(shlex.quote(c) for c in command()), shlex.quote(database.data_source()), block("notify"))
    done = subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and re.search("^ok .*wakeup", done.stdout, re.M), done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["transaction"])
def test_through_a_pooler_records_arrive_all_the_same(bed, mode):
    """Where notifications do not arrive, or for somebody else."""
    database, topic = bed.database(), bed.topic()
    database.execute(print_trigger())
    pooler = bed.pgbouncer(mode)
    collector = bed.collector(topic)
    daemon = bed.harvestd(data_source=pooler.data_source(database), harvest={"wakeup": "listen"})
    app = bed.application(database, [topic], keys=30, count=500)
    app.start().wait()
    bed.judge(app, collector, duplicates=0)
    wait_until(daemon.running, 5, "it to run")
    daemon.stop()
