"""The demo: shows everything and leaves nothing behind, also when it is interrupted; and its judge is a strict one."""
import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

from bed.util import ROOT, wait_until

DEMO = os.path.join(ROOT, "scripts", "demo")
SUMMARY = r"^written=(\d+) rolled_back=(\d+) received=(\d+) lost=0 out_of_order=0 seconds=\d+\.\d$"


def start(directory, *arguments):
    return subprocess.Popen([DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=dict(os.environ, TMPDIR=str(directory)))


def processes_in(directory):
    """Pids of all processes that were told about that directory, or work in it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid) as f:
                if str(directory) in f.read() or str(directory) in os.readlink("/proc/%s/cwd" % pid):
                    found.append(pid)
        except OSError:
            pass
    return found


@pytest.fixture
def directory():
    # Not pytest's own: its name would be too long for a socket in it.
    path = tempfile.mkdtemp(prefix="hv-demo-")
    os.chmod(path, 0o711)  # the server runs as another user when we are root
    try:
        yield path
        wait_until(lambda: not processes_in(path), 10, lambda: "the end of %s" % processes_in(path))
        assert os.listdir(path) == []
    finally:
        shutil.rmtree(path)


@pytest.mark.parametrize("broker", ["mock", "kafka"])
def test_shows_records_and_sums_up(directory, broker):
    demo = start(directory, "--broker", broker)
    out = demo.communicate(timeout=120)[0]
    assert demo.returncode == 0, out
    summary = re.search(SUMMARY, out, re.M)
    assert summary, out
    written, rolled_back, received = map(int, summary.groups())
    assert written == received > 50 and rolled_back > 5
    assert "NULL (tombstone)" in out and "zoë" in out
    assert len(re.findall(r"^  (orders|payments|customers) +\d +\d+ ", out, re.M)) == received


@pytest.mark.parametrize("moment, signum", [
    ("==> Postgres", signal.SIGTERM), ("==> harvestd.ini", signal.SIGINT), ("==> harvestd run", signal.SIGTERM),
    ("tombstone", signal.SIGINT)])
def test_leaves_nothing_behind_when_interrupted(directory, moment, signum):
    demo = start(directory)
    seen = []
    while not any(moment in line for line in seen):
        seen.append(demo.stdout.readline())
        assert seen[-1], "".join(seen)
    demo.send_signal(signum)
    demo.communicate(timeout=60)
    assert demo.returncode == 128 + signum


@pytest.fixture(scope="module")
def judge_class():
    loader = importlib.machinery.SourceFileLoader("harvestd_demo", DEMO)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("harvestd_demo", loader))
    loader.exec_module(module)
    return module.Judge


RECORDS = {1: ("orders", "a", '{"seq": 1}', []), 2: ("orders", "a", None, [("seq", "2")]),
           3: ("orders", "b", '{"seq": 3}', [("type", "x")])}


@pytest.mark.parametrize("taken, lost, out_of_order, wrong", [
    ([1, 2, 3], [], 0, 0),
    ([3, 1, 2], [], 0, 0),
    ([2, 1, 3], [], 1, 0),
    ([1, 3], [2], 0, 0),
    ([1, 2, 2, 3], [], 0, 1),
])
def test_judge_counts(judge_class, taken, lost, out_of_order, wrong):
    judge = judge_class()
    judge.committed = dict(RECORDS)
    for seq in taken:
        judge.take(*RECORDS[seq])
    assert (judge.lost(), judge.out_of_order, len(judge.wrong)) == (lost, out_of_order, wrong)


@pytest.mark.parametrize("received", [
    ("orders", "a", '{"seq": 4}', []),  # was rolled back
    ("orders", "b", '{"seq": 1}', []),
    ("orders", "a", '{"seq": 1}', [("type", "x")]),
    ("payments", "a", '{"seq": 1}', []),
    ("orders", "a", '{"seq":  1}', []),
])
def test_judge_compares_all_of_a_record(judge_class, received):
    judge = judge_class()
    judge.committed = dict(RECORDS)
    judge.take(*received)
    assert len(judge.wrong) == 1
