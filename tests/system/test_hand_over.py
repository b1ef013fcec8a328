"""Leaders come and go, however they go: no two of them write at a time, by what stands in the topic's own files."""
import time

import pytest

from bed.checker import record
from bed.kafka import fresh_name
from bed.segments import Writers, batches
from bed.util import wait_until

CHANGES = ["started", "acquired", "refreshed", "revoked", "fenced"]
CODECS = ["lz4", "gzip"]   # by which the broker's files tell who wrote a batch


class Load:
    """An application, a topic stamped by the broker, and two instances of a group, each with a proxy of its own to Kafka if
    the network is to be cut."""

    def __init__(self, bed, assignor="cooperative-sticky", proxied=False, rest=0.0):
        self.bed = bed
        self.proxies = {codec: bed.proxy(0) for codec in CODECS if proxied}
        self.kafka = bed.own_kafka(proxied=[p.port for p in self.proxies.values()]) if proxied else bed.kafka
        for proxy, port in zip(self.proxies.values(), self.kafka.inner_ports):
            proxy.upstream_port = port
        self.database = bed.database()
        self.topic = bed.topic(self.kafka, message_timestamp_type="LogAppendTime")
        self.collector = bed.collector(self.topic, self.kafka)
        self.app = bed.application(self.database, [self.topic], keys=40, writers=3, pause=rest)
        self.app.maker.make = self.make
        self.made = 0
        group = fresh_name("group")
        self.daemons = {codec: bed.harvestd(
            self.database, self.kafka, group=group, label=codec, start=False, limits={"heartbeat_timeout": "2s"},
            servers="127.0.0.1:%d" % self.proxies[codec].port if proxied else None,
            harvest={"leader_assignor": assignor}, kafka_producer={"compression.type": codec}) for codec in CODECS}
        self.assignor = assignor
        self.times = []

    def make(self, _rng, key):
        with self.app.maker.lock:
            self.made += 1
            return record(self.topic, key, "%d %s" % (self.made, "x" * 300))   # also one alone is worth compressing

    def start(self):
        for daemon in self.daemons.values():
            daemon.start()
            daemon.wait_log("leader", "joined", deadline=40)
        self.app.start()
        self.flow()
        return self

    def flow(self, count=300):
        self.collector.wait_count(self.collector.count() + count, deadline=60)

    def leader(self):
        """The one that leads by its own log, once that is clear: under range whoever joins may take over."""
        def look():
            leading = [d for d in self.daemons.values()
                       if [x["msg"] for x in d.find() if x["msg"] in CHANGES][-1] in ("acquired", "refreshed")]
            return leading if len(leading) == 1 else None
        return wait_until(look, 40, "one to lead")[0]

    def other(self, daemon):
        return next(d for d in self.daemons.values() if d is not daemon)

    def hand_over(self, how):
        """The leader goes, the other one takes over, the first one comes back."""
        first = self.leader()
        second = self.other(first)
        self.flow()
        since, position = first.position(), second.position()
        begin = time.monotonic()
        comes_back = how(self, first)
        line = second.wait_leading(since=position)
        self.times.append((how.__name__, line["at"] - begin))
        self.flow(100)
        comes_back()
        if how in (pause, cut):
            first.wait_log("leader", "fenced", since=since)   # by its own clock, whatever the group says
        first.wait_log("leader", "joined", since=since, deadline=60)

    def judge(self):
        self.app.stop()
        self.bed.judge(self.app, self.collector, deadline=120)
        found = batches(self.kafka, self.topic)
        assert sum(b.count for b in found) == self.collector.count()
        stale, overs = self.writers().judge(found)
        self.bed.note("%d hand-overs, %d batches; written by a leader that had been replaced: %d, with %d records" % (
            len(overs), len(found), len(stale), sum(b.count for b in stale)))
        for how in sorted({how for how, _ in self.times}):
            times = sorted(t for h, t in self.times if h == how)
            self.bed.note("%s, %s, heartbeat_timeout 2 s: the other one leads after %s s" % (
                self.assignor, how, " ".join("%.1f" % t for t in times)))
        assert len(overs) >= len(self.times)
        return stale

    def writers(self):
        return Writers(self.daemons)


# ---- how a leader goes; each returns what brings it back ----

def stop(_load, daemon):
    daemon.terminate()

    def back():
        assert daemon.wait_exit() == 0
        daemon.start()
    return back


def kill(_load, daemon):
    daemon.kill()
    return daemon.start


def pause(_load, daemon):
    daemon.pause()
    return daemon.resume


def cut(load, daemon):
    proxy = load.proxies[next(c for c in CODECS if load.daemons[c] is daemon)]
    proxy.hang()
    return proxy.flow


def blink(load):
    """The network is away for longer than heartbeat_timeout, shorter than the session: the leader fences itself, and leads
    again under another id; the group never notices."""
    for _ in range(5):
        first = load.leader()
        second = load.other(first)
        load.flow()
        since, position = first.position(), second.position()
        back = cut(load, first)
        first.wait_log("leader", "fenced", since=since)
        back()
        load.flow()   # one of them leads
        if not second.find("leader", "acquired", since=position):
            told = [line["msg"] for line in first.find("leader", since=since)]
            assert told == ["fenced", "acquired"] * (len(told) // 2)   # more than once on a slow machine
            ids = [line["leader_id"] for line in first.find("leader", "acquired")]
            assert len(set(ids)) == len(ids)
            return
        first.wait_log("leader", "joined", since=since, deadline=60)   # a slow machine: again
    raise AssertionError("it was always too slow")


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_leader_that_wakes_sends_nothing(bed, times):
    load = Load(bed).start()
    for _ in range(times):
        load.hand_over(pause)
    assert load.judge() == []


@pytest.mark.parametrize("assignor, ways", [
    ("cooperative-sticky", [kill, cut, stop]),
    pytest.param("cooperative-sticky", [kill, pause, cut, stop] * 5, marks=pytest.mark.long),
    pytest.param("range", [kill, pause, cut, stop] * 5, marks=pytest.mark.long),
], ids=["some", "cooperative-sticky", "range"])
def test_two_leaders_never_write_at_once(bed, assignor, ways):
    load = Load(bed, assignor, proxied=True, rest=0.01).start()
    for how in ways:
        load.hand_over(how)
    blink(load)
    assert load.judge() == []
