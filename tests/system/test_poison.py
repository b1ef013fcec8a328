"""Records that Kafka refuses for good, among many that it takes: what happens to them, to their keys, and (nothing) to all others."""
import contextlib
import json
import re
import signal
import statistics
import string
import time

import pytest

from bed.daemon import run_once
from bed.kafka import fresh_name
from bed.poison import (BAD_NAME, CLASSES, DESTINATIONS, HEADERS, INTERNAL, KINDS, MISSING, READ_ONLY, RECORDS, TOO_LARGE, Outcome,
                        Topics, World, good, sprinkle)
from bed.util import SANITIZED, wait_until

POLICIES = ["block", "park", "skip"]
SKIPPED = "skipped: its row is deleted"
KNOWN_APART = 4096   # keys in trouble; what is beyond holds up its shard


@pytest.fixture(scope="module")
def shared_topics():
    with contextlib.ExitStack() as stack:
        yield Topics(stack)


@pytest.fixture
def topics(shared_topics):
    return shared_topics.fresh()


def check_parked(world, outcome):
    """Exactly those rows, as they were, with what was wrong."""
    parked = world.parked()
    assert sorted(parked) == [r.id for r in outcome.aside]
    for row in outcome.aside:
        topic, key, value, names, values, failure, error, attempts, failed_at, parked_at = parked[row.id]
        assert (topic, key, value, names, values) == (row.topic, row.key, row.value, row.names, row.values)
        assert failure == CLASSES[row.kind] and error and attempts >= 1 and failed_at <= parked_at, (row.kind, parked[row.id][5:])
        assert row.value[:40] not in error
    rows = {row.id: row for row in outcome.aside}
    for line in world.daemon.find("record", "parked"):   # of the first, when there are many
        row = rows.get(int(line["id"]))
        assert row is None or (line["topic"], line.get("key")) == (row.topic, row.key), line["raw"]


def check_skipped(world, outcome):
    """Each told, with all but its value."""
    lines = {int(line["id"]): line for line in world.daemon.find("record", SKIPPED, level="error", table="outbox", reason=True)}
    assert sorted(lines) == [r.id for r in outcome.aside]
    for row in outcome.aside:
        line = lines[row.id]
        assert (line["class"], line["topic"], line.get("key")) == (CLASSES[row.kind], row.topic, row.key), line["raw"]
        assert row.value[:40] not in line["raw"]


# -- every kind, every policy ----------------------------------------------------------------------------------------


def every_kind(bed, topics, policy, count, kinds=KINDS, limit=None, duplicates=None, **sections):
    """Other keys flow, theirs stop exactly there, or leave out exactly them; a destination that comes back is noticed; in the end
    everything is mended."""
    rows = sprinkle(bed.random, topics, count, kinds=kinds)
    world = World(bed, topics, policy, **sections).load(rows)
    first = Outcome(rows, policy)
    world.start()
    begin = time.monotonic()
    world.wait_for(first, deadline=200)
    bed.note("%s: all that can go had gone after %.1f s" % (policy, time.monotonic() - begin))
    world.wait_blocked(first)
    world.check_arrived(first, "with bad records", duplicates)
    if policy == "park":
        check_parked(world, first)

    times, back = [], []
    for kind in [k for k in DESTINATIONS if k in kinds]:
        back.append(kind)
        now = Outcome(rows, policy, back)
        begin = time.monotonic()
        topics.mend(kind)
        world.collector.refresh()
        world.collector.wait_for(lambda ms: any(m.topic == topics.of[kind] for m in reversed(ms)), limit or 60,
                                 "the first record to the destination that was mended: " + kind)
        flowing = time.monotonic() - begin
        world.wait_for(now, deadline=120)
        times.append("%s: %.1f s, all after %.1f s" % (kind, flowing, time.monotonic() - begin))
    bed.note("%s: records flow after they were mended: %s" % (policy, "; ".join(times)))
    world.wait_blocked(now)
    world.check_arrived(now, "destinations mended", duplicates)
    if policy == "park":
        check_parked(world, now)
    if policy == "skip":
        check_skipped(world, now)

    if policy == "block":
        bad = [r for r in rows if r.kind in KINDS and r.kind not in DESTINATIONS]
        mended = [topics.mended(r) for r in rows]
        with world.database.connect(autocommit=False) as c:
            for r in (mended[r.id - 1] for r in bad):
                c.execute("UPDATE outbox SET kafka_topic = %s, kafka_key = %s, kafka_value = %s, kafka_header_keys = '{}', "
                          "kafka_header_values = '{}' WHERE id = %s", [r.topic, r.key, r.value, r.id])
            c.commit()
        world.daemon.signal(signal.SIGHUP)   # they are tried at once
        last = Outcome(mended, policy)
        world.wait_for(last, deadline=120)
        world.check_arrived(last, "all mended", duplicates)
    world.daemon.stop()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_kind_of_bad_record(bed, topics, policy):
    kinds = KINDS if policy == "block" else (*RECORDS, READ_ONLY)   # a topic that is not there costs five seconds
    every_kind(bed, topics, policy, 4000, kinds, limits={"blocked_backoff_max": "1s"})


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.usefixtures("each_strategy")
def test_every_kind_among_a_hundred_thousand(bed, topics, policy):
    every_kind(bed, topics, policy, 100000, limit=10, duplicates=0)


def test_policies_by_topic(bed, topics):
    """The first pattern that fits; the others as on_poison says."""
    policies = {topics.main: "park", topics.of[INTERNAL]: "skip"}
    rows = sprinkle(bed.random, topics, 2000, kinds=(*RECORDS, READ_ONLY), each=500)
    world = World(bed, topics, "block", parks=True, harvest={"on_poison_topics": "main-*=park, __consumer_?ffsets=skip, main-*=block, x=skip"})
    world.load(rows).start()
    outcome = Outcome(rows, lambda row: policies.get(row.topic, "block"))
    world.wait_for(outcome, deadline=100)
    world.wait_blocked(outcome)
    world.check_arrived(outcome, "policies by topic")
    assert sorted(world.parked()) == [r.id for r in outcome.aside if r.topic == topics.main]
    world.daemon.wait_log("record", SKIPPED, count=len([r for r in outcome.aside if r.kind == INTERNAL]))
    world.daemon.stop()


def test_without_a_table_to_park_in_keys_wait(bed, topics):
    rows = sprinkle(bed.random, topics, 1000, kinds=(TOO_LARGE, HEADERS), each=200)
    world = World(bed, topics, "park", parks=False, limits={"blocked_backoff_max": "1s", "io_error_backoff_max": "1s"}).load(rows).start()
    waits = Outcome(rows, "block")
    world.wait_for(waits, deadline=60)
    world.daemon.wait_log("database", None, raw=re.compile("schema --park"))
    world.check_arrived(waits, "without a table to park in")
    world.database.execute(world.parked_ddl)
    outcome = Outcome(rows, "park")
    world.wait_for(outcome, deadline=60)
    world.check_arrived(outcome, "with the table")
    check_parked(world, outcome)
    world.daemon.stop()


@pytest.mark.parametrize("policy", ["block", "park"])
def test_batches_that_are_too_large_of_records_that_are_not(bed, topics, policy):
    """The broker refuses batches, which harvestd makes. Nobody is to blame, nothing is parked."""
    small = topics.broker.create_topic(fresh_name("small"), 2, max_message_bytes=10000)
    topics.acls.grant("topic", small, "write")
    letters = bed.random.choices(string.ascii_letters + string.digits, k=100000)
    rows = [good(n, small, "key %d" % (n % 50), "%d %s" % (n, "".join(letters[n * 7:n * 7 + 1500]))) for n in range(1, 801)]
    world = World(bed, topics, policy).load(rows)
    world.collector.add(small)
    world.start()
    everything = Outcome(rows, world.policy)
    world.wait_for(everything, deadline=120)
    world.check_arrived(everything, "batches that are too large")
    assert not world.parks or not world.parked()
    assert not world.daemon.find("record"), world.daemon.tail()
    world.daemon.stop()


# -- speed --------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", POLICIES)
def test_speed_of_the_others(bed, topics, policy):
    """With one record in a hundred bad, keys without such records are at least half as fast as without any."""
    count, keys, bad_keys, kinds = 200000, 200, 20, [INTERNAL, BAD_NAME, HEADERS]

    def rate(with_bad):
        rows = [good(n, topics.main, "key %03d" % (n % keys), "value %d %s" % (n, "x" * 80)) for n in range(1, count + 1)]
        if with_bad:
            theirs = [r for r in rows if r.key >= "key %03d" % (keys - bad_keys)]
            for n, row in enumerate(bed.random.sample(theirs, count // 100)):
                rows[row.id - 1] = topics.bad(row, kinds[n % len(kinds)])
        world = World(bed, topics, policy).load(rows)
        world.database.execute("VACUUM ANALYZE outbox")
        world.start()
        begin = time.monotonic()
        wait_until(lambda: not world.database.execute("SELECT 1 FROM outbox WHERE kafka_key < 'key %03d' LIMIT 1" % (keys - bad_keys)),
                   300, "the records of other keys to be gone", every=0.05)
        took = time.monotonic() - begin
        left = world.database.count()
        world.daemon.stop()
        return count * (1 - bad_keys / keys) / took, left
    ratios = []
    for _ in range(3):   # a machine that others use, too
        (without, _), (beside, left) = rate(False), rate(True)
        ratios.append(beside / without)
        bed.note("%s: %.0f records/s of other keys beside 1 %% of bad ones, %.0f/s without: ratio %.2f; %d rows left then" % (
            policy, beside, without, ratios[-1], left))
        if ratios[-1] >= 0.5:
            return
    raise AssertionError("ratios %s" % ratios)


# -- kill -9 --------------------------------------------------------------------------------------------------------------


def aim(world, n, rng):
    """Waits for a moment to kill in."""
    since, end = world.daemon.position(), time.monotonic() + 20
    if n % 3 == 0 and world.parks:   # while a statement parks
        while time.monotonic() < end and not world.database.execute(
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%INSERT INTO%outbox_parked%' AND pid <> pg_backend_pid() "
                "AND datname = current_database()"):
            time.sleep(0.005)
        return "parking"
    if n % 3 == 1:                   # right after a refusal: what was in its batch goes alone now
        with contextlib.suppress(AssertionError):
            world.daemon.wait_log("kafka", "rewinding", since=since, deadline=5)
        time.sleep(rng.random() * 0.05)
        return "isolating"
    time.sleep(rng.random())
    return "any moment"


def killed_again_and_again(bed, topics, policy, count, kills):
    """Nothing is lost, overtaken, or moved aside twice, and nothing innocent. The transaction that was on its way may end after the next
    instance has begun."""
    rows = sprinkle(bed.random, topics, count, each=150, kinds=(*RECORDS, MISSING))
    world = World(bed, topics, policy, limits={"purge_query_records": 50, "mark_query_records": 100, "max_in_flight_records": 200}).load(rows)
    if world.parks:
        world.database.execute("""
            CREATE TABLE noted (id BIGINT);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO noted VALUES (NEW.id); PERFORM pg_sleep(0.03); RETURN NEW; END $$;
            CREATE TRIGGER note AFTER INSERT ON outbox_parked FOR EACH ROW EXECUTE FUNCTION note()""")
    hits = []
    for n in range(kills):
        world.start()
        hits.append(aim(world, n, bed.random))
        world.daemon.kill()
    bed.note("%s: killed while %s; then %d rows were left" % (
        policy, ", ".join("%s: %d" % (h, hits.count(h)) for h in sorted(set(hits))), world.database.count()))
    if world.parks:
        world.database.execute("ALTER TABLE outbox_parked DISABLE TRIGGER note")
        noted = [i for (i,) in world.database.execute("SELECT id FROM noted")]
        assert len(noted) == len(set(noted)), "parked twice"
    world.start()
    outcome = Outcome(rows, policy)
    world.wait_for(outcome, deadline=120)
    world.check_arrived(outcome, "killed %d times" % kills)
    if world.parks:
        check_parked(world, outcome)
    world.daemon.stop()


@pytest.mark.parametrize("policy", ["block", "park"])
def test_killed_while_isolating_and_parking(bed, topics, policy):
    killed_again_and_again(bed, topics, policy, 3000, 3)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("each_strategy")
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_thirty_times(bed, topics, policy):
    killed_again_and_again(bed, topics, policy, 40000, 30)


# -- replay ---------------------------------------------------------------------------------------------------------------


def replayed_in_the_promised_order(bed, topics, rounds):
    """What the daemon parked by itself is mended and replayed while more is written, at random. Said to be in order ("yes"): it arrives
    before all later records of its key; "no": after one of them."""
    keys = ["key %d" % n for n in range(30)]
    world = World(bed, topics, "park").start()
    written, ids, claims = {k: 0 for k in keys}, {}, {}
    rng = bed.random

    def write(key, kind):
        written[key] += 1
        row = good(0, topics.main, key, "%d" % written[key])
        row = row if kind is None else topics.bad(row, kind)
        (row_id,), = world.database.execute(
            "INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) "
            "VALUES (now(), %s, %s, %s, %s, %s) RETURNING id", [row.topic, row.key, row.value, row.names, row.values])
        ids[row_id] = (key, written[key])

    def replay(*arguments):
        mended = [str(i) for (i,) in world.database.execute("UPDATE outbox_parked SET kafka_topic = %s, kafka_header_keys = '{}', "
                                                            "kafka_header_values = '{}' RETURNING id", [topics.main])]
        if not mended:
            return
        done = run_once("park", "replay", "-c", world.daemon.ini, "--id", ",".join(mended), "--json", *arguments)   # none that came since
        assert done.returncode in (0, 1), done.stderr
        for line in map(json.loads, done.stdout.splitlines()):
            if line["replayed"]:
                claims.setdefault(ids[line["id"]], line["in_order"])
    end = time.monotonic() + 40
    n = 0
    while n < rounds or (time.monotonic() < end and not {"yes", "no"} <= set(claims.values())):
        n += 1
        for key in rng.sample(keys, rng.randint(1, 10)):
            for _ in range(rng.randint(1, 3)):
                write(key, rng.choice([HEADERS, BAD_NAME]) if rng.random() < 0.2 else None)
        time.sleep(rng.random() * 0.1)
        replay(*(["--allow-reorder"] if rng.random() < 0.3 else []))
    bed.wait_empty(world.database)
    while world.database.count(table="outbox_parked"):   # what was parked a moment before the daemon saw it empty
        replay("--allow-reorder")
        bed.wait_empty(world.database)

    order = {k: [] for k in keys}
    for m in world.collector.read_to_end():
        if int(m.value) not in order[m.key.decode()]:
            order[m.key.decode()].append(int(m.value))
    assert {k: sorted(o) for k, o in order.items()} == {k: list(range(1, n + 1)) for k, n in written.items()}
    told = list(claims.values())
    bed.note("replayed: " + ", ".join("%s %d" % (v, told.count(v)) for v in ("yes", "no", "unknown")))
    assert {"yes", "no"} <= set(told)
    for key, arrived in order.items():
        for at, seq in enumerate(arrived):
            later_before = [s for s in arrived[:at] if s > seq]
            claim = claims.get((key, seq))
            assert claim != "yes" or not later_before, (key, seq, arrived)
            assert claim != "no" or later_before, (key, seq, arrived)
            # Never parked: no later one comes before it, unless that was replayed out of order itself.
            assert claim is not None or all(claims.get((key, s)) in ("no", "unknown") for s in later_before), (key, seq, arrived)
    world.daemon.stop()


def test_replay_keeps_the_order_that_it_promises(bed, topics):
    replayed_in_the_promised_order(bed, topics, 10)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("each_strategy")
def test_replay_keeps_the_order_that_it_promises_for_long(bed, topics):
    replayed_in_the_promised_order(bed, topics, 400)


# -- bounds ---------------------------------------------------------------------------------------------------------------


class Claims:
    """What claims took the server, from the log of one of our own: milliseconds of the statements that read rows."""

    def __init__(self, server):
        self.path, self.position = server.log_path, 0
        self.lap()

    def lap(self):
        with open(self.path, errors="replace") as f:
            f.seek(self.position)
            text = f.read()
            self.position = f.tell()
        found = []
        for line in text.splitlines():
            at = line.find("duration: ")
            if at >= 0 and "harvestd" in line and ("SELECT id" in line or "UPDATE" in line):
                found.append(float(line[at + 10:].split()[0]))
        return found


def blocked_keys(bed, topics, kind, counts, seconds, measured, **limits):
    """Keys that stand, of which five more records wait in the table each; others are timed between. Then all is mended."""
    server = bed.own_postgres(log_min_duration_statement="0") if measured else None
    world = World(bed, topics, "block", server=server, limits=limits)
    claims = Claims(server) if measured else None
    world.start()
    rows, figures = [], []

    def add(fresh):
        world.load(fresh)
        rows.extend(fresh)

    def look(blocked):
        """Other keys, one record at a time; medians."""
        if claims:
            claims.lap()
        cpu, begin, times = world.daemon.cpu_seconds(), time.monotonic(), []
        if blocked > KNOWN_APART:
            time.sleep(seconds)   # only claims can be looked at
        while time.monotonic() - begin < seconds:
            row = good(len(rows) + 1, topics.main, "free %d" % (len(rows) % 50), "free %d" % len(rows))
            written = time.monotonic()
            seen = world.collector.count()
            add([row])
            world.collector.wait_for(lambda ms: any(m.value == row.value.encode() for m in ms[seen:]), 60, "a record of another key")
            times.append(time.monotonic() - written)
        took = claims.lap() if claims else [0]
        figures.append((world.daemon.rss_bytes() / 1e6, statistics.median(took or [0]), statistics.median(times or [0])))
        bed.note("%d keys blocked (%s): %.1f MB, claims %.2f ms (longest %.0f ms), others arrive after %.0f ms; %.0f %% of a core" % (
            blocked, kind, figures[-1][0], figures[-1][1], max(took or [0]), figures[-1][2] * 1000,
            100 * (world.daemon.cpu_seconds() - cpu) / (time.monotonic() - begin)))
    look(0)
    at = 0
    for count in counts:
        fresh = []
        for n in range(6 * at, 6 * count):
            row = good(len(rows) + len(fresh) + 1, topics.main, "blocked %d" % (at + (n - 6 * at) % (count - at)), "value %d" % n)
            fresh.append(topics.bad(row, kind) if n - 6 * at < count - at or kind in DESTINATIONS else row)
        add(fresh)
        at = count
        now = Outcome(rows, "block")
        world.wait_for(now, deadline=100)
        if count <= KNOWN_APART:
            world.wait_blocked(now)
        look(count)
    assert all(f[0] < figures[0][0] + 30 for f in figures), "memory grows: %s" % figures
    if kind in DESTINATIONS:
        topics.mend(kind)
    else:
        world.database.execute("UPDATE outbox SET kafka_header_keys = '{}', kafka_header_values = '{}', kafka_topic = "
                               "CASE WHEN kafka_topic = %s THEN %s ELSE kafka_topic END", [topics.of[INTERNAL], topics.spare])
        world.daemon.signal(signal.SIGHUP)
    last = Outcome([topics.mended(r) for r in rows], "block")
    begin = time.monotonic()
    world.wait_for(last, deadline=120)
    bed.note("%d rows of %d keys gone %.1f s after they were mended" % (6 * at, at, time.monotonic() - begin))
    world.check_arrived(last, "mended")
    world.daemon.stop()
    return figures


def test_thousands_of_blocked_keys(bed, topics):
    blocked_keys(bed, topics, HEADERS, [1000], seconds=1, measured=False, blocked_backoff_max="1s")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("each_strategy")
@pytest.mark.parametrize("kind", [HEADERS, INTERNAL, MISSING])
def test_thousands_of_blocked_keys_cost_nothing(bed, topics, kind):
    figures = blocked_keys(bed, topics, kind, [1000, 4000], seconds=10, measured=True)
    assert all(f[1] < 2 * figures[0][1] + 2 for f in figures), "claims become slower: %s" % figures
    assert all(f[2] < 2 * figures[0][2] + 0.1 for f in figures), "others become slower: %s" % figures


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("each_strategy")
def test_more_blocked_keys_than_are_known_apart(bed, topics):
    """Others wait then; but memory and claims stay as they are, and in the end all is there, in order."""
    figures = blocked_keys(bed, topics, HEADERS, [6000], seconds=10, measured=True)
    assert figures[-1][1] < 2 * figures[0][1] + 2, "claims become slower: %s" % figures


def storm(bed, topics, policy, count):
    """Nothing but bad records, of a few hundred keys: bounded work, and totals in the log, no line for each."""
    tiny = topics.broker.create_topic(fresh_name("tiny"), 2, max_message_bytes=1000)
    topics.acls.grant("topic", tiny, "write")
    letters = "".join(bed.random.choices(string.ascii_letters + string.digits, k=100000))
    rows = []
    for n in range(1, count + 1):
        row = good(n, tiny, "key %03d" % (n % 300), letters[n * 7 % 90000:][:2000])
        kind = [TOO_LARGE, INTERNAL, BAD_NAME, HEADERS][n % 4]
        rows.append(row._replace(kind=kind) if kind == TOO_LARGE else topics.bad(row, kind))
    world = World(bed, topics, policy).load(rows).start()
    begin, outcome = time.monotonic(), Outcome(rows, policy)
    world.wait_for(outcome, deadline=400)
    expected = len(outcome.stops) if policy == "block" else len(outcome.aside)
    # Of those that are parked the totals come though nothing else happens.
    wait_until(lambda: told(world, policy) >= expected, 60,
               lambda: "%d records to be told of; told of: %d" % (expected, told(world, policy)))
    lasted = time.monotonic() - begin
    bed.note("%s: %d bad records dealt with after %.1f s with %.1f s of CPU; %d log lines; %.1f MB" % (
        policy, expected, lasted, world.daemon.cpu_seconds(), world.daemon.position(), world.daemon.rss_bytes() / 1e6))
    # Of those that are skipped nothing else is left.
    assert world.daemon.position() < 150 + 15 * lasted + (expected if policy == "skip" else 0), world.daemon.tail()
    assert SANITIZED or world.daemon.rss_bytes() < 150e6   # a sanitizer's own memory comes on top
    if policy == "park":
        check_parked(world, outcome)
    elif policy == "skip":
        check_skipped(world, outcome)
    world.daemon.stop()


def told(world, policy):
    """How many records the log tells of, by lines of their own and by totals."""
    one = {"block": "blocked", "park": "parked", "skip": SKIPPED}[policy]
    return len({line["id"] for line in world.daemon.find("record", one)}) + sum(
        int(line["records"]) for line in world.daemon.find("record", re.compile("^more were blocked")))


@pytest.mark.parametrize("policy", POLICIES)
def test_storm_of_bad_records(bed, topics, policy):
    storm(bed, topics, policy, 1000)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", POLICIES)
def test_long_storm_of_bad_records(bed, topics, policy):
    storm(bed, topics, policy, 20000)
