"""harvestd park: what was moved aside can be looked at, put back and dropped; and what a replay says of the order is true."""
import base64
import json
import os
import pty
import re
import select
import shlex
import subprocess
import threading
import time

import pytest

from bed.daemon import command, run_once, write_ini
from bed.postgres import COLUMNS, PASSWORD, TABLE, TABLE_BYTEA
from bed.readme import block
from bed.util import wait_until

NOBODY = "127.0.0.1:1"  # no broker is needed
INSERT = "INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) " \
         "VALUES ('2026-01-02T03:04:05Z', %s, %s, %s, %s, %s) RETURNING id"
COLUMN_NAMES = "id, create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values, leader_id"


class Scene:
    def __init__(self, bed, tmp_path):
        self.bed, self.path, self.database = bed, str(tmp_path / "park.ini"), None

    def make(self, table=TABLE, trigger=True, name="outbox", **sections):
        self.database = self.bed.database(table)
        sections.setdefault("servers", NOBODY)
        write_ini(self.path, self.bed.settings(self.database, harvest={"outbox_table": name}, **sections))
        self.database.execute(self.schema())
        if not trigger:
            self.database.execute("DROP TRIGGER harvestd_parked ON " + name)
        return self

    def schema(self, *arguments):
        done = run_once("schema", "-c", self.path, "--park", *arguments)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout

    def argv(self, *arguments):
        return command() + ["park", arguments[0], "-c", self.path] + [str(a) for a in arguments[1:]]

    def run(self, *arguments, code=0):
        done = subprocess.run(self.argv(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        assert PASSWORD.encode() not in done.stdout + done.stderr
        assert done.returncode == code, (done.stdout + done.stderr).decode()
        return done

    def lines(self, *arguments, code=0):
        return [json.loads(line) for line in self.run(*arguments, "--json", code=code).stdout.decode().splitlines()]

    def verdicts(self, *arguments, code=0):
        """{id: "yes"...} of a replay."""
        return {x["id"]: x["in_order"] for x in self.lines("replay", *arguments, code=code)}

    def write(self, key, value="v", topic="t", headers=(), connection=None):
        parameters = (topic, key, value, [n for n, _ in headers], [v for _, v in headers])
        return (connection or self.database).execute(INSERT, parameters)[0][0] if connection is None else \
            connection.execute(INSERT, parameters).fetchone()[0]

    def park(self, *ids, failure="too large", error="it is too large"):
        """As the daemon does."""
        rows = self.database.execute(
            "WITH gone AS (DELETE FROM outbox WHERE id = ANY (%%s) RETURNING %s) "
            "INSERT INTO outbox_parked (%s, class, error, attempts, failed_at, parked_at, place, noted_by) "
            "SELECT *, %%s, %%s, 3, now() - interval '1 minute', now(), id, (SELECT oid FROM pg_trigger WHERE tgname = 'harvestd_parked') FROM gone RETURNING id" % (COLUMN_NAMES, COLUMN_NAMES),
            [list(ids), failure, error])
        assert len(rows) == len(ids)
        return ids

    def send(self, *ids):
        """As the daemon does, once Kafka has them."""
        self.database.execute("DELETE FROM outbox WHERE id = ANY (%s)", [list(ids)])

    def ids(self, table="outbox"):
        return [i for (i,) in self.database.execute("SELECT id FROM %s ORDER BY id" % table)]


@pytest.fixture
def scene(bed, tmp_path):
    return Scene(bed, tmp_path)


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_looks_at_the_table(scene):
    """Where there is one."""
    def parked():
        return [line for line in run_once("check", "-c", scene.path).stdout.splitlines() if "parked" in line]
    scene.make(servers=scene.bed.kafka.servers)
    assert len(parked()) == 1 and "has all columns" in parked()[0]
    scene.database.execute("ALTER TABLE outbox ADD COLUMN more INT")
    assert any("ADD COLUMN more integer" in line for line in parked())
    scene.database.execute("DROP TABLE outbox_parked")
    assert parked() == []


# -- list and show ----------------------------------------------------------------------------------------------------


def test_list(scene):
    scene.make()
    ids = [scene.write("key-%d" % (n % 3), "secret-%d" % n, "t%d" % (n % 2)) for n in range(1, 8)]
    assert scene.run("list").stdout == b"no such records\n"
    scene.park(*ids[:5])
    scene.park(*ids[5:], failure="invalid record", error="Broker: \"bad\"")
    scene.database.execute("UPDATE outbox_parked SET parked_at = now() - interval '2 hours' WHERE id <= 2; "
                           "UPDATE outbox_parked SET passed_by = 99 WHERE id = 4")
    table = scene.run("list").stdout.decode()
    assert "secret" not in table and len(table.splitlines()) == 8
    head = table.splitlines()[0].split()
    assert head == ["id", "parked_at", "topic", "key", "class", "attempts", "bytes", "passed_by", "error"]
    assert {line.index("it is") for line in table.splitlines() if "it is" in line} == {table.splitlines()[0].index("error")}
    everything = scene.lines("list")
    assert everything[3] == {"id": 4, "parked_at": everything[3]["parked_at"], "failed_at": everything[3]["failed_at"], "topic": "t0",
                             "key": "key-1", "class": "too large", "attempts": 3, "bytes": 8, "passed_by": 99, "error": "it is too large"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", everything[3]["parked_at"])

    def chosen(*arguments):
        return [x["id"] for x in scene.lines("list", *arguments)]
    assert chosen() == ids
    assert chosen("--id", "2-3,7", "--id", "1") == [1, 2, 3, 7]
    assert chosen("--id", "6-") == [6, 7]
    assert chosen("--key", "key-1") == [1, 4, 7]
    assert chosen("--key", "key-1", "-k", "key-2", "--topic", "t1") == [1, 5, 7]
    assert chosen("--class", "invalid record") == [6, 7]
    assert chosen("--older-than", "1h") == [1, 2]
    assert chosen("--newer-than", "1h", "--limit", "2") == [3, 4]
    assert chosen("--key", "it's {\"\\}") == []
    first = scene.run("list", "--limit", "3", "--json")
    assert b"--after 3" in first.stderr
    assert chosen("--after", "3", "--limit", "3") == [4, 5, 6]
    last = scene.run("list", "--after", "6", "--limit", "3")
    assert last.stderr == b"" and len(last.stdout.splitlines()) == 2


def test_texts_cannot_steer_a_terminal(scene):
    scene.make(TABLE.replace("VARCHAR(100)", "TEXT"))
    key = "\x1b[31mred\n\u202eback äö" + "x" * 100
    scene.park(scene.write(key, "\x1b]0;title\x07"), error="a\x1b[1m")
    assert scene.lines("list")[0]["key"] == key
    assert [x["id"] for x in scene.lines("list", "--key", key)] == [1]
    for arguments in ("list",), ("show", "--id", "1"):
        out = scene.run(*arguments).stdout.decode()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out) and "\\x1b[31mred\\x0a" in out and "äö" in out
    assert scene.run("show", "--id", "1", "--raw").stdout == b"\x1b]0;title\x07"


@pytest.mark.parametrize("kind, value", [("VARCHAR(10000)", 'te"xt\nä'), ("VARCHAR(10000)", None), ("TEXT", ""), ("BYTEA", bytes(range(256))),
                                         ("JSONB", '{"a": [1, "x"]}'), ("JSON", '{"a":  1}')])
def test_show(scene, kind, value):
    scene.make(TABLE.replace("VARCHAR(10000)", kind))
    scene.park(scene.write("k", value, headers=[("a", "1"), ("b", ""), ("a", "2")]))
    raw = value if isinstance(value, bytes) else (value or "").encode()
    shown = scene.lines("show", "--id", "1")[0]
    if isinstance(value, bytes):
        assert base64.b64decode(shown.pop("value_base64")) == value
    else:
        assert shown.pop("value") == value
    assert shown["headers"] == [["a", "1"], ["b", ""], ["a", "2"]] and shown["create_time"].startswith("2026-01-02T03:04:05")
    assert shown["bytes"] == (None if value is None else len(raw))
    assert scene.run("show", "--id", "1", "--raw").stdout == raw
    out = scene.run("show", "--id", "1").stdout
    expected = b"tombstone" if value is None else base64.b64encode(raw) if kind == "BYTEA" else raw
    assert expected in out and b"header       b = \n" in out and b"class        too large\n" in out
    assert b"no parked record has the id 2" in scene.run("show", "--id", "2", code=1).stderr


def test_bytes_as_keys_and_in_headers(scene):
    scene.make(TABLE.replace("VARCHAR(100)", "BYTEA").replace("kafka_header_values TEXT[]", "kafka_header_values BYTEA[]"))
    first = scene.write(b"\x00\xff", "v", headers=[("h", b"\xfe")])
    second = scene.write("ä".encode())
    scene.park(first, second)
    assert scene.lines("show", "--id", first)[0]["headers"] == [["h", {"value_base64": "/g=="}]]
    assert scene.lines("list")[0]["key_base64"] == "AP8="
    assert [x["id"] for x in scene.lines("list", "--key", "ä")] == [second]
    assert scene.verdicts("--all") == {first: "yes", second: "yes"}
    assert [bytes(k) for (k,) in scene.database.execute("SELECT kafka_key FROM outbox ORDER BY id")] == [b"\x00\xff", "ä".encode()]


# -- use --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, says", [
    ([], "list, show, replay and drop"), (["lsit"], "did you mean list"), (["list", "drop"], "unexpected"), (["show"], "--id"),
    (["show", "--id", "1-2"], "one record"), (["list", "--id", "x"], "no list of ids"), (["list", "--id", "5-2"], "lower id first"),
    (["replay"], "--all"), (["drop", "--dry-run"], "--all"), (["replay", "--all", "--id", "1"], "besides"), (["list", "--raw"], "is for show"),
    (["drop", "--all", "--allow-reorder"], "is for replay"), (["list", "--after", "x"], "whole number"), (["list", "--older-than", "5"], "5s"),
    (["drop", "--all"], "no terminal"),
])
def test_wrong_use(scene, tmp_path, arguments, says):
    path = tmp_path / "nowhere.ini"
    path.write_text("[harvest]\ndata_source = host=/nowhere\n")
    done = run_once("park", "-c", str(path), *arguments)
    assert done.returncode == 2 and done.stdout == "" and says in done.stderr, done.stderr


def test_what_is_missing_is_told(scene):
    scene.make()
    scene.park(scene.write("k"))
    role = "operator_" + scene.database.name
    scene.database.execute("CREATE ROLE %s LOGIN PASSWORD 'pw'" % role)
    try:
        write_ini(scene.path, scene.bed.settings(data_source=scene.database.data_source(user=role, password="pw"), servers=NOBODY))
        for action in ("list",), ("replay", "--all"), ("drop", "--all", "--yes"):
            assert b"--operator-grants" in scene.run(*action, code=1).stderr
        done = run_once("schema", "-c", scene.path, "--operator-grants", role)
        scene.database.execute(done.stdout)
        assert len(scene.lines("list")) == 1 and scene.verdicts("--all") == {1: "yes"}
        scene.park(2)
        assert scene.run("drop", "--all", "--yes").stdout == b"1 record dropped\n"
    finally:
        scene.database.execute("DROP OWNED BY %s; DROP ROLE %s" % (role, role))
    scene.make().database.execute("DROP TABLE outbox_parked")
    assert b"harvestd schema --park" in scene.run("list", code=1).stderr
    assert scene.write("k") == 1
    scene.send(1)  # the trigger that is left over harms nothing


def test_the_readme(scene):
    """Its commands are taken as they stand there."""
    scene.make()
    scene.park(scene.write("customer-17", "v", "payments"))
    shown = [line.split("#")[0] for line in block("park").splitlines()]
    assert sum("park show" in line for line in shown) == 1 and len(shown) == 5
    for line in shown:
        argv = [scene.path if x == "harvestd.ini" else "1" if x == "4711" else x for x in shlex.split(line.split("|")[0])[1:]]
        done = run_once(*argv)
        assert done.returncode == 0 and done.stdout and not done.stderr, (line, done.stdout, done.stderr)


# -- drop -------------------------------------------------------------------------------------------------------------


def on_terminal(argv, answer):
    """Runs it on a terminal of its own; what it said, and its exit code."""
    parent, child = pty.openpty()
    process = subprocess.Popen(argv, stdin=child, stdout=child, stderr=child, start_new_session=True)
    os.close(child)
    said = b""
    while True:
        ready, _, _ = select.select([parent], [], [], 60)
        assert ready, "it neither asks nor ends: %r" % said
        try:
            data = os.read(parent, 4096)
        except OSError:
            break
        said += data
        if b"[yes/no] " in said and answer is not None:
            os.write(parent, answer)
            answer = None
        if not data:
            break
    os.close(parent)
    return said.decode(), process.wait(timeout=30)


def test_drop(scene):
    scene.make()
    scene.park(*[scene.write("k%d" % n) for n in range(6)])
    assert b"2 records" not in scene.run("drop", "--id", "1-2", "--dry-run").stdout
    assert len(scene.run("drop", "--id", "1-2", "--dry-run").stdout.splitlines()) == 3 and scene.ids("outbox_parked") == [1, 2, 3, 4, 5, 6]
    said, code = on_terminal(scene.argv("drop", "--id", "1-2"), b"no\n")
    assert code == 1 and "Drop 2 records" in said and "nothing was dropped" in said and len(scene.ids("outbox_parked")) == 6
    said, code = on_terminal(scene.argv("drop", "--id", "1-2"), b"yes\n")
    assert code == 0 and "2 records dropped" in said and scene.ids("outbox_parked") == [3, 4, 5, 6]
    assert scene.lines("drop", "--key", "k2", "--yes") == [{"id": 3, "dropped": True}]
    done = scene.run("drop", "--id", "3,4", "--yes", code=1)
    assert b"no parked record with the id 3" in done.stderr and done.stdout == b"1 record dropped\n"
    assert scene.run("drop", "--older-than", "1h", "--yes").stdout == b"0 records dropped\n"
    assert scene.run("drop", "--all", "--yes").stdout == b"2 records dropped\n"
    assert scene.ids("outbox_parked") == [] == scene.ids()


# -- replay: what it says of the order, and the tables ----------------------------------------------------------------


def test_a_replay_puts_back_what_was_parked(scene):
    table = TABLE_BYTEA.replace("leader_id", "more INT[] DEFAULT '{7}', twice INT GENERATED ALWAYS AS (id * 2) STORED, leader_id")
    scene.make(table)
    names = "create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values"
    for key, value in ("a", bytes(range(256))), ("b", None), ("a", b""):
        scene.write(key, value, headers=[("h", "x")])
    scene.database.execute("UPDATE outbox SET more = ARRAY[id, 2], leader_id = gen_random_uuid()")
    before = scene.database.execute("SELECT %s, more FROM outbox ORDER BY id" % names)
    scene.database.execute("WITH gone AS (DELETE FROM outbox RETURNING *) INSERT INTO outbox_parked (%s, more, twice, class, error, attempts, "
                           "failed_at, parked_at, place, noted_by) SELECT %s, more, twice, 'c', 'e', 1, now(), now(), id, (SELECT oid FROM pg_trigger "
                           "WHERE tgname = 'harvestd_parked') FROM gone"
                           % (COLUMN_NAMES, COLUMN_NAMES))
    assert scene.lines("replay", "--all", "--dry-run") == [
        {"id": i, "replayed": False, "new_id": None, "in_order": "yes"} for i in (1, 3, 2)] and scene.ids() == []
    assert scene.lines("replay", "--all") == [  # one key after the other
        {"id": i, "replayed": True, "new_id": n, "in_order": "yes"} for i, n in ((1, 4), (3, 6), (2, 5))]
    assert scene.database.execute("SELECT %s, more FROM outbox ORDER BY id" % names) == before
    assert scene.database.execute("SELECT id, twice, leader_id FROM outbox ORDER BY id") == [(4, 8, None), (5, 10, None), (6, 12, None)]
    assert scene.ids("outbox_parked") == []
    assert scene.run("replay", "--all").stdout == b"0 records replayed, 0 left parked\n"


def test_what_is_said_of_the_order(scene):
    scene.make()
    for key in "passed", "waits", "free", "passed", "waits", "other":
        scene.write(key)
    scene.park(1, 2, 3)
    scene.send(4)
    lines = {x["id"]: x for x in scene.lines("replay", "--all", "--dry-run", code=1)}
    assert {i: x["in_order"] for i, x in lines.items()} == {1: "no", 2: "unknown", 3: "yes"}
    assert lines[1]["reason"].startswith("4 ") and lines[2]["reason"].startswith("5 ")
    out = scene.run("replay", "--all", code=1)
    assert b"1 record replayed, 2 left parked\n" in out.stdout and b"--allow-reorder" in out.stderr
    assert scene.ids("outbox_parked") == [1, 2] and scene.ids() == [5, 6, 7]
    assert scene.verdicts("--all", "--allow-reorder") == {1: "no", 2: "unknown"}
    assert scene.ids() == [5, 6, 7, 8, 9] and scene.ids("outbox_parked") == []


def test_an_earlier_record_that_stays_parked(scene):
    """... is not passed without a word; and what was replayed before it passes nobody that was behind it."""
    scene.make()
    for n in range(6):
        scene.write("k")
    scene.park(1, 2, 3, 4, 5, 6)
    assert scene.verdicts("--id", "2,3", code=1) == {2: "unknown", 3: "unknown"}
    assert scene.verdicts("--id", "1,2") == {1: "yes", 2: "yes"}  # as 7 and 8
    assert scene.ids() == [7, 8]
    assert scene.verdicts("--id", "3", "--dry-run") == {3: "yes"}  # though 7 and 8 are there: they belong before it
    scene.send(7, 8)
    assert scene.verdicts("--id", "3") == {3: "yes"}
    scene.write("k")
    assert scene.verdicts("--id", "4", code=1) == {4: "unknown"}
    scene.send(*scene.ids())
    assert scene.verdicts("--all", code=1) == {4: "no", 5: "no", 6: "no"}
    assert scene.verdicts("--id", "5", "--allow-reorder") == {5: "no"}
    assert scene.run("drop", "--id", "4", "--yes").returncode == 0


def test_an_earlier_record_is_no_later_one_under_its_new_id(scene):
    """Also where it is not certain what else goes first."""
    scene.make()
    for n in range(3):
        scene.write("k")
    scene.park(1, 2)
    assert scene.verdicts("--id", "1", "--allow-reorder") == {1: "unknown"}  # as 4; 3 may have been sent
    scene.park(3)
    scene.send(4)
    assert scene.verdicts("--id", "2", code=1) == {2: "unknown"}  # 4 was 1; but nobody would have noted 3
    scene.send(scene.write("k"))
    assert scene.verdicts("--all", code=1) == {2: "no", 3: "no"}


def test_a_replayed_record_that_is_parked_again(scene):
    scene.make()
    scene.write("k")
    scene.write("k")
    scene.park(1, 2)
    assert scene.verdicts("--id", "1") == {1: "yes"}
    new = scene.ids()[0]
    scene.park(new)
    assert scene.verdicts("--id", "2", code=1) == {2: "unknown"}  # its predecessor stays behind, again
    assert list(scene.verdicts("--all").items()) == [(new, "yes"), (2, "yes")]  # in the order of their places


def test_nothing_is_claimed_without_evidence(scene):
    scene.make(trigger=False)
    scene.park(scene.write("a"))
    assert scene.verdicts("--all", code=1) == {1: "unknown"}
    scene.database.execute(scene.schema())
    assert scene.verdicts("--all", code=1) == {1: "unknown"}  # who knows what was before?
    scene.park(scene.write("b"))
    assert scene.verdicts("--all", "--dry-run", code=1) == {1: "unknown", 2: "yes"}
    scene.database.execute("ALTER TABLE outbox DISABLE TRIGGER harvestd_parked")
    assert scene.verdicts("--all", code=1) == {1: "unknown", 2: "unknown"}
    scene.database.execute("ALTER TABLE outbox ENABLE TRIGGER harvestd_parked")
    scene.run("drop", "--id", 1, "--yes")
    scene.database.execute("ALTER SEQUENCE outbox_id_seq CACHE 10")
    assert scene.verdicts("--all", code=1) == {2: "unknown"}
    scene.database.execute("ALTER SEQUENCE outbox_id_seq CACHE 1 RESTART 1")
    assert b"setval" in scene.run("replay", "--all", code=1).stderr and scene.ids("outbox_parked") == [2] and scene.ids() == []
    scene.database.execute("SELECT setval('outbox_id_seq', 2)")
    assert scene.verdicts("--all") == {2: "yes"}


def test_ids_of_other_origin(scene):
    """Identity columns, partitions, no default at all, a schema of its own."""
    body = COLUMNS.replace("BIGSERIAL", "INT GENERATED ALWAYS AS IDENTITY").replace("PRIMARY KEY", "")
    scene.make("CREATE TABLE outbox (%s, PRIMARY KEY (id, create_time)) PARTITION BY RANGE (create_time); "
               "CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM ('2000-01-01') TO ('2900-01-01')" % body)
    for key in "abab":
        scene.write(key)
    scene.park(1, 2)
    scene.send(3)
    assert scene.verdicts("--all", code=1) == {1: "no", 2: "unknown"}
    scene.send(4)
    assert scene.verdicts("--all", code=1) == {1: "no", 2: "no"}
    assert scene.verdicts("--all", "--allow-reorder") == {1: "no", 2: "no"} and scene.ids() == [5, 6]
    scene.make(TABLE.replace("BIGSERIAL", "BIGINT"))
    scene.database.execute("INSERT INTO outbox VALUES (5, now(), 't', 'k', NULL, '{}', '{}')")
    scene.park(5)
    assert b"--keep-id" in scene.run("replay", "--all", code=1).stderr
    assert scene.verdicts("--all", "--keep-id", code=1) == {5: "unknown"}
    assert scene.verdicts("--all", "--keep-id", "--allow-reorder") == {5: "unknown"} and scene.ids() == [5]
    name = '"My Schema"."Out.""Box"'
    scene.make('CREATE SCHEMA "My Schema"; CREATE TABLE %s (%s)' % (name, COLUMNS), name=name)
    scene.database.execute('INSERT INTO %s (create_time, kafka_topic, kafka_key, kafka_header_keys, kafka_header_values) '
                           "VALUES (now(), 't', 'k', '{}', '{}')" % name)
    scene.database.execute('WITH gone AS (DELETE FROM %s RETURNING *) INSERT INTO "My Schema"."Out.""Box_parked" '
                           "SELECT *, 'c', 'e', 1, now(), now(), id, NULL, (SELECT oid FROM pg_trigger WHERE tgname = 'harvestd_parked') FROM gone" % name)
    assert scene.verdicts("--all") == {1: "yes"} and scene.ids(name) == [2]


def test_many_at_once(scene):
    """In several transactions, and in the order of each key."""
    scene.make()
    scene.database.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) "
                           "SELECT now(), 't', 'key-' || i % 7, i::text, '{}', '{}' FROM generate_series(1, 1700) AS i")
    scene.park(*range(1, 1701))
    assert set(scene.verdicts("--all", "--dry-run").values()) == {"yes"}
    assert set(scene.verdicts("--all", "--limit", "600").values()) == {"yes"}
    lines = scene.lines("replay", "--all")
    assert len(lines) == 1100 and {x["in_order"] for x in lines} == {"yes"}
    replayed = [int(v) for (v,) in scene.database.execute("SELECT kafka_value FROM outbox ORDER BY id")]
    assert sorted(replayed) == list(range(1, 1701))
    assert all([x for x in replayed if x % 7 == k] == [x for x in range(1, 1701) if x % 7 == k] for k in range(7))


def test_writers_and_replays_wait_for_each_other(scene):
    """A writer that has not committed may be of the key; so it is waited for, and seen. One that stays for long is told of."""
    scene.make()
    scene.park(scene.write("k"))
    with scene.database.connect(autocommit=False) as writer:
        scene.write("k", connection=writer)
        assert b"try again when they have ended" in scene.run("replay", "--all", code=1).stderr
        process = subprocess.Popen(scene.argv("replay", "--all", "--json"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        wait_until(lambda: scene.database.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'outbox'::regclass"), 30,
                   "the replay to wait for the writer")
        writer.commit()
        assert json.loads(process.communicate(timeout=30)[0])["in_order"] == "unknown" and process.returncode == 1


# -- with the daemon --------------------------------------------------------------------------------------------------


class Bursts(threading.Thread):
    """Writes bursts of a few records for each key, some to a topic that there cannot be, which hold up their key until they are parked."""

    def __init__(self, scene, topic, keys, rng):
        super().__init__(daemon=True)
        self.scene, self.topic, self.keys, self.random = scene, topic, keys, rng
        self.stopping, self.written, self.failed = threading.Event(), {k: 0 for k in keys}, None

    def run(self):
        try:
            with self.scene.database.connect(autocommit=False) as c:
                while not self.stopping.wait(self.random.random() * 0.05):
                    key = self.random.choice(self.keys)
                    for _ in range(self.random.randint(1, 3)):
                        self.written[key] += 1
                        bad = self.random.random() < 0.2
                        self.scene.write(key, str(self.written[key]), "no topic" if bad else self.topic, connection=c)
                    c.commit()
        except Exception as e:  # noqa: BLE001
            self.failed = e


@pytest.mark.parametrize("strategy", ["mark", "cursor"])
def test_what_a_replay_says_is_true(bed, scene, strategy):
    """A daemon under writes; what holds up a key is parked, mended, and replayed again and again. A record that was said to be in order
    arrives before all later ones of its key; one that was passed does not. At last one goes back under its old id, below what the daemon
    has seen."""
    topic = bed.topic(partitions=2)
    scene.make(servers=bed.kafka.servers)
    collector = bed.collector(topic)
    bed.harvestd(scene.database, harvest={"claim": strategy}, limits={"rescan_interval": "2s"})
    keys = ["key-%d" % n for n in range(30)]
    writers = [Bursts(scene, topic, keys[n::2], bed.random) for n in range(2)]
    for w in writers:
        w.start()
    claims, values = {}, {}

    def park_and_mend():
        rows = scene.database.execute("SELECT id, kafka_key, kafka_value FROM outbox WHERE kafka_topic = 'no topic'")
        if rows:
            scene.park(*[i for i, _, _ in rows])
            values.update({i: (k, int(v)) for i, k, v in rows})
        scene.database.execute("UPDATE outbox_parked SET kafka_topic = %s", [topic])

    def replay(*arguments):
        done = subprocess.run(scene.argv("replay", *arguments, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode in (0, 1), done.stderr
        for line in map(json.loads, done.stdout.decode().splitlines()):
            if line["replayed"]:
                claims[values[line["id"]]] = line["in_order"]
    end = time.monotonic() + 60
    while time.monotonic() < end and min(list(claims.values()).count(v) for v in ("yes", "no")) < 5:
        park_and_mend()
        replay("--all")
        replay("--id", ",".join(map(str, bed.random.sample(sorted(values), min(2, len(values))) or [0])), "--allow-reorder")
    for w in writers:
        w.stopping.set()
        w.join(timeout=30)
        assert w.failed is None, w.failed
    wait_until(lambda: park_and_mend() or scene.database.count() == 0, 60, "the outbox to be empty")
    replay("--all", "--allow-reorder")
    bed.wait_empty(scene.database)
    old = scene.write(keys[0], "%d" % (writers[0].written[keys[0]] + 1), "no topic")
    writers[0].written[keys[0]] += 1
    park_and_mend()
    replay("--id", old, "--keep-id")
    assert scene.ids("outbox_parked") == [old]
    replay("--id", old, "--keep-id", "--allow-reorder")
    bed.wait_empty(scene.database)

    arrived = {}
    for m in collector.read_to_end():
        order = arrived.setdefault(m.key.decode(), [])
        if int(m.value) not in order:
            order.append(int(m.value))
    assert {k: sorted(v) for k, v in arrived.items()} == {
        k: list(range(1, n + 1)) for w in writers for k, n in w.written.items() if n > 0}
    told = {v: sorted(x for x, y in claims.items() if y == v) for v in ("yes", "no", "unknown")}
    bed.note("replayed: " + ", ".join("%s %d" % (v, len(x)) for v, x in told.items()))
    assert told["yes"] and told["no"]
    for key, order in arrived.items():
        for at, seq in enumerate(order):
            later_before = [s for s in order[:at] if s > seq]
            claim = claims.get((key, seq))
            if claim in ("yes", None):  # never replayed: the daemon's own promise, but for what was reordered before it
                assert not [s for s in later_before if claims.get((key, s)) in ("yes", None)], (key, seq, order)
                assert claim is None or not later_before, (key, seq, order)
            elif claim == "no":
                # or what was put behind it, out of order itself
                assert later_before or [s for s in order[:at] if claims.get((key, s)) in ("no", "unknown")], (key, seq, order)
