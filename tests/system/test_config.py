"""Configuration, log and signals at the command line, without servers: what is wrong is told at once and nothing is started;
a daemon that reaches nobody still logs without waiting and stops when it is told to."""
import contextlib
import os
import re
import signal
import socket
import subprocess

import pytest

from bed.daemon import command, run_once
from bed.util import ROOT, free_port

DEADLINE = 30


def refused(*arguments, **options):
    """The lines that a wrong configuration is answered with."""
    done = run_once(*arguments, timeout=DEADLINE, **options)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture
def listener():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(8)
        s.settimeout(DEADLINE)
        yield s


def settings_for(port):
    return "[harvest]\ndata_source = host=127.0.0.1 port=%d dbname=x\n[kafka]\nbootstrap.servers = 127.0.0.1:%d\n" % (port, port)


# -- the whole of what is wrong, in the order of lines -----------------------------------------------------------------


def test_every_error_with_its_line_and_the_nearest_name(tmp_path):
    path = tmp_path / "a.ini"
    path.write_bytes(b"""name = too early
[harvest]
data_sorce = host=a
name = one
name = two
[limits
mark_backoff = 1s
[limits]
mark_backoff = ten
queue_timeout = 25h
  send_buffer = 1
poll_duration = 1ms ; fast
\x00
[kafak]
bootstrap.servers = x
[kafka]
bootstrap.server = x
[log]
level = info\x1b[2J
""" + b"format = " + b"x" * 20000 + b"\n")
    expected = [
        ":1: name stands before any section; put it below [harvest]",
        ":3: unknown setting 'data_sorce' in [harvest]; did you mean data_source?",
        ":5: name: it is set in line 4 already; leave one of the two",
        ":6: the section header has no ']'; the settings below it are not looked at",
        ":9: mark_backoff: 'ten' is not a duration;",
        ":10: queue_timeout: '25h' is out of range; it is 1s to 24h",
        ":11: indented more than line 10, this line would continue the value of queue_timeout;",
        ":12: poll_duration: a blank followed by ; or #",
        ":13: the line holds a NUL byte;",
        ":14: unknown section 'kafak'; did you mean [kafka]?",
        ":17: bootstrap.server: librdkafka ",
        ":19: the line holds a control character",
        ":20: the line is 20009 bytes long, 16000 are allowed;",
        "--set unknown setting 'mark_bakcoff' in [limits]; did you mean mark_backoff?",
    ]
    lines = refused("run", "--config", str(path), "--set", "limits.mark_bakcoff=1s")
    for line, start in zip(lines, expected):
        line = line.removeprefix(str(path)) if start.startswith(":") else line
        assert line.startswith(start), line
    assert len(lines) == len(expected), lines


def test_nothing_is_started(tmp_path, listener):
    path = tmp_path / "a.ini"
    path.write_text(settings_for(listener.getsockname()[1]) + "[log]\nlevel = loud\n")
    for cmd in "run", "check", "schema":
        assert len(refused(cmd, "-c", str(path))) == 1
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_passwords_are_not_shown(tmp_path):
    path = tmp_path / "a.ini"
    path.write_text("[harvest]\ndata_source = host=a password=b Topsecret\n[kafka]\nsasl.pasword = Topsecret\n"
                    "sasl.password = Topsecret ;x\n")
    lines = refused("run", "-c", str(path), "-s", "harvest.data_source=password='Topsecret", "-s", "Topsecret")
    assert len(lines) == 5 and "Topsecret" not in "".join(lines)


# -- the file itself ---------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(tmp_path):
    empty, large = tmp_path / "empty.ini", tmp_path / "large.ini"
    empty.touch()
    large.write_bytes(b"\n" * (1024 * 1024 + 1))
    missing = str(tmp_path / "missing.ini")
    assert refused("-c", missing) == [missing + ": cannot be opened: No such file or directory"]
    assert refused("-c", str(tmp_path)) == [str(tmp_path) + ": is a directory; name a file"]
    assert re.fullmatch(r".*empty.ini: is empty; .*", refused("-c", str(empty))[0])
    assert re.fullmatch(r".*large.ini: is larger than 1 MiB; .*", refused("-c", str(large))[0])


def test_a_file_without_rights(tmp_path):
    path = tmp_path / "a.ini"
    path.write_text("[harvest]\n")
    path.chmod(0)
    if os.geteuid() != 0:
        lines = refused("-c", str(path))
    elif len(command()) > 1:
        pytest.skip("a wrapper cannot be run as somebody else")
    else:  # root reads everything, so let somebody else be refused
        lines = refused("-c", "/proc/self/fd/3/a.ini", **as_nobody(tmp_path))
    assert len(lines) == 1 and lines[0].endswith("cannot be opened: Permission denied")


def as_nobody(directory):
    """Runs the daemon as nobody, with the directory (that nobody could not walk to) as descriptor 3."""
    binary = os.open(command()[-1], os.O_RDONLY)
    place = os.open(directory, os.O_RDONLY)

    def become():
        os.dup2(place, 3)
        os.fchmod(3, 0o755)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    return {"preexec_fn": become, "pass_fds": [binary, 3], "executable": "/proc/self/fd/%d" % binary}


def test_the_default_file_is_named_when_it_is_missing():
    if os.path.exists("/etc/harvestd/harvestd.ini"):
        pytest.skip("this machine has a configuration")
    assert refused() == ["/etc/harvestd/harvestd.ini: cannot be opened: No such file or directory"]
    assert run_once("schema").returncode == 0  # needs no more than a name, and has a default


def test_a_configuration_may_come_through_a_pipe():
    done = subprocess.run(command() + ["schema", "-c", "/dev/stdin"], input="[harvest]\noutbox_table = \"My\".\"Box\"\n",
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and done.stdout.startswith('CREATE TABLE IF NOT EXISTS "My"."Box" (')


def test_the_sample_configuration_is_taken_as_it_is_and_with_all_its_lines_in_force(tmp_path):
    sample = os.path.join(ROOT, "etc", "harvestd.ini")
    assert run_once("schema", "-c", sample).returncode == 0
    with open(sample) as f:
        text = re.sub(r"(?m)^;([a-z][\w.]* = [^<])", r"\1", f.read())
    path = tmp_path / "a.ini"
    path.write_text(text)
    done = run_once("schema", "-c", str(path))
    assert done.returncode == 0 and done.stderr == ""


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_of_all_and_of_each_command():
    everything = run_once("--help").stdout
    commands = re.findall(r"^  ([a-z]+)  ", everything.split("Commands:")[1].split("Options:")[0], re.M)
    assert {"run", "check", "schema", "version"} <= set(commands)
    for name in commands:
        done = run_once(name, "--help")
        assert done.returncode == 0 and re.match(r"Usage: harvestd %s( [a-z|]+)? \[options\]\n" % name, done.stdout)
        assert "--config FILE" in done.stdout and all(len(line) <= 100 for line in done.stdout.splitlines())


# -- output ------------------------------------------------------------------------------------------------------------


def test_output_that_does_not_arrive_is_a_failure():
    with open("/dev/full", "w") as full:
        for arguments in ["--help"], ["--help-config"], ["version"], ["schema", "-c", "/dev/stdin"]:
            done = subprocess.run(command() + arguments, input="[log]\n", stdout=full, stderr=subprocess.PIPE, text=True,
                                  timeout=DEADLINE)
            assert done.returncode == 1 and "No space left" in done.stderr, arguments


# -- a daemon that reaches nobody --------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemon(tmp_path, port, *arguments, **options):
    path = tmp_path / "a.ini"
    path.write_text(settings_for(port))
    process = subprocess.Popen(command() + ["run", "-c", str(path), *arguments], stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_line(process, part):
    for line in process.stderr:
        if part in line:
            return line
    raise AssertionError("ended without %r" % part)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(tmp_path, number):
    with daemon(tmp_path, free_port(), stderr=subprocess.PIPE, text=True) as process:
        line = wait_line(process, 'msg="started"')
        assert "component=main" in line and "pid=%d" % process.pid in line and "version=" in line
        process.send_signal(signal.SIGHUP)  # says that it cannot, and goes on
        wait_line(process, "signal=SIGHUP")
        process.send_signal(number)
        assert "signal=" + number.name in wait_line(process, 'msg="stopping"')
        wait_line(process, 'msg="stopped"')
        assert process.wait(DEADLINE) == 0


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path, listener):
    """Standard error is a pipe that is full from the beginning. It has to stop nevertheless, and quickly enough."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    port = listener.getsockname()[1]
    with daemon(tmp_path, port, "-s", "log.level=debug", stderr=writing) as process:
        with listener.accept()[0]:  # it is at work
            assert os.get_blocking(writing)  # the description is shared with us and stays as it was
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
    os.close(writing)
    os.close(reading)


def test_it_runs_without_standard_descriptors(tmp_path, listener):
    """No socket may become standard error."""
    def close_all():
        for fd in 0, 1, 2:
            os.close(fd)
    port = listener.getsockname()[1]
    # Without dumps the kernel hides the descriptors of a process from its own user.
    with daemon(tmp_path, port, "-s", "harvest.core_dumps=on", preexec_fn=close_all) as process:
        with listener.accept()[0] as connection:
            connection.settimeout(DEADLINE)
            assert b"level=" not in connection.recv(64)
            for fd in 0, 1, 2:
                assert os.readlink("/proc/%d/fd/%d" % (process.pid, fd)) == "/dev/null"
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
