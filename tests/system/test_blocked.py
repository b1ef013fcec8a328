"""The control socket, and `harvestd blocked`: what a running daemon says of keys that wait; one daemon a path; clients that hold up nothing."""
import json
import os
import socket
import stat
import threading

from bed.daemon import run_once

NOWHERE = {"data_source": "host=127.0.0.1 port=1 dbname=none", "servers": "127.0.0.1:1"}


def lonely(bed, path, **options):
    """A daemon that reaches no server: enough to be asked."""
    return bed.harvestd(harvest={"control_socket": path}, **NOWHERE, **options)


def blocked(daemon, *arguments):
    return run_once("blocked", "-c", daemon.ini, *arguments)


def rows(daemon, *arguments):
    """The keys, the topics and the end of what it says."""
    done = blocked(daemon, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    end = lines.pop()
    assert end["type"] == "end"
    return [x for x in lines if x["type"] == "key"], [x for x in lines if x["type"] == "topic"], end


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


def test_ended_at_once_it_leaves_no_socket_either(bed, tmp_path):
    path = str(tmp_path / "control.sock")
    daemon = lonely(bed, path)
    daemon.wait_started()
    for _ in range(3):
        daemon.terminate()
    daemon.wait_exit()
    assert not os.path.lexists(path)


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
    for path, why in ((str(tmp_path / "missing" / "sock"), "is no directory"), (daemon.ini, "is no socket")):
        done = run_once("check", "-c", daemon.ini, "--set", "harvest.control_socket=" + path)
        assert done.returncode == 1 and "not ok  control socket: " in done.stdout and why in done.stdout


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
