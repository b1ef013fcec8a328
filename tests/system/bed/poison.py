"""Records that Kafka refuses, of every kind, among good ones; and what has to become of each record under each policy. The second is
worked out here from what the README promises, one key after the other, without a look at what the daemon does."""
import os
import random
import string
from collections import namedtuple

from . import blocked
from .acl import PROPERTIES, Acls, broker_with_acls
from .checker import Truth, check, record
from .daemon import run_once, write_ini
from .kafka import Kafka, fresh_name
from .kafka_proxy import KafkaProxy
from .postgres import TABLE_WITHOUT_CONSTRAINTS
from .util import wait_until

TOO_LARGE, NO_KEY, INTERNAL, BAD_NAME, HEADERS = (
    "too large", "no key", "internal topic", "illegal topic name", "unequal header arrays")
RECORDS = (TOO_LARGE, NO_KEY, INTERNAL, BAD_NAME, HEADERS)   # the record is to blame
MISSING, READ_ONLY, HIDDEN = "no such topic", "topic without the right to write", "topic without any right"
DESTINATIONS = (MISSING, READ_ONLY, HIDDEN)                  # the topic is: mended by somebody else, so nothing is moved aside
KINDS = RECORDS + DESTINATIONS
# In the topic of all others, and not to be told from good ones by looks: what does not compress; what only the broker knows, and with an
# error that nobody knows (Topics.front).
DENSE, INVALID, PUZZLE = "does not compress", "invalid to the broker", "answered by an unknown error"
CLASSES = {TOO_LARGE: "too large", NO_KEY: "invalid row", INTERNAL: "invalid topic", BAD_NAME: "invalid row", HEADERS: "invalid row",
           MISSING: "unknown topic", READ_ONLY: "not authorized", HIDDEN: "not authorized",
           DENSE: "too large", INVALID: "invalid record", PUZZLE: "unknown"}

KNOWN_LATE = (INTERNAL, *DESTINATIONS)   # only by the broker's answer, and to another topic than good records

LIMIT = 100000   # max.message.bytes of the topic; above what batches of good records come to
# More than that, and not to be compressed.
BIG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=LIMIT + 20000))

# kind: None for a good one. The columns as they are written.
Row = namedtuple("Row", "id topic key value names values kind")


def good(row_id, topic, key, value):
    return Row(row_id, topic, key, value, [], [], None)


class Owner:
    """Of what the tests of a file share; `stack` takes it back."""

    def __init__(self, stack):
        self.stack = stack

    def own_kafka(self, start=True, **settings):
        broker = Kafka(**settings)
        self.stack.callback(broker.destroy)
        broker.create()
        return broker.start() if start else broker


class Topics:
    """A broker that creates nothing by itself and lets harvestd write only where it may. One serves many tests: .fresh(). .front: a proxy
    that refuses what it is told to."""

    def __init__(self, stack):
        self.front = KafkaProxy(0)
        stack.callback(self.front.close)
        self.broker = broker_with_acls(Owner(stack), proxied=self.front.port)
        self.front.upstream_port = self.broker.proxied_port
        self.broker.front_servers = "127.0.0.1:%d" % self.front.port
        self.acls = Acls(self.broker)
        self.acls.grant("group", "*", "read")
        self.acls.grant("topic", "__consumer_offsets", "write")   # the broker itself refuses that one, as internal

    def fresh(self):
        """One topic for good records; and where those of the other kinds go."""
        self.front.judge = None
        self.front.refused.clear()
        self.main = self.broker.create_topic(fresh_name("main"), 4, max_message_bytes=LIMIT)
        self.spare = self.broker.create_topic(fresh_name("spare"), 2)
        self.of = {TOO_LARGE: self.main, NO_KEY: self.broker.create_topic(fresh_name("compacted"), 2, cleanup_policy="compact"),
                   INTERNAL: "__consumer_offsets", BAD_NAME: "no topic", HEADERS: self.main, MISSING: fresh_name("missing"),
                   READ_ONLY: self.broker.create_topic(fresh_name("readonly"), 2),
                   HIDDEN: self.broker.create_topic(fresh_name("hidden"), 2)}
        for topic in (self.main, self.spare, self.of[NO_KEY], self.of[MISSING]):
            self.acls.grant("topic", topic, "write")
        self.acls.grant("topic", self.of[READ_ONLY], "describe")
        return self

    def readable(self):
        return sorted({self.main, self.spare, *self.of.values()} - {self.of[INTERNAL], self.of[BAD_NAME]})

    def mend(self, kind):
        """A destination."""
        if kind == MISSING:
            self.broker.create_topic(self.of[kind], 2)
        else:
            self.acls.grant("topic", self.of[kind], "write")

    def bad(self, row, kind):
        """That row as one of that kind."""
        changes = {TOO_LARGE: dict(value=BIG + row.value), NO_KEY: dict(key=None), HEADERS: dict(names=["a", "b"], values=["1"])}
        return row._replace(kind=kind, topic=self.of[kind], **changes.get(kind, {}))

    def mended(self, row):
        """What an operator makes of it, and of good ones nothing."""
        if row.kind in RECORDS:
            value = row.value[len(BIG):] if row.kind == TOO_LARGE else row.value
            return good(row.id, self.spare if row.kind == INTERNAL else self.main, "was without" if row.key is None else row.key, value)
        return row._replace(kind=None)


def sprinkle(rng, topics, count, keys=200, each=1000, kinds=KINDS):
    """Rows of so many keys in turn, and one in `each` of each kind. A kind has eight keys of its own, and all share four more."""
    rows = [good(n, topics.main, "key %03d" % (n % keys), "value %d" % n) for n in range(1, count + 1)]
    for at, kind in enumerate(kinds):
        if kind == NO_KEY:   # they are one key, if they are any
            pool = [r for r in rows if r.kind is None]
        else:
            mine = {"key %03d" % n for n in list(range(8 * at, 8 * at + 8)) + list(range(keys - 4, keys))}
            pool = [r for r in rows if r.kind is None and r.key in mine]
        for row in rng.sample(pool, max(1, count // each)):
            rows[row.id - 1] = topics.bad(row, kind)
    return rows


class Outcome:
    """What has to become of rows (in the order of their ids): .arrive, .aside (parked or skipped), .stay; .stops: the row at which each of
    the keys in trouble stands. policy: or a function that tells that of a row. mended: kinds that were mended.

    The unit of order is a key within a topic: what was in flight to another topic when the key's record was refused has .passed, but
    nothing has that went out later. So those are the first of the good ones that follow."""

    def __init__(self, rows, policy, mended=()):
        self.arrive, self.aside, self.stay, self.passed, self.stops = [], [], [], [], {}
        self.mended = mended
        for row in rows:
            if row.key in self.stops:
                self.stay.append(row)
            elif row.kind is None or row.kind in mended:
                self.arrive.append(row)
            elif row.kind in DESTINATIONS or (policy if isinstance(policy, str) else policy(row)) == "block":
                self.stops[row.key] = row
                self.stay.append(row)
            else:
                self.aside.append(row)

    def may_pass(self, row):
        stop = self.stops[row.key]
        return stop.kind in KNOWN_LATE and (row.kind is None or row.kind in self.mended) and row.topic != stop.topic

    def judge(self, found):
        """found: the ids in the outbox. Takes note of those that passed; returns what is wrong."""
        faults, waits = [], set()
        self.passed = []
        stay = {r.id for r in self.stay}
        for row in self.stay:
            stop = self.stops[row.key]
            if row.id in found:
                waits |= set() if row.kind in KNOWN_LATE else {row.key}
            elif not self.may_pass(row) or row.key in waits:
                faults.append("%d (%s, key %r) is gone; its key stands at %d (%s), which is %s" % (
                    row.id, row.kind, row.key, stop.id, stop.kind, "there" if stop.id in found else "gone"))
            else:
                self.passed.append(row)
        return faults + ["%d is there" % i for i in sorted(found - stay)]

    def truth(self, arrived):
        """What had passed may be in the table all the same, if its acknowledgement was lost: to be sent again when its key goes on."""
        values = {(m.topic, m.value) for m in arrived}
        passed = {r.id for r in self.passed} | {r.id for r in self.stay if self.may_pass(r) and (r.topic, r.value.encode()) in values}
        truth = Truth()
        truth.committed((r.id, record(r.topic, r.key, r.value)) for r in sorted(
            self.arrive + [r for r in self.stay if r.id in passed], key=lambda r: r.id))
        return truth


class World:
    """A table, a daemon (not started yet) with a policy, and a collector."""

    def __init__(self, bed, topics, policy, table=TABLE_WITHOUT_CONSTRAINTS, harvest=(), server=None, parks=None, servers=None,
                 **sections):
        """parks: whether there is a table of parked records. servers: other ways to the broker."""
        self.bed, self.topics, self.policy = bed, topics, policy
        self.database = bed.database(table, server)
        self.collector = bed.collector(topics.readable(), topics.broker)
        leader_topic = topics.broker.create_topic(fresh_name("leader"), 1)
        for operation in "read", "write":
            topics.acls.grant("topic", leader_topic, operation)
        harvest = dict(harvest, leader_topic=leader_topic)
        if policy != "block":   # the default
            harvest["on_poison"] = policy
        self.daemon = bed.harvestd(self.database, servers=servers or topics.broker.user_servers, start=False,
                                   harvest=harvest, **sections)
        self.daemon.sections["kafka"].update(PROPERTIES)
        self.daemon.sections["harvest"]["control_socket"] = os.path.join(self.daemon.directory, "control")
        write_ini(self.daemon.ini, self.daemon.sections)
        self.parks = policy == "park" if parks is None else parks
        done = run_once("schema", "-c", self.daemon.ini, "--park")
        assert done.returncode == 0, done.stderr
        self.parked_ddl = done.stdout
        if self.parks:
            self.database.execute(self.parked_ddl)

    def load(self, rows):
        with self.database.connect() as c:
            with c.cursor().copy("COPY outbox (id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) "
                                 "FROM STDIN") as copy:
                for r in rows:
                    copy.write_row([r.id, r.topic, r.key, r.value, r.names, r.values])
            c.execute("SELECT setval('outbox_id_seq', (SELECT max(id) FROM outbox))")
        return self

    def ids(self, table="outbox"):
        return [i for (i,) in self.database.execute("SELECT id FROM %s ORDER BY id" % table)]

    def wait_for(self, outcome, deadline):
        """Until all is left in the outbox that has to be, and nothing else."""
        stay = {r.id for r in outcome.stay}
        wait_until(lambda: set(self.ids()) <= stay, deadline, every=0.1, what=lambda: "these to leave the outbox: %s" % (
            sorted(set(self.ids()) - stay)[:5]))
        faults = outcome.judge(set(self.ids()))
        assert not faults, "%d faults:\n%s" % (len(faults), "\n".join(faults[:10]))

    def check_arrived(self, outcome, what, duplicates=None):
        """Each of these, in the order of its key, and nothing else. duplicates: how many there have to be, unless None."""
        arrived = self.collector.read_to_end(60)
        report = check(outcome.truth(arrived), arrived)
        self.bed.note("%s, %s: %s; passed %d" % (self.policy, what, report, len(outcome.passed)))
        return report.assert_ok(duplicates)

    def start(self):
        """Also after a kill, without waiting for the group to notice that: in another group."""
        since = self.daemon.position()
        self.daemon.sections["harvest"]["leader_group_id"] = fresh_name("group")
        self.daemon.start().wait_leading(since=since)
        return self

    def wait_blocked(self, outcome):
        """Until `harvestd blocked` tells of exactly the keys that stand, each with the record that it stands at."""
        wanted = {(r.id, r.key, r.topic, CLASSES[r.kind]) for r in outcome.stops.values()}
        keys, closed, _ = blocked.wait_rows(self.daemon, lambda keys: {(k["id"], k["key"], k["topic"], k["class"]) for k in keys} == wanted)
        assert {t["topic"] for t in closed} == {r.topic for r in outcome.stops.values() if r.kind in DESTINATIONS}
        assert all(k["reason"] and k["attempts"] >= 0 for k in keys), keys

    def parked(self):
        return {r[0]: r[1:] for r in self.database.execute(
            "SELECT id, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values, class, error, attempts, failed_at, "
            "parked_at FROM outbox_parked")}
