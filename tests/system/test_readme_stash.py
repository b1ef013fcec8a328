"""The stasher's examples in the README are compiled and run from its own text."""
import os
import shlex
import subprocess

import pytest

from bed.daemon import command, run_once, write_ini
from bed.readme import block
from bed.util import BUILD, ROOT, SANITIZER_FLAGS


@pytest.fixture
def example(tmp_path):
    """The program. What pkg-config says of the installed library, here said of the one that was built."""
    text = block("stash-example")
    assert text.count("\n") <= 50
    (tmp_path / "example.c").write_text(text)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libpq"], stdout=subprocess.PIPE, text=True, check=True)
    program = str(tmp_path / "example")
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
                   + ["-o", program, str(tmp_path / "example.c"), "-I" + os.path.join(ROOT, "include"), "-L" + BUILD, "-Wl,-rpath," + BUILD,
                      "-lharvest"]
                   + shlex.split(flags.stdout) + SANITIZER_FLAGS, check=True)
    return program


def run(program, database, source=None):
    return subprocess.run([program, source or database.server.dsn(database.name)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60)


def payments(bed):
    """The topic of the examples; several tests write to it."""
    if "payments" not in bed.kafka.topics():
        bed.kafka.create_topic("payments")
    collector = bed.collector("payments")
    before = len(collector.read_to_end())
    return lambda: collector.read_to_end()[before:]


def test_what_the_example_writes_arrives(bed, example):
    database = bed.database()
    arrived = payments(bed)
    done = run(example, database)
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    assert database.count() == 11
    bed.harvestd(database)
    bed.wait_empty(database)
    assert [(m.key, m.value, m.headers) for m in arrived()] == [
        (b"customer-17", b'{"order": %d}' % n, (("type", b"OrderPaid"),)) for n in [4711] + list(range(1, 11))]


def test_the_example_says_what_is_wrong(bed, example):
    database = bed.database(table=None)
    done = run(example, database)
    assert done.returncode == 1 and "there is no table" in done.stderr
    done = subprocess.run([example, "host=/nowhere"], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "/nowhere" in done.stderr


def test_the_example_through_a_pooler(bed, example):
    """Whose only server connection has the prepared statement of the run before."""
    database = bed.database()
    pooler = bed.pgbouncer("transaction", default_pool_size=1)
    for n in (1, 2, 3):
        done = run(example, database, pooler.data_source(database))
        assert done.returncode == 0, done.stderr
        assert database.count() == 11 * n


def test_the_headers_work_alone_and_from_cpp(tmp_path):
    """No header of a library is needed for them, and a C++ compiler takes them."""
    (tmp_path / "alone.c").write_text('#include "harvest_stash.h"\nint main(void) { return harvest_stash_text("").length; }\n')
    for arguments in (["-std=c11", "-Wpedantic"], ["-x", "c++", "-std=c++11"]):
        if arguments[0] == "-x" and subprocess.run(["sh", "-c", "command -v c++"], stdout=subprocess.DEVNULL).returncode:
            continue
        subprocess.run(["cc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I" + os.path.join(ROOT, "include")] + arguments
                       + [str(tmp_path / "alone.c")], check=True)


def test_the_shell_example(bed, tmp_path):
    database = bed.database()
    arrived = payments(bed)
    write_ini(str(tmp_path / "harvestd.ini"), bed.settings(database))
    script = "harvestd() { %s \"$@\"; }\n%s" % (" ".join(shlex.quote(c) for c in command()), block("stash-shell"))
    done = subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout == "1 record written\n" * 2
    bed.harvestd(database)
    bed.wait_empty(database)
    assert [(m.key, m.value, m.headers) for m in arrived()] == [
        (b"customer-17", b"paid", (("type", b"OrderPaid"),)), (b"customer-17", None, ())]
    assert run_once("stash", "--help").returncode == 0
