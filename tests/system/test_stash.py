"""harvestd stash: what was given to it arrives in Kafka, unchanged; what is wrong leaves nothing half done."""
import base64
import json
import os
import pty
import re
import select
import subprocess

import pytest

from bed.checker import Truth, check
from bed.daemon import command, run_once, write_ini
from bed.postgres import COLUMNS, PASSWORD, TABLE_BYTEA
from bed.util import free_port, wait_until

ODD = ["", " ", "NULL", "null", "a,b", '"quoted"', "back\\slash", "\\x41", "{}", '{a,"b"}', "it''s", "$1", "%s", "\n\r\t\x01\x7f",
       "äöü€😀", "é", "\\", "'; DROP TABLE outbox; --", "  padded  "]


@pytest.fixture
def stash(bed, tmp_path):
    """stash(database, arguments, lines) runs it; stash.argv(database) is the command."""
    def argv(database, *arguments, **sections):
        path = str(tmp_path / "stash.ini")
        write_ini(path, bed.settings(database, **sections))
        return command() + ["stash", "-c", path] + list(arguments)

    def run(database, *arguments, lines=None, **sections):
        data = lines if isinstance(lines, bytes) or lines is None else "".join(
            (x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines).encode()
        done = subprocess.run(argv(database, *arguments, **sections), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=90,
                              **({"stdin": subprocess.DEVNULL} if data is None else {"input": data}))
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        assert PASSWORD not in done.stdout + done.stderr
        return done
    run.argv = argv
    return run


def written(done, count, code=0):
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == "%d record%s written\n" % (count, "" if count == 1 else "s")
    if code == 0:
        assert done.stderr == ""   # progress is for terminals
    return done


def expect(collector, expected):
    """Between keys there is no order."""
    assert sorted(((m.topic, m.key, m.value, m.headers) for m in collector.read_to_end()), key=repr) == sorted(expected, key=repr)


# -- one record -------------------------------------------------------------------------------------------------------


def test_a_record_from_options(bed, stash, tmp_path):
    database, topic = bed.database(TABLE_BYTEA), bed.topic(partitions=1)
    collector = bed.collector(topic)
    bed.harvestd(database)
    expected = []
    for text in ODD:
        written(stash(database, "--topic", topic, "--key", text, "--value", text, "--header", "a=" + text, "-H", "=x"), 1)
        expected.append((topic, text.encode(), text.encode(), (("a", text.encode()), ("", b"x"))))
    written(stash(database, "-t", topic, "-k", "k", "--null"), 1)
    expected.append((topic, b"k", None, ()))
    raw = bytes(range(256)) * 500 + b"\n"
    (tmp_path / "value").write_bytes(raw)
    written(stash(database, "-t", topic, "-k", "k", "--value-file", str(tmp_path / "value")), 1)
    written(stash(database, "-t", topic, "-k", "k", "--value-file", "-", lines=raw), 1)
    written(stash(database, "-t", topic, "-k", "k", "--value-file", "/dev/null"), 1)
    expected += [(topic, b"k", raw, ()), (topic, b"k", raw, ()), (topic, b"k", b"", ())]
    bed.wait_empty(database)
    expect(collector, expected)


@pytest.mark.parametrize("arguments", [
    ["--topic", "t"] + ["--value", "x"], ["-t", "t", "-k", "k"], ["-t", "t", "-k", "k", "--null", "--value", ""],
    ["-t", "t", "-k", "k", "--null", "-H", "a"], ["--batch", "none"], ["--vaule", "x"], ["extra"],
])
def test_wrong_use(bed, stash, arguments):
    done = stash(bed.database(), *arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("harvestd: ")


def test_what_cannot_be_written_says_so(bed, stash):
    database = bed.database()
    for arguments, says in ((["-t", "a b", "-k", "k", "--null"], "topic"),
                            (["-t", "t", "-k", "k" * 101, "--null"], "101 characters"),
                            (["-t", "t", "-k", "k", "--value-file", "/nowhere"], "/nowhere"),
                            (["-t", "t", "-k", "k", "--value-file", "/bin/sh"], "BYTEA")):
        done = stash(database, *arguments)
        assert done.returncode == 1 and says in done.stderr and done.stdout == "", done.stderr
    done = stash(database, "-t", "t", "-k", "k", "--null", harvest={"outbox_table": "elsewhere"})
    assert done.returncode == 1 and 'no table "elsewhere"' in done.stderr
    done = stash(None, "-t", "t", "-k", "k", "--null", data_source=bed.postgres.data_source(port=free_port()))
    assert done.returncode == 1 and "no connection" in done.stderr and "host=127.0.0.1" in done.stderr
    assert database.count() == 0


# -- JSON lines -------------------------------------------------------------------------------------------------------


def test_json_lines_arrive_unchanged(bed, stash):
    """Into a table with a hostile name and a BYTEA column; the last line lacks its end."""
    database, topic = bed.database(table=None), bed.topic(partitions=1)
    table = '"My Schema"."Out.""Box"'
    database.execute('CREATE SCHEMA "My Schema"; CREATE TABLE %s (%s)' % (
        table, COLUMNS.replace("VARCHAR(10000)", "BYTEA")))
    collector = bed.collector(topic)
    bed.harvestd(database, harvest={"outbox_table": table})
    lines, expected = [], []
    for text in ODD:
        for value in (text, None):
            lines.append({"topic": topic, "key": text, "value": value, "headers": [[t, t[::-1]] for t in ODD]})
            expected.append((topic, text.encode(), value if value is None else value.encode(),
                             tuple((t, t[::-1].encode()) for t in ODD)))
    raw = bytes(range(256)) * 40
    lines.append({"topic": topic, "key_base64": base64.b64encode(b"k").decode(),
                  "value_base64": base64.b64encode(raw).decode(), "headers": {"z": "1", "a": "2"}})
    expected.append((topic, b"k", raw, (("z", b"1"), ("a", b"2"))))
    lines += ["", " \t\r", json.dumps({"key": "k", "value": "a\0b", "topic": topic}, ensure_ascii=True)]
    expected.append((topic, b"k", b"a\0b", ()))
    data = "\n".join(x if isinstance(x, str) else json.dumps(x, ensure_ascii=n % 2 == 0) for n, x in enumerate(lines)).encode()
    written(stash(database, lines=data, harvest={"outbox_table": table}), len(expected))
    bed.wait_empty(database, table=table)
    expect(collector, expected)


def test_20000_json_lines(bed, stash):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database)
    lines = [{"key": "key-%d" % (n % 100), "value": "%d %s" % (n, "x" * 100)} for n in range(20000)]
    written(stash(database, "--topic", topic, lines=lines), 20000)
    bed.wait_empty(database, deadline=120)
    seen = {}
    for m in collector.read_to_end(deadline=60):
        seen.setdefault(m.key, []).append(int(m.value.split()[0]))
    assert seen == {b"key-%d" % k: list(range(k, 20000, 100)) for k in range(100)}


@pytest.mark.parametrize("bad, says", [
    ("{\"topic\": \"t\"", "no JSON"),
    ({"topic": "t", "key": "k", "vaule": "v"}, "did you mean value"),
    ({"topic": "t", "key": "k" * 101, "value": "v"}, "101 characters"),
    ({"topic": "t", "key": "k", "value": "a\0b"}, "zero byte"),
    ({"topic": "t", "key": "refused", "value": "v"}, "check constraint"),
], ids=["JSON", "member", "length", "zero", "server"])
def test_a_bad_line_in_the_middle(bed, stash, bad, says):
    """What was committed before it stays, the rest of its transaction never arrives; from the line that is told on, it can be
    gone on with, and then everything has arrived once."""
    database, topic = bed.database(), bed.topic(partitions=1)
    database.execute("ALTER TABLE outbox ADD CHECK (kafka_key <> 'refused')")
    collector = bed.collector(topic)
    bed.harvestd(database)
    lines = [{"topic": topic, "key": "k", "value": "%d" % n} for n in range(1, 101)]
    lines[56] = bad
    done = written(stash(database, "--batch", "10", lines=lines), 50, code=1)
    assert "line 57: " in done.stderr and says in done.stderr
    go_on = int(re.search(r"go on with that line|all before line (\d+)", done.stderr).group(1))
    assert go_on == 51
    bed.wait_empty(database)
    assert [m.value for m in collector.read_to_end()] == [b"%d" % n for n in range(1, 51)]

    lines[56] = {"topic": topic, "key": "k", "value": "57"}
    written(stash(database, "--batch", "10", lines=lines[go_on - 1:]), 50)
    bed.wait_empty(database)
    assert [m.value for m in collector.read_to_end()] == [b"%d" % n for n in range(1, 101)]


def test_a_bad_first_line(bed, stash):
    database = bed.database()
    done = written(stash(database, lines=["nonsense"]), 0, code=1)
    assert "line 1: " in done.stderr and "nothing was written" in done.stderr
    written(stash(database, lines=[]), 0)
    assert database.count() == 0


def test_commit_that_fails(bed, stash):
    """A constraint that is looked at only then."""
    database = bed.database()
    database.execute("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.kafka_key = 'k13' THEN RAISE EXCEPTION 'not at the end'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        EXECUTE FUNCTION refuse()""")
    lines = [{"topic": "t", "key": "k%d" % n, "value": None} for n in range(1, 21)]
    done = written(stash(database, "--batch", "5", lines=lines), 10, code=1)
    assert "lines 11 to 15: " in done.stderr and "not at the end" in done.stderr and "they are not" in done.stderr
    assert database.count() == 10


def test_dry_run(bed, stash):
    database = bed.database()
    done = stash(database, "--dry-run", lines=[{"topic": "t", "key": "k", "value": "v"}] * 30)
    assert done.returncode == 0 and done.stdout == "30 records would have been written\n"
    done = stash(database, "--dry-run", "-t", "t", "-k", "k", "--null")
    assert done.returncode == 0 and done.stdout == "1 record would have been written\n"
    done = stash(database, "--dry-run", lines=[{"topic": "t", "key": "k" * 101, "value": "v"}])
    assert done.returncode == 1 and "line 1: " in done.stderr
    assert database.count() == 0


# -- while input lasts ------------------------------------------------------------------------------------------------


def start(argv, **options):
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def feed(process, key, count=1):
    process.stdin.write(b'{"topic": "t", "key": "%s", "value": null}\n' % key.encode() * count)
    process.stdin.flush()


def test_lines_are_committed_when_the_input_pauses(bed, stash):
    database = bed.database()
    process = start(stash.argv(database))
    feed(process, "a")
    wait_until(lambda: database.count() == 1, 30, "the first line to be committed while the input is open")
    feed(process, "b", 2500)
    wait_until(lambda: database.count() == 2501, 30, "more lines to be committed")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"2501 records written\n", b"")


def test_a_batch_is_exactly_what_was_asked_for(bed, stash):
    """Also when the input pauses within it; and what is killed within one leaves nothing of it."""
    database = bed.database()
    process = start(stash.argv(database, "--batch", "3"))
    feed(process, "a", 2)
    in_transaction = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    wait_until(lambda: database.execute(in_transaction)[0][0] == 1, 30, "an open transaction")
    assert database.count() == 0
    feed(process, "a", 2)
    wait_until(lambda: database.count() == 3, 30, "a whole batch")
    wait_until(lambda: database.execute(in_transaction)[0][0] == 1, 30, "the next transaction")
    process.kill()
    process.communicate()
    wait_until(lambda: not database.sessions(), 30, "the end of its session")
    assert database.count() == 3


def test_progress_is_for_terminals(bed, stash):
    database = bed.database()
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(stash.argv(database), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave)
        feed(process, "a")
        wait_until(lambda: database.count() == 1, 30, "a line to be committed")
        feed(process, "b")
        out, _ = process.communicate(timeout=30)
        assert out == b"2 records written\n" and process.returncode == 0
        seen = b""
        while not seen.endswith(b"\r\x1b[K") and select.select([master], [], [], 5)[0]:   # a terminal hands on when it likes
            seen += os.read(master, 10000)
        assert b"\r1 records" in seen and seen.endswith(b"\r\x1b[K")
    finally:
        os.close(master)
        os.close(slave)


def test_the_connection_is_lost(bed, stash):
    database = bed.database()
    process = start(stash.argv(database, "--batch", "2"))
    feed(process, "a", 3)
    wait_until(lambda: database.count() == 2, 30, "a whole batch")
    database.execute("SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'harvestd stash' "
                     "AND datname = current_database()")
    feed(process, "a", 1)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and out == b"2 records written\n"
    assert b"line 4: " in err and b"all before line 3 is written" in err
    assert database.count() == 2


def test_no_row_arrives_of_what_is_rolled_back(bed, stash):
    """Beside others that commit at the same time."""
    database, topic = bed.database(), bed.topic(partitions=1)
    collector = bed.collector(topic)
    bed.harvestd(database).wait_leading()
    truth = Truth()
    for n in range(5):
        stash(database, "--batch", "1000", lines=[{"topic": topic, "key": "k", "value": "gone"}] * 50 + ["bad"])
        bed.write(database, topic, "k", "stays %d" % n, truth=truth)
    bed.wait_empty(database)
    check(truth, collector.read_to_end()).assert_ok(duplicates=0)
    assert collector.values() == [b"stays %d" % n for n in range(5)]


# -- through a pooler -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_through_a_pooler(bed, stash, mode):
    database = bed.database()
    pooler = bed.pgbouncer(mode)
    source = pooler.data_source(database)
    lines = [{"topic": "t", "key": "k", "value": text} for text in ODD]
    written(stash(None, "--batch", "2", lines=lines, data_source=source), len(ODD))
    written(stash(None, "-t", "t", "-k", "k", "--value", "ä", data_source=source), 1)
    assert [v for (v,) in database.execute("SELECT kafka_value FROM outbox ORDER BY id")] == ODD + ["ä"]


def test_a_pooler_without_transactions(bed, stash):
    database = bed.database()
    done = stash(None, "-t", "t", "-k", "k", "--null", data_source=bed.pgbouncer("statement").data_source(database))
    assert done.returncode == 1 and "transaction blocks not allowed" in done.stderr and database.count() == 0


def test_help_tells_of_the_lines():
    done = run_once("stash", "--help")
    assert done.returncode == 0 and '"topic"' in done.stdout and "base64" in done.stdout and "--batch" in done.stdout
