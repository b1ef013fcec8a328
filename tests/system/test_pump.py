"""harvestd pump: what it writes arrives as it says, and --verify notices what is wrong. Wrongs are planted: rows are
deleted before the relay sees them, records are produced with a client of our own."""
import itertools
import json
import re
import signal
import subprocess
from collections import Counter, defaultdict

import pytest
from confluent_kafka import Producer

from bed import readme
from bed.daemon import command, run_once, write_ini
from bed.util import free_port, wait_until

DEADLINE = 90


@pytest.fixture
def pump(bed, tmp_path):
    """pump(database, *options): what ended, with the summary as .summary."""
    def run(database, *options, **sections):
        done = run_once("pump", "-c", ini(database, **sections), "--json", *map(str, options), timeout=DEADLINE)
        print(done.stdout, done.stderr)
        done.summary = json.loads(done.stdout)
        return done

    def ini(database, **sections):
        path = str(tmp_path / ("pump-%d.ini" % next(numbered)))
        write_ini(path, bed.settings(database, **sections))
        return path
    numbered = itertools.count()
    run.ini = ini
    return run


@pytest.fixture
def running(pump):
    """A pump that is still at work: running(database, *options). It is verified and prints JSON."""
    processes = []

    def start(database, *options):
        process = subprocess.Popen(command() + ["pump", "-c", pump.ini(database), "--json", "--verify",
                                               "--verify-linger", "200ms", *map(str, options)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process
    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        print(*process.communicate())


def end_of(process):
    """(exit code, verified part of the summary)"""
    out, err = process.communicate(timeout=DEADLINE)
    print(out, err)
    return process.returncode, json.loads(out)["verify"]


def header(message, name):
    (value,) = [v for n, v in message.headers if n == name]
    return value.decode()


def numbers(messages):
    """{key: [Seq, ...]} in order of arrival"""
    found = defaultdict(list)
    for m in messages:
        found[m.key.decode()].append(int(header(m, "Seq")))
    return found


class Hand:
    """Takes rows out of the table and produces them itself, in whatever way."""

    def __init__(self, bed, database):
        self.database = database
        self.producer = Producer({"bootstrap.servers": bed.kafka.servers, "log_level": 0})

    def rows(self, count):
        """All rows, once there are so many."""
        wait_until(lambda: self.database.count() == count, DEADLINE, "%d rows" % count)
        return self.database.execute("SELECT id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values "
                                     "FROM outbox ORDER BY id")

    def produce(self, row, value=None, key=None):
        _, topic, own_key, own_value, names, values = row
        self.producer.produce(topic, key=key or own_key, value=value or own_value, headers=list(zip(names, values)))
        assert self.producer.flush(30) == 0

    def delete(self, row):
        self.database.execute("DELETE FROM outbox WHERE id = %d" % row[0])


# -- what it writes ----------------------------------------------------------------------------------------------------


def test_everything_arrives_and_an_independent_consumer_agrees(bed, pump):
    database, topics = bed.database(), [bed.topic(), bed.topic()]
    collector = bed.collector(topics)
    bed.harvestd(database).wait_leading()
    bed.write(database, topics[0], "k", "from before")
    collector.wait_value("from before")
    done = pump(database, "-t", topics[0], "-t", topics[1], "-n", 5003, "--keys", 7, "--connections", 3, "--blank", 10,
                "--rollback", 20, "--verify")
    assert done.returncode == 0
    s, v = done.summary, done.summary["verify"]
    assert s["good"] and s["written"] == v["arrived"] == 5003 and s["unknown"] == 0 and s["failure"] is None
    assert [v[n] for n in ("lost", "out_of_order", "corrupted", "phantom", "invented", "foreign")] == [0] * 6
    assert s["rolled_back"] > 0 and s["rolled_back_transactions"] > 0
    assert 0 < v["latency_ms"]["p50"] <= v["latency_ms"]["p90"] <= v["latency_ms"]["p99"] <= v["latency_ms"]["max"]

    messages = collector.read_to_end()[1:]
    assert len(messages) == 5003 + v["duplicates"]
    assert {m.key.decode() for m in messages} == {"pump-%d" % k for k in range(7)}
    for key, found in numbers(messages).items():
        assert v["duplicates"] or found == sorted(found), key
    assert {m.topic for m in messages} == set(topics)
    assert len({(m.key, m.topic) for m in messages}) == 7          # a key stays in one topic
    assert all(m.value is None or len(m.value) == 200 for m in messages)
    blank = sum(m.value is None for m in messages)
    assert 250 < blank < 750, blank                                # 10 % of 5003: 500 +- 21
    assert database.count() == 0


def test_each_key_is_written_by_one_connection(bed, pump):
    """Each INSERT leaves its backend's process id in the row."""
    database = bed.database()
    database.execute("ALTER TABLE outbox ADD writer INT NOT NULL DEFAULT pg_backend_pid()")
    assert pump(database, "-t", "t", "-n", 2000, "--keys", 10, "--connections", 4).returncode == 0
    rows = database.execute("SELECT kafka_key, array_agg(DISTINCT writer) FROM outbox GROUP BY 1")
    assert len(rows) == 10 and all(len(writers) == 1 for _, writers in rows)
    assert len({writers[0] for _, writers in rows}) == 4


def test_numbers_rise_with_the_ids_and_transactions_are_as_large_as_told(bed, pump):
    database = bed.database()
    done = pump(database, "-t", "t", "-n", 1010, "--transaction", 50, "--value-size", 1000, "--connections", 2)
    assert done.returncode == 0 and done.summary["transactions"] == 21 and done.summary["verify"] is None
    rows = database.execute("SELECT kafka_key, kafka_header_values[1]::int, length(kafka_value) FROM outbox ORDER BY id")
    found = defaultdict(list)
    for key, seq, size in rows:
        found[key].append(seq)
        assert size == 1000
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in found.values()) and len(found) == 10
    sizes = Counter(x for x, in database.execute("SELECT xmin::text FROM outbox"))
    assert sorted(sizes.values()) == [10] + [50] * 20


def test_all_blank_into_bytea(bed, pump):
    database = bed.database()
    database.execute("ALTER TABLE outbox ALTER kafka_value TYPE BYTEA USING NULL")
    assert pump(database, "-t", "t", "-n", 40, "--blank", 100).returncode == 0
    assert pump(database, "-t", "t", "-n", 60, "--value-size", 300).returncode == 0
    assert database.execute("SELECT length(kafka_value), count(*) FROM outbox GROUP BY 1 ORDER BY 1") == [(300, 60), (None, 40)]


def test_rate_and_duration(bed, pump):
    """By the database's own clock: 1000 a second is not less than 0.9 s for 1000 records, whatever the machine does."""
    database = bed.database()
    assert pump(database, "-t", "t", "-n", 1000, "--rate", 1000, "--transaction", 10).returncode == 0
    ((took,),) = database.execute("SELECT extract(epoch FROM max(create_time) - min(create_time)) FROM outbox")
    assert took > 0.9
    done = pump(database, "-t", "t", "--duration", "500ms", "--interval", "10ms", "--connections", 2, "--transaction", 1)
    assert done.returncode == 0 and 1 <= done.summary["written"] <= 102


def test_what_the_readme_shows(bed, pump):
    (shown,) = re.findall(r"<!-- pump -->\n```sh\n(.*?)\n```\n\n<!-- pump-output -->\n```\n(.*?)```\n", readme.text(), re.S)
    words = shown[0].split()
    assert words[:4] == ["harvestd", "pump", "-c", "harvestd.ini"]
    if "load" not in bed.kafka.topics():
        bed.kafka.create_topic("load")
    database = bed.database()
    bed.harvestd(database).wait_leading()
    done = run_once("pump", "-c", pump.ini(database), *words[4:], timeout=DEADLINE)
    print(done.stdout, done.stderr)
    assert done.returncode == 0

    def shape(text):
        return [re.sub(r"[\d.]+", "0", line) for line in text.splitlines()]
    assert shape(done.stdout) == shape(shown[1])


# -- what it notices ---------------------------------------------------------------------------------------------------


def test_a_lost_record_is_noticed(bed, running):
    database, topic = bed.database(), bed.topic()
    hand = Hand(bed, database)
    process = running(database, "-t", topic, "-n", 20, "--keys", 1, "--verify-timeout", "3s")
    hand.delete(hand.rows(20)[7])
    bed.harvestd(database)
    code, verify = end_of(process)
    assert code == 1
    assert verify["lost"] == 1 and verify["arrived"] == 19 and verify["timed_out"] and verify["out_of_order"] == 0


def test_a_duplicate_is_counted_and_allowed(bed, running):
    database, topic = bed.database(), bed.topic()
    hand = Hand(bed, database)
    process = running(database, "-t", topic, "-n", 5, "--keys", 1)
    rows = hand.rows(5)
    hand.produce(rows[0])
    collector = bed.collector(topic)
    collector.wait_count(1)
    bed.harvestd(database)
    code, verify = end_of(process)
    assert code == 0
    assert verify["duplicates"] == 1 and verify["arrived"] == 5 and verify["lost"] == 0


def test_overtaking_is_noticed(bed, running):
    database, topic = bed.database(), bed.topic()
    hand = Hand(bed, database)
    process = running(database, "-t", topic, "-n", 4, "--keys", 1)
    rows = hand.rows(4)
    for i in 0, 2, 1, 3:
        hand.produce(rows[i])
    code, verify = end_of(process)
    assert code == 1
    assert verify["out_of_order"] == 1 and verify["arrived"] == 4 and verify["lost"] == verify["duplicates"] == 0


def test_corruption_and_inventions_are_noticed(bed, running):
    """Another value; another key; headers of other records; a phantom (its mark says that it was to be rolled back)."""
    database, topic = bed.database(), bed.topic(partitions=1)
    hand = Hand(bed, database)
    process = running(database, "-t", topic, "-n", 3, "--keys", 1)
    rows = hand.rows(3)
    hand.produce(rows[0], value="x" * 200)
    hand.produce(rows[1], key="pump-1")
    run, key, _, rest = rows[2][5][1].split("-", 3)
    hand.produce(rows[2][:5] + (["2", "-".join([run, key, "r", rest])],))     # the checksum covers Seq
    hand.produce(rows[2][:5] + (["3", "-".join([run, key, "r", rest])],))
    hand.produce(rows[2][:5] + (["3", "-".join(["0" * 16, key, "c", rest])],))
    hand.produce(rows[2][:4] + ([], []))
    for row in rows:
        hand.produce(row)
    code, verify = end_of(process)
    assert code == 1
    assert verify["corrupted"] == 3 and verify["phantom"] == 1 and verify["foreign"] == 2
    assert verify["lost"] == verify["duplicates"] == 0 and verify["arrived"] == 3


def test_nobody_delivers(bed, pump):
    database, topic = bed.database(), bed.topic()
    done = pump(database, "-t", topic, "-n", 100, "--verify", "--verify-timeout", "500ms")
    assert done.returncode == 1 and done.summary["verify"]["lost"] == 100 and done.summary["verify"]["timed_out"]
    assert database.count() == 100


def test_memory_is_bounded(bed, pump):
    """64 KiB are some 6000 records: writing waits for arrivals, and not without end."""
    database, topic = bed.database(), bed.topic()
    options = ["-t", topic, "-n", 20000, "--transaction", 500, "--verify", "--verify-memory", "64KiB"]
    done = pump(database, *options, "--verify-timeout", "500ms")
    assert done.returncode == 1 and done.summary["verify"]["timed_out"]
    assert 3000 <= done.summary["written"] == done.summary["verify"]["lost"] == database.count() <= 8000
    bed.harvestd(database)
    done = pump(database, *options)
    assert done.returncode == 0 and done.summary["verify"]["arrived"] == 20000


def test_runs_do_not_disturb_each_other(bed, running):
    """What an old run left in topic and table, and what another one writes to the same keys at the same time."""
    database, topic = bed.database(), bed.topic()
    bed.harvestd(database).wait_leading()
    assert end_of(running(database, "-t", topic, "-n", 500))[0] == 0
    processes = [running(database, "-t", topic, "-n", 3000, "--rate", 3000) for _ in range(2)]
    for process in processes:
        code, verify = end_of(process)
        assert code == 0 and verify["arrived"] == 3000


def test_a_signal_ends_writing_and_what_was_written_is_verified(bed, running):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database).wait_leading()
    process = running(database, "-t", topic, "--duration", "1h", "--rate", 1000)
    collector.wait_count(500)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    summary = json.loads(out)
    assert process.returncode == 0, err
    assert summary["interrupted"] and summary["written"] == summary["verify"]["arrived"] >= 500
    assert len(collector.read_to_end()) == summary["written"] + summary["verify"]["duplicates"]


def test_a_second_signal_ends_waiting(bed, running):
    database, topic = bed.database(), bed.topic()
    process = running(database, "-t", topic, "-n", 100, "--verify-timeout", "1h")
    wait_until(lambda: database.count() == 100, 20, "the rows")
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    code, verify = end_of(process)
    assert code == 1 and verify["lost"] == 100


def test_the_database_restarts(bed, pump, running):
    """Whatever was out is written again, or nobody knows: nothing is lost or repeated without being told."""
    server = bed.own_postgres()
    database, topic = bed.database(server=server), bed.topic()
    collector = bed.collector(topic)
    bed.harvestd(database).wait_leading()
    process = running(database, "-t", topic, "-n", 4000, "--rate", 2000, "--connections", 2)
    collector.wait_count(500)
    server.stop("immediate")
    server.start()
    code, verify = end_of(process)
    assert code == 0 and verify["arrived"] >= 4000 - 100


# -- wrong use, and what cannot work -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options, says", [
    ([], "--topic is missing"),
    (["-t", "a b"], "'a b' is no name of a topic"),
    (["-t", "a", "--topic", "a"], "--topic a is given twice"),
    (["-t", "a", "--keys", "2", "--connections", "3"], "--keys: 2 are too few"),
    (["-t", "a", "-t", "b", "--keys", "1"], "--keys: 1 are too few"),
    (["-t", "a", "--rate", "1", "--interval", "1s"], "--rate and --interval"),
    (["-t", "a", "--blank", "101"], "--blank: '101' is out of range; it is 0 to 100"),
    (["-t", "a", "--records", "many"], "--records: 'many' is not a number"),
    (["-t", "a", "--records"], "--records needs a value: N"),
    (["-t", "a", "--recrods", "5"], "did you mean --records?"),
    (["-t", "a", "--duration", "5"], "--duration: '5' is not a duration"),
    (["-t", "a", "--verify=yes"], "--verify takes no value"),
    (["-t", "a", "-n", "1", "-n", "2"], "--records is given twice"),
    (["-t", "a", "--transaction", "100000", "--value-size", "1MiB"], "64 MiB are the limit"),
])
def test_wrong_use(options, says):
    done = run_once("pump", *options)
    assert done.returncode == 2 and says in done.stderr and done.stdout == "", done


@pytest.mark.parametrize("what, says", [
    ("port", "refused"), ("table", "outbox"), ("broker", "Kafka cannot be asked|refused"), ("topic", "no-such-topic.*exist"),
    ("too long", "too long"),
])
def test_what_cannot_work_is_told(bed, pump, what, says):
    database = bed.database(table=None) if what == "table" else bed.database()
    sections = {"data_source": bed.postgres.data_source(database.name, port=free_port())} if what == "port" else {}
    if what == "broker":
        sections["servers"] = "127.0.0.1:%d" % free_port()
    options = ["--verify"] if what in ("broker", "topic") else []
    options += ["--value-size", 10001] if what == "too long" else []
    done = pump(database, "-t", "no-such-topic", "-n", 10, *options, **sections)
    assert done.returncode == 1 and re.search(says, done.stderr) and done.summary["failure"], done
    assert done.summary["written"] == 0
