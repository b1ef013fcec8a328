"""The embedding API as a program uses it that has nothing but the public header (tests/embed/), against real servers. What needs no server
is in tests/unit/test_embedding.c."""
import time

import pytest

from bed.daemon import write_ini
from bed.embed import SIGNAL
from bed.kafka import fresh_name
from bed.util import wait_until

WAYS = ["uv", "poll", "glib", "thread"]


def stop(host, command="stop", h=0):
    since = host.position()
    host.tell(command)
    return host.wait("stopped", 60, since, h=h)


def assert_left_alone(host):
    """After all harvests are freed: as if there had been none. librdkafka's threads may take a moment."""
    host.wait("over", 60)
    before = host.find("look")[0]

    def same():
        now = host.ask("look", "look")
        return all(sorted(now[part]) == sorted(before[part]) for part in ("fds", "threads"))
    wait_until(same, 30, lambda: "threads and descriptors to go\nbefore: %s\nnow: %s" % (before, host.find("look")[-1]))
    assert host.find("look")[-1]["signals"] == before["signals"]
    assert not host.find("wrong-thread")
    assert not host.noise, "on standard output or error:\n" + "\n".join(host.noise)
    host.finish()
    assert not host.noise, "on standard output or error:\n" + "\n".join(host.noise)


def assert_does_not_spin(bed, host):
    """Rounds of the host's loop while there is nothing to do but heartbeats and looks at the table. One that spins makes a hundred times as
    many."""
    before = host.ask("count", "count")
    time.sleep(2)
    after = host.ask("count", "count")
    rounds = (after["rounds"] - before["rounds"]) / (after["at"] - before["at"])
    bed.note("%.0f rounds a second while leading and idle" % rounds)
    assert rounds < 1000


@pytest.mark.parametrize("way", WAYS)
def test_records_arrive_in_order(bed, way):
    """However it is driven; and what the library has to leave alone it does, at log level debug, too."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    app = bed.application(database, [topic], keys=10, writers=2, count=150)
    host = bed.host(way, bed.member(database=database, log={"level": "debug"}, limits={"min_metrics_interval": "1s"}))
    leading = host.wait_leading()
    assert leading["is_leader"] and leading["asked_id"] == leading["leader_id"] and leading["in_flight"] == 0
    app.start().wait()
    collector.wait_count(150)
    if way != "thread":
        host.tell("sleep 700")   # called late
    bed.write(database, topic, "late", "late", truth=app.truth)
    bed.judge(app, collector, duplicates=0)
    if way != "thread":
        assert host.ask("ask", "answer")["leader_id"] == leading["leader_id"]
        assert_does_not_spin(bed, host)
    assert host.ask("@state", "state")["state"] == "running"
    ended = stop(host, "@stop")
    assert (ended["status"], ended["error"], ended["state"]) == (0, None, "stopped")
    revoked = host.wait("revoked")
    assert not revoked["is_leader"] and revoked["asked_id"] is None
    if way == "uv":
        assert host.wait("loop-closed")["status"] == 0
    assert host.find("log")
    assert_left_alone(host)


@pytest.mark.parametrize("way", ["poll", "thread"])
def test_stopped_by_a_signal_handler(bed, way):
    database = bed.database()
    host = bed.host(way, bed.member(database=database))
    host.wait_leading()
    host.signal(SIGNAL)
    assert host.wait("stopped")["status"] == 0
    assert_left_alone(host)


def test_three_harvests_in_one_process(bed):
    """Two on a loop of the host, one in a thread of its own: each with its own table, topics, group. One ends, the others go on."""
    databases, topics, apps, collectors = [], [], [], []
    for _ in range(3):
        databases.append(bed.database())
        topics.append(bed.topic())
        collectors.append(bed.collector(topics[-1]))
        apps.append(bed.application(databases[-1], [topics[-1]], keys=5, writers=1, pause=0.02))
    host = bed.host("uv", bed.member("reenter", database=databases[0]), bed.member(database=databases[1]),
                    bed.member("thread", "reenter", database=databases[2]))
    for h, app in enumerate(apps):
        host.wait_leading(h)
        app.start()
    for collector in collectors:
        collector.wait_count(50)
    assert len({line["leader_id"] for line in host.find("acquired")}) == 3
    assert stop(host, "@stop 1", 1)["status"] == 0
    apps[1].stop()
    for h in (0, 2):
        collectors[h].wait_count(collectors[h].count() + 50)
        apps[h].stop()
        bed.judge(apps[h], collectors[h], duplicates=0)
    assert not host.find("revoked", h=0) and not host.find("revoked", h=2)
    stop(host, "@stop 2", 2)
    stop(host, "@stop 0", 0)
    assert host.wait("loop-closed")["status"] == 0
    assert host.find("reentered") and all(line["fine"] for line in host.find("reentered"))
    assert_left_alone(host)


@pytest.mark.usefixtures("by_mark")
def test_refreshed(bed):
    """The database lets go of the connection while a mark is under way: what it did is unknown."""
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    host = bed.host("poll", bed.member("reenter", database=database))
    first = host.wait_leading()["leader_id"]
    with database.connect() as c, c.transaction():
        c.execute("LOCK TABLE outbox IN SHARE MODE")
        killed = []

        def kill():
            killed.extend(database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name LIKE 'harvestd claim%' AND wait_event_type = 'Lock'"))
            return killed
        wait_until(kill, 20, "a mark that waits for the table")
    event = host.wait("refreshed")
    assert event["leader_id"] not in (None, first) and event["asked_id"] == event["leader_id"] and event["reason"]
    assert event["is_leader"]
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    assert host.ask("ask", "answer")["leader_id"] == event["leader_id"]
    assert stop(host)["status"] == 0


@pytest.mark.usefixtures("by_mark")
def test_under_a_frozen_broker(bed):
    """What is in flight can be asked for, the leader's id is in the table, the lease runs out, it leads again, and at last it cannot settle
    everything and says so. Another one that winds up for too long is told."""
    broker = bed.own_kafka()
    database, topic = bed.database(), bed.topic(broker)
    collector = bed.collector(topic, broker)
    app = bed.application(database, [topic], keys=1, count=1)
    host = bed.host("poll", bed.member(database=database, kafka=broker,
                                       limits={"heartbeat_timeout": "6s", "drain_timeout": "1s"}))
    first = host.wait_leading()["leader_id"]
    bed.write(database, topic, "warm", "up", truth=app.truth)
    collector.wait_value("up")
    bed.wait_empty(database)
    broker.freeze()
    written = [(bed.write(database, topic, "key-%d" % (n % 7), "v%d" % n, truth=app.truth), "key-%d" % (n % 7))
               for n in range(30)]
    answer = wait_until(lambda: _answer_with(host, 30), 30, lambda: "30 in flight: %s" % host.find("answer")[-1])
    assert sorted(map(tuple, answer["keys"])) == sorted(written)
    assert answer["is_leader"] and answer["leader_id"] == first
    assert database.execute("SELECT DISTINCT leader_id::text FROM outbox") == [(first,)]
    fenced = host.wait("fenced")
    assert fenced["reason"] and not fenced["is_leader"] and fenced["leader_id"] is None
    broker.thaw()
    second = host.wait_leading(since=host.lines.index(fenced))
    assert second["leader_id"] != first
    bed.wait_empty(database)
    winding_up = bed.host("uv", bed.member("later", database=bed.database(), kafka=broker, limits={"heartbeat_timeout": "2s"}))
    winding_up.wait_leading()
    winding_up.tell("stop").wait("revoked")
    broker.freeze()
    bed.write(database, topic, "last", "last", truth=app.truth)
    wait_until(lambda: _answer_with(host, 1), 30, "one in flight")
    ended = stop(host)
    assert ended["status"] == -1 and "drain_timeout" in ended["error"]
    assert "did not wait" in winding_up.wait("fenced")["reason"]   # its session is over, others may lead
    winding_up.wait("stopped")
    broker.thaw()
    assert_left_alone(host)
    bed.harvestd(database, broker).wait_leading(60)
    bed.judge(app, collector)


def test_blocked_keys_can_be_asked_for(bed):
    database, topic = bed.database(), bed.topic()
    host = bed.host("poll", bed.member(database=database))
    assert host.ask("blocked", "blocked")["keys"] == []
    host.wait_leading()
    begin = time.time()
    bad, _ = [bed.write(database, name, "key", "v") for name in ("no topic", topic)]
    (row,) = wait_until(lambda: host.ask("blocked", "blocked")["keys"], 30, "a blocked key")
    assert (row["key"], row["id"], row["topic"], row["class"]) == ("key", bad, "no topic", "invalid row")
    assert row["reason"] and row["attempts"] >= 1 and begin - 1 < row["since"] / 1e6 < time.time() + 1
    assert row["next_try"] / 1e6 < time.time() + 60
    database.execute("UPDATE outbox SET kafka_topic = '%s'" % topic)
    bed.wait_empty(database)
    wait_until(lambda: host.ask("blocked", "blocked")["keys"] == [], 30, "none")
    assert stop(host)["status"] == 0


def _answer_with(host, in_flight):
    answer = host.ask("ask", "answer")
    return answer if answer["in_flight"] == in_flight and len(answer["keys"]) == in_flight else None


def test_hurry_does_not_wait_for_the_application(bed):
    host = bed.host("glib", bed.member("later", database=bed.database()))
    host.wait_leading()
    host.tell("stop").wait("revoked")
    assert host.ask("@state", "state")["state"] == "stopping"
    assert stop(host, "@hurry")["status"] == 0
    assert_left_alone(host)


def test_meter(bed):
    database, topic = bed.database(), bed.topic()
    collector = bed.collector(topic)
    interval = 0.5
    host = bed.host("uv", bed.member(database=database, harvest={"name": "metered"},
                                     limits={"min_metrics_interval": "%dms" % (interval * 1000)}))
    begin = time.time()
    host.wait_leading()
    app = bed.application(database, [topic], keys=5, writers=1, pause=0.02)
    app.start()
    wait_until(lambda: len(host.find("meter")) >= 4, 30, "four readings")
    app.stop()
    bed.judge(app, collector, duplicates=0)
    total = len(app.truth)
    wait_until(lambda: host.find("meter")[-1]["total"] == total, 20, "a reading of everything")
    readings = host.find("meter")
    time.sleep(4 * interval)   # idle
    assert host.find("meter") == readings
    sums = 0
    for last, r in zip([None] + readings, readings):
        sums += r["lap"]
        assert r["name"] == "metered" and r["total"] == sums and r["lap"] > 0
        assert begin - 60 < r["start"] / 1e6 < time.time() and r["start"] == readings[0]["start"]
        at = r["total"] / r["total_rate"]
        before = last["total"] / last["total_rate"] if last else 0
        assert at - before >= interval * 0.999, "told %f s after the one before" % (at - before)
        assert abs(r["lap"] / r["lap_rate"] - (at - before)) < 0.01
    stop(host)


# ---- handing over --------------------------------------------------------------------------------------------------------


def test_stop_in_a_handler(bed):
    database = bed.database()
    host = bed.host("uv", bed.member("reenter", "stop-on=acquired", database=database))
    host.wait_leading()
    assert host.wait("stopped")["status"] == 0
    assert [line["event"] for line in host.find(h=0) if line["event"] in ("acquired", "revoked")] == ["acquired", "revoked"]
    assert all(line["fine"] for line in host.find("reentered"))
    assert_left_alone(host)


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "range"])
def test_nobody_leads_before_the_application_is_done(bed, assignor):
    database, topic, group = bed.database(), bed.topic(), fresh_name("group")
    collector = bed.collector(topic)

    def member(name, *extra):
        return bed.member(*extra, database=database, group=group, harvest={"name": name, "leader_assignor": assignor})
    first = bed.host("poll", member("z-first", "later"), label="first")
    first.wait_leading()
    second = bed.host("uv", member("a-second"), label="second")
    if assignor == "range":
        first.wait("revoked")   # the lower name is given the partition
    else:
        second.wait("log", text='component=leader msg="joined" group=%s topic=%s.neli' % (group, group))
        first.tell("stop")
        first.wait("revoked")
    bed.write(database, topic, "k", "v")
    time.sleep(3)
    assert not second.find("acquired") and collector.count() == 0
    assert first.ask("state", "state")["state"] == ("running" if assignor == "range" else "stopping")
    done = time.monotonic()
    first.tell("@done")
    assert second.wait_leading()["at"] > done
    collector.wait_value("v")
    if assignor == "range":
        stop(first)
    first.wait("stopped")
    stop(second)


# ---- what it cannot start with --------------------------------------------------------------------------------------------


def test_an_ini_file(bed, tmp_path):
    database, topic = bed.database(), bed.topic()
    write_ini(str(tmp_path / "good.ini"), bed.settings(database))
    host = bed.host("thread", ["file=%s" % (tmp_path / "good.ini")])
    host.wait_leading()
    bed.write(database, topic, "k", "v")
    bed.wait_empty(database)
    stop(host)
    assert_left_alone(host)
