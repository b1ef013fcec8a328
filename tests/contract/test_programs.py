"""Runs the contract tests: each tests/contract/test_*.c is a program that puts one adapter to the test against its real library.

A program is given HV_TEST_PG, a connection string of a private Postgres (superuser, TLS possible), and HV_TEST_KAFKA, the address of a private
broker with ACLs, each started only if one asks for it. Mock clusters, proxies and scripted servers are the programs' own affair.
A program has a time limit and a process of its own."""
import glob
import os
import shutil
import signal
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

from bed.kafka import Kafka  # noqa: E402
from bed.postgres import Postgres  # noqa: E402
from bed.util import wait_until  # noqa: E402

BUILD = os.environ.get("HARVESTD_BUILD", os.path.join(ROOT, "build"))
SOURCES = sorted(glob.glob(os.path.join(HERE, "test_*.c")))
LIMIT = 200  # seconds


def certify(server):
    """A certificate of its own. openssl comes with Debian's Postgres packages."""
    key, certificate = (os.path.join(server.data, "server." + end) for end in ("key", "crt"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    for path in (key, certificate):
        os.chmod(path, 0o600)
        if server.user:
            shutil.chown(path, server.user)


@pytest.fixture(scope="module")
def postgres():
    server = Postgres(ssl="on")
    try:
        server.create()
        certify(server)
        yield server.start()
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def kafka():
    broker = Kafka(authorizer_class_name="org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                   allow_everyone_if_no_acl_found="true")
    try:
        yield broker.create().start()
    finally:
        broker.destroy()


def run(command, environment, limit=LIMIT):
    """(exit code, output); the code is None if it took too long, and then nothing of its process group is left."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace", start_new_session=True)
    try:
        output = process.communicate(timeout=limit)[0]
    except BaseException as error:   # it is not reaped yet, so the group is its own
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0]
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, output
    return process.returncode, output


def is_gone(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"   # nobody may be there to reap it
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("name", [os.path.basename(path)[:-2] for path in SOURCES])
def test_program(name, request):
    environment = dict(os.environ)
    sources = [os.path.join(HERE, name + ".c")] + glob.glob(os.path.join(HERE, "pg_*.c")) * name.startswith("test_pg")
    if any("HV_TEST_PG" in open(path, encoding="utf-8").read() for path in sources):
        environment["HV_TEST_PG"] = request.getfixturevalue("postgres").data_source()
    if any("HV_TEST_KAFKA" in open(path, encoding="utf-8").read() for path in sources):
        environment["HV_TEST_KAFKA"] = request.getfixturevalue("kafka").servers
    code, output = run([os.path.join(BUILD, "tests", name)], environment)
    print(output)
    assert code is not None, "%s did not end within %d s" % (name, LIMIT)
    assert code == 0, "%s ended with %d" % (name, code)
    assert "[  PASSED  ]" in output, "%s ran no test" % name


def test_nothing_is_left_of_a_program_that_does_not_end():
    """Nor of the processes that it started (some run each test in one of its own)."""
    code, output = run(["sh", "-c", "sleep 1000 & echo $!; wait"], None, limit=1)
    assert code is None
    wait_until(lambda: is_gone(int(output)), 20, lambda: "process %s is still there" % output)


def test_there_are_programs():
    assert SOURCES
