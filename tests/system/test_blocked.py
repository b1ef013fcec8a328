"""The control socket, and `harvestd blocked`: what a running daemon says of keys that wait; one daemon a path; clients that hold up nothing."""
import datetime
import json
import os
import random
import shlex
import socket
import stat
import string
import threading
import time

import pytest
from confluent_kafka.admin import ConfigResource

from bed import readme
from bed.blocked import blocked, rows, wait_rows
from bed.daemon import run_once
from bed.postgres import TABLE_WITHOUT_CONSTRAINTS
from bed.util import wait_until

LIMITS = {"io_error_backoff": "100ms", "blocked_backoff_max": "1s"}
# More than the topics here take, and not to be compressed.
BIG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=5000))
NOWHERE = {"data_source": "host=127.0.0.1 port=1 dbname=none", "servers": "127.0.0.1:1"}


def lonely(bed, path, **options):
    """A daemon that reaches no server: enough to be asked."""
    return bed.harvestd(harvest={"control_socket": path}, **NOWHERE, **options)


# ---- the socket ----

def test_a_socket_for_its_user_alone_and_gone_at_the_end(bed, tmp_path):
    path = str(tmp_path / "control.sock")
    daemon = lonely(bed, path)
    daemon.wait_started()
    there = os.lstat(path)
    assert stat.S_ISSOCK(there.st_mode) and stat.S_IMODE(there.st_mode) == 0o600
    done = blocked(daemon)
    assert done.returncode == 0 and done.stdout == "no key is blocked\nthis instance does not lead: ask the one that does\n"
    assert rows(daemon)[2]["leads"] is False
    daemon.stop()
    assert not os.path.lexists(path)
    done = blocked(daemon)
    assert done.returncode == 1 and done.stdout == "" and "nobody listens at %s: harvestd does not run" % path in done.stderr


def test_no_control_socket(bed):
    daemon = bed.harvestd(**NOWHERE)
    daemon.wait_started()
    done = blocked(daemon)
    assert done.returncode == 2 and "control_socket is not set" in done.stderr and "/run/harvestd/control.sock" in done.stderr


def test_two_daemons_with_one_path(bed, tmp_path):
    path = str(tmp_path / "control.sock")
    first = lonely(bed, path)
    first.wait_started()
    second = lonely(bed, path)
    assert second.wait_exit() == 1
    refusal = second.wait_log("main", "cannot start")
    assert refusal["reason"] == "control_socket: another daemon serves %s; give each a path of its own" % path
    assert rows(first)[2]["name"] and os.path.exists(path), "the first one is still asked"
    first.kill()
    assert os.path.exists(path)
    assert blocked(first).returncode == 1
    second.start().wait_started()
    assert rows(second)[2]["name"], "what the killed one left was replaced"


def test_paths_that_cannot_be(bed, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    for path, why in ((str(precious), "is no socket"), (str(tmp_path / "missing" / "sock"), "its directory has to be there")):
        daemon = lonely(bed, path)
        assert daemon.wait_exit() == 1
        assert why in daemon.wait_log("main", "cannot start")["reason"]
    assert precious.read_text() == "kept"
    for path, why in (("control.sock", "no path of a file from / on"), ("/tmp/", "no path of a file"), ("/" + "x" * 107, "107 are allowed")):
        done = run_once("check", "-c", "/dev/null", "--set", "harvest.control_socket=" + path)
        assert done.returncode == 2 and why in done.stderr


def test_check_looks_at_the_path(bed, tmp_path):
    daemon = bed.harvestd(bed.database(), harvest={"control_socket": str(tmp_path / "control.sock")})
    daemon.wait_started()
    assert "ok      control socket\n" in run_once("check", "-c", daemon.ini).stdout
    done = run_once("check", "-c", daemon.ini, "--set", "harvest.control_socket=%s" % (tmp_path / "missing" / "sock"))
    assert done.returncode == 1 and "not ok  control socket: %s is no directory" % (tmp_path / "missing") in done.stdout


def test_a_daemon_that_was_paused_answers_afterwards(bed, tmp_path):
    """... until it goes on."""
    path = str(tmp_path / "control.sock")
    daemon = lonely(bed, path)
    daemon.wait_started()
    daemon.pause()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"blocked\n")
        daemon.resume()
        s.settimeout(20)
        assert json.loads(s.makefile().readline())["type"] == "end"


def test_strangers_are_told(bed, tmp_path):
    path = str(tmp_path / "control.sock")
    daemon = lonely(bed, path)
    daemon.wait_started()
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert json.loads(s.makefile().readline())["type"] == "error"
    os_path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os_path)
        server.listen()

        def serve():
            client, _ = server.accept()
            client.recv(100)
            client.sendall(b"SSH-2.0\r\n")
            client.close()
        thread = threading.Thread(target=serve)
        thread.start()
        done = run_once("blocked", "-c", daemon.ini, "--set", "harvest.control_socket=" + os_path)
        thread.join()
    assert done.returncode == 1 and "not harvestd" in done.stderr


# ---- what is blocked ----

def put(database, topic, key, value, headers="{}"):
    return database.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) "
                            "VALUES (now(), %s, %s, %s, %s, '{}') RETURNING id", [topic, key, value, headers])[0][0]


@pytest.mark.usefixtures("each_strategy")
def test_a_record_too_large_for_its_topic(bed, tmp_path):
    database, topic = bed.database(), bed.topic(max_message_bytes=2000)
    collector = bed.collector(topic)
    key = 'näme "\\\x1b[31m'
    daemon = bed.harvestd(database, limits=LIMITS, harvest={"control_socket": str(tmp_path / "control.sock")})
    daemon.wait_leading()
    assert rows(daemon)[2]["leads"] is True and blocked(daemon).stdout == "no key is blocked\n"
    begin = time.time()
    bad = put(database, topic, key, BIG)
    put(database, topic, key, "behind")
    put(database, topic, "other", "flows")
    collector.wait_value("flows")
    (row,), topics, end = wait_rows(daemon, lambda keys: len(keys) == 1 and keys[0]["attempts"] > 0)
    assert (row["key"], row["id"], row["topic"], row["policy"]) == (key, bad, topic, "block") and end["keys"] == 1 and topics == []
    assert "too large" in row["reason"].lower() and "shard" not in row
    since = datetime.datetime.fromisoformat(row["since"].replace("Z", "+00:00")).timestamp()
    assert int(begin) <= since <= time.time() + 1
    first = row["attempts"]
    (row,), _, _ = wait_rows(daemon, lambda keys: keys[0]["attempts"] >= first + 4)   # more than a second later
    assert row["since"] == datetime.datetime.fromtimestamp(since, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert row["retry_in"] is None or 0 <= row["retry_in"] <= 1.5
    done = blocked(daemon)
    line = next(line for line in done.stdout.splitlines() if line.startswith('näme "\\\\\\x1b[31m  '))
    assert line.split()[2:6] == [str(bad), topic, "too", "large"] and done.stdout.endswith("\n1 key blocked, 0 topics closed\n")
    assert BIG[:20] not in done.stdout + blocked(daemon, "--json").stdout
    assert rows(daemon, "--topic", "another")[0] == []
    for line in readme.block("blocked").splitlines():
        shown = run_once(*shlex.split(line.replace("harvestd.ini", daemon.ini), comments=True)[1:])
        assert shown.returncode == 0 and (topic in shown.stdout) != ("--topic" in line)
    resource = ConfigResource("topic", topic, set_config={"max.message.bytes": "1000000"})
    admin = bed.kafka.admin()   # has to live until the answer
    admin.alter_configs([resource])[resource].result(timeout=20)
    collector.wait_value("behind", deadline=60)
    wait_rows(daemon, lambda keys: keys == [])
    assert blocked(daemon).stdout == "no key is blocked\n"
    bed.wait_empty(database)


class Sleepers:
    """Clients that ask and never read."""

    def __init__(self, path, count):
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
        for s in self.sockets:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            s.connect(path)
            s.sendall(b"blocked\n")

    def close(self):
        for s in self.sockets:
            s.close()


def test_thousands_of_keys_while_others_flow(bed, tmp_path):
    """All are told, each time, while records go through; clients that never read hold up neither those nor, for long, other clients."""
    many, path = 3000, str(tmp_path / "control.sock")
    database, topic = bed.database(TABLE_WITHOUT_CONSTRAINTS), bed.topic()
    collector = bed.collector(topic)
    daemon = bed.harvestd(database, limits=LIMITS, harvest={"control_socket": path})
    daemon.wait_leading()
    database.execute("INSERT INTO outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values) "
                     "SELECT now(), '%s', 'bad ' || n, 'x', '{a}', '{}' FROM generate_series(1, %d) n" % (topic, many))
    ids = {row_id: key for row_id, key in database.execute("SELECT id, kafka_key FROM outbox")}
    wait_rows(daemon, lambda keys: len(keys) == many)
    app = bed.application(database, [topic], writers=2, pause=0.01)
    app.start()
    wait_until(lambda: len(collector.values()) > 0, 30, "records")
    for sleepers in (0, 2):
        silent = Sleepers(path, sleepers)
        before = len(collector.values())
        for _ in range(4):
            keys, _, end = rows(daemon)
            assert {row["id"]: row["key"] for row in keys} == ids and len(keys) == many == end["keys"]
        collector.wait_count(before + 200, deadline=60)
        silent.close()
    assert len(rows(daemon, "--limit", "7")[0]) == 7 and "2993 not shown" in blocked(daemon, "--limit", "7").stdout
    app.stop()
    database.execute("DELETE FROM outbox WHERE kafka_key LIKE 'bad %'")
    wait_rows(daemon, lambda keys: keys == [])
    bed.judge(app, collector)
