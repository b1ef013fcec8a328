"""Several instances: one leads; when it goes, however it goes, another takes over."""
import re
import time

import pytest

from bed.daemon import run_once
from bed.kafka import fresh_name
from bed.util import wait_until


def pair(bed, database, label=("one", "two"), **options):
    """Two daemons of a group; the first leads."""
    group = fresh_name("group")
    options["limits"] = dict({"heartbeat_timeout": "2s"}, **options.get("limits", {}))
    first = bed.harvestd(database, group=group, label=label[0], **options)
    first.wait_leading()
    second = bed.harvestd(database, group=group, label=label[1], **options)
    second.wait_log("leader", "joined")
    return group, first, second


def members(bed, group):
    listed = bed.kafka.admin().list_groups(group, timeout=10)
    return len(listed[0].members) if listed else 0


def spans(daemon, until):
    """When it led, by its own log: [from, to]."""
    found, begin = [], None
    for line in daemon.find("leader"):
        if line["msg"] in ("acquired", "refreshed"):
            begin = line["at"] if begin is None else begin
        elif line["msg"] in ("revoked", "fenced") and begin is not None:
            found.append((begin, line["at"]))
            begin = None
    if begin is not None:
        found.append((begin, until))
    return found


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "range"])
def test_sigterm_of_the_leader(bed, assignor):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=20, writers=2, pause=0.02)
    _, first, second = pair(bed, database, harvest={"leader_assignor": assignor})
    if not first.find("leader", "acquired") or second.find("leader", "acquired"):
        first, second = second, first   # under range the newcomer may have taken over
    app.start()
    collector.wait_count(300)
    stopped = time.monotonic()
    since = second.position()
    first.terminate()
    line = second.wait_leading(since=since)
    bed.note("%s, SIGTERM of the leader: taken over after %.2f s" % (assignor, line["at"] - stopped))
    assert first.wait_exit() == 0
    collector.wait_count(collector.count() + 300)
    app.stop()
    bed.judge(app, collector, duplicates=0)
    assert second.find("leader", "acquired")[-1]["leader_id"] != first.find("leader", "acquired")[-1]["leader_id"]


def test_kill_9_of_the_leader(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=20, writers=2, pause=0.02)
    _, first, second = pair(bed, database)
    app.start()
    collector.wait_count(300)
    killed = time.monotonic()
    first.kill()
    line = second.wait_leading()
    bed.note("kill -9 of the leader: taken over after %.2f s" % (line["at"] - killed))
    collector.wait_count(collector.count() + 300)
    app.stop()
    bed.judge(app, collector)


def test_pause_of_the_leader(bed):
    """SIGSTOP: it cannot know. When it wakes it must find out before it does anything else."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=20, writers=2, pause=0.02)
    _, first, second = pair(bed, database)
    app.start()
    collector.wait_count(300)
    first.pause()
    paused = time.monotonic()
    line = second.wait_leading()
    bed.note("SIGSTOP of the leader: taken over after %.2f s" % (line["at"] - paused))
    collector.wait_count(collector.count() + 300)
    since = first.position()
    first.resume()
    first.wait_log("leader", "fenced", since=since)
    told = first.find("leader", since=since)[0]   # before anything else, and by its own clock
    assert told["msg"] == "fenced" and "heartbeat" in told["reason"]
    collector.wait_count(collector.count() + 300)
    # Back in the group, it is there when it is needed.
    stopped = time.monotonic()
    since = first.position()
    second.stop()
    line = first.wait_leading(since=since)
    bed.note("the one that was paused takes over again %.2f s after a SIGTERM" % (line["at"] - stopped))
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector)


def test_standby_comes_and_goes_without_disturbing_the_leader(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=20, writers=2, pause=0.02)
    group, first, second = pair(bed, database)
    app.start()
    since = first.position()
    second.kill()   # its session goes on for a while
    position = second.position()
    second.start()
    second.wait_log("leader", "joined", since=position)
    second.stop()
    third = bed.harvestd(database, group=group, label="three", limits={"heartbeat_timeout": "2s"})
    third.wait_log("leader", "joined")
    wait_until(lambda: members(bed, group) == 2, 30, "the one that was killed to be forgotten")
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector, duplicates=0)
    assert not first.find("leader", re.compile("revoked|fenced|acquired|refreshed"), since=since)
    assert not second.find("leader", "acquired") and not third.find("leader", "acquired")


def test_never_two_at_a_time(bed):
    """Three instances, of which one after the other is stopped and started again: by their own logs no two lead at once."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=20, writers=2, pause=0.05)
    group = fresh_name("group")
    daemons = [bed.harvestd(database, group=group, label="instance-%d" % n, limits={"heartbeat_timeout": "2s"})
               for n in range(3)]
    app.start()
    for _ in range(6):
        before = collector.count()
        collector.wait_count(before + 50)
        leader = wait_until(lambda: [d for d in daemons if len(spans(d, None)) and spans(d, None)[-1][1] is None], 30,
                            "one to lead")[0]
        leader.stop()
        leader.start()
    end = time.monotonic()
    app.stop()
    bed.judge(app, collector, duplicates=0)
    led = sorted((begin, to, d.label) for d in daemons for begin, to in spans(d, end))
    assert len(led) >= 6
    for earlier, later in zip(led, led[1:]):
        assert later[0] > earlier[1] - 0.05, "%s and %s" % (earlier, later)   # 50 ms: how exactly we read logs


def test_leader_topic_is_created_with_one_partition(bed):
    broker = bed.own_kafka(auto_create_topics_enable="false", num_partitions=6)
    database = bed.database()
    topic = bed.topic(broker)
    group = fresh_name("group")
    bed.harvestd(database, broker, group=group).wait_leading()
    assert broker.topics()[group + ".neli"] == 1
    collector = bed.collector(topic, broker)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")


def test_leader_topic_that_exists_with_more_partitions(bed):
    """As other programs of the same protocol leave it: whoever has partition 0 leads."""
    database, topic = bed.database(), bed.topic()
    neli = bed.kafka.create_topic(fresh_name("neli"), 3)
    group, first, second = pair(bed, database, harvest={"leader_topic": neli})
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    first.stop()
    second.stop()


def test_heartbeats_are_of_the_agreed_form(bed):
    """'<unix nanoseconds>%<name>', no key, no headers, partition 0: other members of the group may be other programs."""
    database = bed.database()
    group = fresh_name("group")
    bed.harvestd(database, group=group, harvest={"name": "mein-name"}).wait_leading()
    collector = bed.collector(group + ".neli")
    collector.wait_count(5)
    now = time.time_ns()
    for m in collector.snapshot():
        stamp, _, name = m.value.decode().partition("%")
        assert abs(now - int(stamp)) < 120e9 and name == "mein-name"
        assert not m.key and not m.headers and m.partition == 0


def test_session_that_the_brokers_refuse(bed):
    """Three times heartbeat_timeout, outside of the brokers' limits: said once, with what to change, by the daemon and by
    `harvestd check`; it stays up, and leads as soon as the brokers were changed."""
    broker = bed.own_kafka(group_min_session_timeout_ms=30000, group_max_session_timeout_ms=60000)
    database, topic = bed.database(), bed.topic(broker)
    collector = bed.collector(topic, broker)
    bed.write(database, topic, "k", "v")
    daemons = {"min": bed.harvestd(database, broker),   # the default, 3 x 5 s
               "max": bed.harvestd(bed.database(), broker, limits={"heartbeat_timeout": "30s"})}
    for limit, daemon in daemons.items():
        setting = "group.%s.session.timeout.ms" % limit
        daemon.wait_log("kafka", "trouble", reason=re.compile("session of .*heartbeat_timeout.*" + setting))
        done = run_once("check", "-c", daemon.ini)
        assert done.returncode == 1
        assert re.search("not ok.*3 x heartbeat_timeout", done.stdout) and setting in done.stdout, done.stdout
    broker.stop()
    broker.configure(group_min_session_timeout_ms=6000, group_max_session_timeout_ms=1800000)
    broker.start()
    for daemon in daemons.values():
        daemon.wait_leading(deadline=90)
        assert daemon.starts == 1
        assert len(daemon.find("kafka", "trouble", reason=re.compile("session of"))) == 1   # though refused time and again
    collector.wait_value("v")
    for daemon in daemons.values():
        daemon.stop()


def test_a_short_pause_changes_nothing(bed):
    """Longer than the election may go unpolled in goharvest (half of heartbeat_timeout, then it marks everything anew), shorter
    than the lease: nobody else can lead, so there is nothing to be done again."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=20, writers=2, pause=0.02)
    daemon = bed.harvestd(database, limits={"heartbeat_timeout": "8s"})
    daemon.wait_leading()
    app.start()
    collector.wait_count(100)
    since = daemon.position()
    daemon.pause()
    time.sleep(4.5)
    daemon.resume()
    collector.wait_count(collector.count() + 100)
    app.stop()
    bed.judge(app, collector, duplicates=0)
    assert not daemon.find("leader", since=since) and not daemon.find("kafka", "rewinding", since=since)
    daemon.stop()
