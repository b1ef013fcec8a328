"""The commands that end by themselves: check, schema, version, help; and what wrong configurations are answered."""
import json
import os
import re
import signal

import pytest

from bed.daemon import run_once, write_ini
from bed.kafka import fresh_name
from bed.postgres import PASSWORD, TABLE
from bed.util import free_port


@pytest.fixture
def ini(tmp_path):
    def make(sections):
        path = str(tmp_path / "harvestd.ini")
        write_ini(path, sections)
        return path
    return make


def points(done):
    """The lines of `check`: (ok?, text)."""
    found = []
    for line in done.stdout.splitlines():
        m = re.match(r"(not ok|ok)\b\s*(.*)", line)
        if m:
            found.append((m.group(1) == "ok", m.group(2)))
    return found


def failed(done):
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("ok"))


def test_check_when_all_is_well(bed, ini):
    database = bed.database()
    done = run_once("check", "-c", ini(bed.settings(database)))
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(points(done)) >= 4 and all(ok for ok, _ in points(done))
    assert PASSWORD not in done.stdout + done.stderr
    assert database.count() == 0


def test_check_changes_nothing(bed, ini):
    """No row, no topic."""
    database, topic = bed.database(), bed.topic()
    bed.write(database, topic, "k", "v")
    before = database.execute("SELECT * FROM outbox")
    run_once("check", "-c", ini(bed.settings(database)))
    assert database.execute("SELECT * FROM outbox") == before
    assert bed.collector(topic).read_to_end() == []


@pytest.mark.parametrize("what, change, says", [
    ("port", dict(port=1), "refused|connect"),
    ("password", dict(password="wr0ng"), "password"),
    ("role", dict(user="nobody-here"), "nobody-here|authentication"),
    ("database", dict(dbname="no_such_db"), "no_such_db"),
])
def test_check_when_the_database_cannot_be_reached(bed, ini, what, change, says):
    database = bed.database()
    if what == "port":
        change = dict(port=free_port())
    dbname = change.pop("dbname", database.name)
    source = bed.postgres.data_source(dbname, **change)
    done = run_once("check", "-c", ini(bed.settings(data_source=source)))
    print(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(says, failed(done))
    assert "wr0ng" not in done.stdout + done.stderr


@pytest.mark.parametrize("table, says", [
    (None, "outbox"),
    (TABLE + "; ALTER TABLE outbox DROP leader_id", "leader_id"),
    (TABLE + "; ALTER TABLE outbox DROP kafka_header_keys", "kafka_header_keys"),
    (TABLE + "; ALTER TABLE outbox ALTER kafka_header_keys TYPE JSONB USING '[]'", "kafka_header_keys"),
    (TABLE + "; ALTER TABLE outbox ALTER leader_id TYPE TEXT", "leader_id"),
    (TABLE + "; ALTER TABLE outbox DROP CONSTRAINT outbox_pkey", "index|primary key"),
], ids=["no table", "no leader_id", "no header keys", "wrong type of header keys", "wrong type of leader_id", "no index"])
def test_check_when_the_table_is_not_right(bed, ini, table, says):
    database = bed.database(table)
    done = run_once("check", "-c", ini(bed.settings(database)))
    print(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(says, failed(done)), done.stdout


@pytest.mark.parametrize("missing", ["SELECT", "UPDATE", "DELETE"])
def test_check_when_rights_are_missing(bed, ini, missing):
    server = bed.own_postgres()
    with server.connect() as c:
        c.execute("CREATE ROLE relay LOGIN PASSWORD 'pw'")
    database = bed.database(server=server)
    database.execute("GRANT %s ON outbox TO relay" % ", ".join({"SELECT", "UPDATE", "DELETE"} - {missing}))
    done = run_once("check", "-c", ini(bed.settings(data_source=database.data_source(user="relay", password="pw"))))
    print(done.stdout)
    assert done.returncode == 1 and missing in failed(done), done.stdout + done.stderr


def test_check_when_the_broker_cannot_be_reached(bed, ini):
    database = bed.database()
    done = run_once("check", "-c", ini(bed.settings(database, servers="127.0.0.1:%d" % free_port())))
    print(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search("broker|bootstrap|Kafka", failed(done))


def test_check_tells_all_that_is_wrong(bed, ini):
    """Not only the first."""
    done = run_once("check", "-c", ini(bed.settings(
        data_source=bed.postgres.data_source(port=free_port()), servers="127.0.0.1:%d" % free_port())))
    assert done.returncode == 1
    assert sum(not ok for ok, _ in points(done)) >= 2, done.stdout


# -- schema, version, help --------------------------------------------------------------------------------------------


def test_schema_makes_a_table_that_works(bed):
    done = run_once("schema")
    assert done.returncode == 0
    database, topic = bed.database(table=None), bed.topic()
    database.execute(done.stdout)
    collector = bed.collector(topic)
    bed.harvestd(database)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")


def test_version_and_help():
    for arguments in (["version"], ["--version"]):
        done = run_once(*arguments)
        assert done.returncode == 0 and re.search(r"\d+\.\d+", done.stdout)
    done = run_once("--help")
    assert done.returncode == 0 and "check" in done.stdout and "--set" in done.stdout
    done = run_once("--help-config")
    assert done.returncode == 0
    for name in ("data_source", "heartbeat_timeout", "send_concurrency", "leader_group_id", "bootstrap.servers"):
        assert name in done.stdout


# -- wrong configurations: exit code 2, every error at once, with its line, nothing started ----------------------------


def refused(path, *expected):
    done = run_once("run", "-c", path, timeout=20)
    text = done.stderr + done.stdout
    assert done.returncode == 2, "%d: %s" % (done.returncode, text)
    for pattern in expected:
        assert re.search(pattern, text), "no %r in:\n%s" % (pattern, text)
    assert "acquired" not in text and 'msg="started"' not in text and "msg=started" not in text
    return text


def write(tmp_path, content):
    path = tmp_path / "harvestd.ini"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_all_errors_of_a_file_at_once(tmp_path):
    path = write(tmp_path, """[harvest]
outbox_tabel = outbox
leader_assignor = fastest
[limits]
heartbeat_timeout = 5 parsecs
send_concurrency = 0
min_poll_interval = -1s
mark_query_records = many
[kafka]
bootstrap.severs = localhost:9092
[log]
level = loud
[nonsense]
a = b
""")
    text = refused(path, "outbox_table", r"\b2\b", "leader_assignor", r"\b3\b", "heartbeat_timeout", r"\b5\b",
                   "send_concurrency", "min_poll_interval", "mark_query_records", "bootstrap.severs", "level", "nonsense",
                   r"\b13\b")
    assert "cooperative-sticky" in text


@pytest.mark.parametrize("content, says", [
    ("[limits]\nhartbeat_timeout = 5s\n", "heartbeat_timeout"),
    ("[harvest]\ndata_source = a=b\ndata_source = c=d\n", "data_source"),
    ("[limits]\nsend_concurrency = 99999999999999999999\n", "send_concurrency"),
    ("[limits]\nsend_concurrency = 8x\n", "send_concurrency"),
    ("[limits]\nqueue_timeout = 5\n", "queue_timeout"),
    ("[limits]\nqueue_timeout =\n", "queue_timeout"),
    ("[limits]\nmax_in_flight_bytes = 8 MegaBytes\n", "max_in_flight_bytes"),
    ("[harvest\nname = x\n", r"\b1\b"),
    ("[harvest]\nname\n", r"\b2\b"),
    ("name = x\n", r"\b1\b"),
    ("[harvest]\nname = a\0b\n", r"\b2\b"),
    ("[harvest]\nname = %s\n" % ("x" * 100000), r"\b2\b"),
    ("[harvest]\noutbox_table = a.b.c.d\n", "outbox_table"),
    ("[harvest]\noutbox_table = out box\n", "outbox_table"),
    ("[harvest]\ndata_source = this is no connection string\n", "data_source"),
    ("[kafka.producer]\nenable.idempotence = false\n", "enable.idempotence"),
    ("[kafka.producer]\nacks = 1\n", "acks"),
    ("[kafka.producer]\nlinger.ms = soon\n", "linger.ms"),
    ("[kafka.consumer]\ngroup.id = mine\n", "group.id"),
    ("[log]\nformat = xml\n", "format"),
])
def test_wrong_configuration(tmp_path, content, says):
    refused(write(tmp_path, content), says)


def test_data_source_longer_than_inih_takes_is_read_whole(bed, ini):
    """The library splits lines of some 200 bytes silently; ours must not."""
    database = bed.database()
    source = "application_name=%s %s" % ("a" * 300, database.data_source())
    done = run_once("check", "-c", ini(bed.settings(data_source=source)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_cannot_be_read(tmp_path):
    refused(str(tmp_path / "missing.ini"), "missing.ini")
    refused(str(tmp_path), re.escape(str(tmp_path)))
    if os.geteuid() != 0:
        path = write(tmp_path, "[harvest]\n")
        os.chmod(path, 0)
        refused(path, "ermission")


@pytest.mark.parametrize("arguments", [
    ["rnu"], ["--confg", "x"], ["-s", "limits.hartbeat_timeout=5s"], ["-s", "limits"], ["-c"], ["run", "extra"],
    ["-s", "limits.heartbeat_timeout=5"],
])
def test_wrong_use(arguments, tmp_path):
    if "-c" not in arguments:
        arguments = arguments + ["-c", write(tmp_path, "[harvest]\n")]
    done = run_once(*arguments, timeout=20)
    assert done.returncode == 2 and done.stderr, (done.returncode, done.stdout, done.stderr)


def test_set_overrides_the_file(bed, ini):
    database = bed.database()
    sections = bed.settings(data_source="host=127.0.0.1 port=1 dbname=x")
    done = run_once("check", "-c", ini(sections), "-s", "harvest.data_source=${DATA_SOURCE}",
                    "--set", "limits.heartbeat_timeout=3s", env=dict(os.environ, DATA_SOURCE=database.data_source()))
    assert done.returncode == 0, done.stdout + done.stderr


def test_json_log(bed):

    database = bed.database()
    daemon = bed.harvestd(database, start=False, log={"format": "json"})
    daemon.start()
    wanted = {"main": "started", "leader": "acquired"}
    with daemon.changed:
        daemon.changed.wait_for(lambda: any('"acquired"' in line for line in daemon.noise), timeout=30)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    daemon.reader.join(10)
    lines = [json.loads(line) for line in daemon.noise]
    daemon.noise.clear()   # no logfmt, as it should be
    for component, msg in wanted.items():
        assert [x for x in lines if x["component"] == component and x["msg"] == msg]
    assert all({"time", "level", "component", "msg"} <= set(x) for x in lines)


def test_two_daemons_of_different_groups_are_no_business_of_each_other(bed):
    """Two tables, two groups, one broker."""
    one, two, topic = bed.database(), bed.database(), bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(one, group=fresh_name("group")).wait_leading()
    bed.harvestd(two, group=fresh_name("group")).wait_leading()
    bed.write(one, topic, "k", "1")
    bed.write(two, topic, "k", "2")
    collector.wait_value("1")
    collector.wait_value("2")
