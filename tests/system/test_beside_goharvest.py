"""harvestd beside goharvest, for which bed/goharvest.py stands: same table, same group, same topics. They take turns."""
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from bed.checker import Record
from bed.kafka import fresh_name
from bed.util import TimedOut, process_state, spawn, wait_until

PROGRAM = os.path.join(os.path.dirname(__file__), "bed", "goharvest.py")
HEARTBEAT_TIMEOUT = 2   # sessions of 6 s, the shortest that brokers allow
RECORDS = 100           # to be delivered in each turn, of those that were committed after it began


class Goharvest:
    """The process, with as much of the handle of harvestd's as the tests need."""

    def __init__(self, label, **options):
        self.label = label
        self.lines = []   # (word, details)
        self.changed = threading.Condition()
        self.process = spawn([sys.executable, "-B", PROGRAM, json.dumps(options)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for raw in self.process.stdout:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"event": "noise", "text": raw.decode(errors="replace").rstrip()}
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()

    def find(self, *events):
        with self.changed:
            return [line for line in self.lines if line["event"] in events]

    def wait(self, event, deadline=40, count=1):
        return wait_until(lambda: len(self.find(event)) >= count and self.find(event)[count - 1], deadline,
                          lambda: "%s: %s\n%s" % (self.label, event, self.tail()))

    def joined(self):
        return bool(self.find("joined"))

    def leads(self):
        found = self.find("acquired", "revoked", "fenced")
        return bool(found) and found[-1]["event"] == "acquired"

    def terms(self):
        return len(self.find("acquired"))

    def failed(self):
        found = self.find("progress")
        return found[-1]["failed"] if found else 0

    def endings(self):
        return len(self.find("revoked", "fenced"))

    def pause(self):
        self.process.send_signal(19)
        wait_until(lambda: process_state(self.process.pid) == "T", 10, "it to stop")

    def resume(self):
        self.process.send_signal(18)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise TimedOut("%s did not stop\n%s" % (self.label, self.tail())) from None
        assert code == 0, "%s ended with %s\n%s" % (self.label, code, self.tail())

    def tail(self):
        with self.changed:
            return "\n".join("  | %s" % line for line in self.lines[-30:])

    def destroy(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(10)


class Ours:
    """harvestd, with the same handle."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.label = daemon.label
        self.pause, self.resume, self.kill, self.tail = daemon.pause, daemon.resume, daemon.kill, daemon.tail

    def joined(self):
        return bool(self.daemon.find("leader", "joined"))

    def leads(self):
        found = self.daemon.find("leader", re.compile("acquired|revoked|fenced"))
        return bool(found) and found[-1]["msg"] == "acquired"

    def terms(self):
        return len(self.daemon.find("leader", "acquired"))

    def endings(self):
        return len(self.daemon.find("leader", re.compile("revoked|fenced")))

    def stop(self):
        self.daemon.stop(60)


class Table:
    """What both share, and the steady writes to it."""

    def __init__(self, bed, pause):
        self.bed = bed
        self.database, self.topics = bed.database(), [bed.topic(), bed.topic()]
        self.group = fresh_name("group")
        self.leader_topic = bed.kafka.create_topic(fresh_name("neli"), 1)   # goharvest does not make it
        self.collector = bed.collector(self.topics)
        self.app = bed.application(self.database, self.topics, keys=15, writers=3, batch=20, whole_batches=True,
                                   pause=pause, hold=0.3)
        self.count = 0
        self.others = []   # all members that were goharvest

    def _name(self, kind):
        # Under range the lowest member id leads, and it begins with the name: who comes later stands by.
        self.count += 1
        return "m%03d-%s" % (self.count, kind)

    def ours(self):
        name = self._name("harvestd")
        return Ours(self.bed.harvestd(
            self.database, group=self.group, label=name,
            harvest={"name": name, "leader_topic": self.leader_topic, "leader_assignor": "range"},
            limits={"heartbeat_timeout": "%ds" % HEARTBEAT_TIMEOUT},
            kafka_producer={"partitioner": "consistent_random"}))

    def theirs(self, **options):
        name = self._name("goharvest")
        member = Goharvest(
            name, name=name, servers=self.bed.kafka.servers, data_source=self.database.data_source(), group=self.group,
            leader_topic=self.leader_topic, heartbeat_timeout=HEARTBEAT_TIMEOUT, seed=self.bed.seed + self.count,
            fail=0.005, **options)
        self.bed.stack.callback(member.destroy)
        self.others.append(member)
        return member

    def start(self, kind):
        member = self.ours() if kind == "harvestd" else self.theirs()
        wait_until(member.joined, 60, lambda: "%s to join\n%s" % (member.label, member.tail()))
        return member

    def wait_leads(self, member):
        wait_until(member.leads, 60, lambda: "%s to lead\n%s" % (member.label, member.tail()))

    def wait_delivers(self, member):
        """Until it has led for so long that records arrived that were committed meanwhile. Nobody else can have sent them."""
        for _ in range(3):   # on a busy machine a leader may lose itself in between
            self.wait_leads(member)
            terms = member.terms()
            self._wait_arrived(member)
            if member.leads() and member.terms() == terms:
                return
        raise AssertionError("%s does not lead for long\n%s" % (member.label, member.tail()))

    def _wait_arrived(self, member):
        with self.app.truth.lock:
            newest = max(self.app.truth.ids.values(), default=0)
        looked_at, arrived = self.collector.count(), set()

        def enough(messages):
            nonlocal looked_at
            with self.app.truth.lock:
                arrived.update(self.app.truth.ids.get(Record(m.topic, m.key, m.value, m.headers), 0)
                               for m in messages[looked_at:])
            looked_at = len(messages)
            return len([i for i in arrived if i > newest]) >= RECORDS
        self.collector.wait_for(enough, 60, "%d records delivered by %s\n%s" % (RECORDS, member.label, member.tail()))


def take_turns(bed, ends, pause):
    """ends: how each leader goes, one after the other; goharvest is the first. pause: between two transactions of a writer."""
    table = Table(bed, pause)
    kinds = ["goharvest", "harvestd"]
    leader = table.start(kinds[0])
    table.wait_leads(leader)
    table.app.start()
    table.wait_delivers(leader)
    for turn, how in enumerate(ends):
        standby = table.start(kinds[(turn + 1) % 2])
        table.wait_leads(leader)   # under range all pause when somebody joins
        gone = time.monotonic()
        {"stop": leader.stop, "kill": leader.kill, "pause": leader.pause}[how]()
        table.wait_leads(standby)
        took = time.monotonic() - gone
        table.wait_delivers(standby)
        if how == "pause":
            endings = leader.endings()
            leader.resume()
            wait_until(lambda: leader.endings() > endings, 30, lambda: "%s to find out\n%s" % (leader.label, leader.tail()))
            leader.stop()
            table.wait_leads(standby)
            table.wait_delivers(standby)
        bed.note("turn %d, %s of %s: taken over after %.1f s" % (turn + 1, how, kinds[turn % 2], took))
        leader = standby
    table.app.stop()
    bed.judge(table.app, table.collector)
    leader.stop()
    places = {}   # or there would be no order, whatever order we happened to read them in
    for m in table.collector.snapshot():
        places.setdefault((m.topic, m.key), set()).add(m.partition)
    assert all(len(partitions) == 1 for partitions in places.values()), "keys in several partitions: %s" % places
    bed.note("deliveries that goharvest was made to take for failed: %d" % sum(m.failed() for m in table.others))


def test_takes_turns_with_goharvest(bed):
    take_turns(bed, ["stop", "kill", "pause"], 0.4)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_takes_turns_with_goharvest_ten_times(bed):
    take_turns(bed, ["stop", "stop", "kill", "kill", "pause", "pause", "stop", "pause", "kill", "stop"], 0.05)


def test_says_which_setting_differs_from_goharvests(bed):
    """A group has one assignor. Kafka refuses who comes with another; the log says what to set, and what was there goes on."""
    table = Table(bed, 0.4)
    theirs = table.start("goharvest")
    table.wait_leads(theirs)
    ours = bed.harvestd(table.database, group=table.group, harvest={"leader_topic": table.leader_topic},
                        limits={"heartbeat_timeout": "%ds" % HEARTBEAT_TIMEOUT},
                        kafka_producer={"partitioner": "consistent_random"})
    line = ours.wait_log("kafka", "trouble", deadline=30, reason=re.compile("assignor"))
    assert "leader_assignor" in line["reason"] and table.group in line["reason"] and "cooperative-sticky" in line["reason"]
    assert theirs.leads() and theirs.endings() == 0
    ours.stop()
    ours.sections["harvest"]["leader_assignor"] = "range"
    ours.start().wait_log("leader", "joined")
    assert len(ours.find("kafka", "trouble", reason=re.compile("assignor"))) == 1, "it goes on after it was mended"


def test_says_which_setting_differs_between_instances(bed):
    database = bed.database()
    first = bed.harvestd(database, group=(group := fresh_name("group")))
    first.wait_leading()
    second = bed.harvestd(database, group=group, harvest={"leader_assignor": "range"})
    line = second.wait_log("kafka", "trouble", deadline=30, reason=re.compile("leader_assignor"))
    assert "range" in line["reason"]
    assert not first.find("leader", re.compile("revoked|fenced"))


def test_statements_of_a_predecessor_that_woke_up(bed):
    """It marks rows for itself and resets others, while we have them in memory or in flight. That makes other versions of them, which may be
    sent once more; nothing is lost or overtaken, and all is deleted in the end."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=15, writers=3, batch=20, whole_batches=True, count=2000, hold=0.1)
    bed.harvestd(database).wait_leading()
    app.start()
    meddled, predecessor = 0, "6e0e7e5c-3b1c-4a52-9d38-0b3a3f3c3b11"
    while any(t.is_alive() for t in app.threads):
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            taken = database.execute("""UPDATE outbox SET leader_id = %s WHERE id IN (SELECT id FROM outbox WHERE leader_id IS NULL OR
                leader_id <> %s ORDER BY id LIMIT 100) RETURNING id""", [predecessor, predecessor])
            for (row_id,) in taken[:5]:
                database.execute("UPDATE outbox SET leader_id = NULL WHERE id = %s", [row_id])
            meddled += len(taken)
        time.sleep(0.01)
    app.wait()
    report = bed.judge(app, collector)
    bed.note("rows that were taken away: %d; %s" % (meddled, report))
    assert meddled > 0
