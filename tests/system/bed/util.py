"""Small things that all parts of the bed use: deadlines, ports, children, seeds."""
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.environ.get("HARVESTD_BUILD") or os.path.join(ROOT, "build")

# A sanitizer has its own idea of memory and core dumps; what is linked against the library has to be built as it was.
SANITIZED = "asan" in BUILD
SANITIZER_FLAGS = ["-fsanitize=address,undefined"] if SANITIZED else []


class TimedOut(AssertionError):
    """Something that should have happened did not, in time."""


def wait_until(condition, deadline, what, every=0.02):
    """Calls condition() until it is true, and returns what it gave; TimedOut after deadline seconds."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise TimedOut("waited %.0f s in vain for: %s" % (deadline, what() if callable(what) else what))
        time.sleep(every)


_given = set()
_given_lock = threading.Lock()
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4


def free_port():
    """A loopback port that nobody listens on, below the range of outgoing connections, so that a server that is down
    for a while finds it free again. Workers that test at the same time choose from ranges of their own."""
    while True:
        port = random.SystemRandom().randint(15000 + 4000 * _WORKER, 18999 + 4000 * _WORKER)
        with _given_lock:
            if port in _given:
                continue
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            return port


def spawn(command, death_signal="KILL", user=None, **options):
    """Starts a child that ends when we end, however we end."""
    prefix = ["setpriv", "--pdeathsig", death_signal]
    if user is not None and os.geteuid() == 0:
        prefix += ["--reuid", user, "--regid", user, "--clear-groups"]
    # Its own session: Ctrl-C at the terminal is ours, the children are stopped in order by their fixtures.
    return subprocess.Popen(prefix + ["--"] + command, start_new_session=True, **options)


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def process_cpu_seconds(pid):
    """CPU that a process has used so far, user and system."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_state(pid):
    """R, S, D, T, Z ... or None when it is gone."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def process_rss_bytes(pid):
    with open("/proc/%d/statm" % pid) as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def end_process(process, signum, patience):
    """Sends the signal, and kills what has not ended after so many seconds."""
    process.send_signal(signum)
    try:
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def remove_tree(path):
    shutil.rmtree(path, ignore_errors=True)


def tail(path, lines, but=None):
    """The last lines of a file that may be missing, without those that match the pattern `but`."""
    try:
        with open(path, errors="replace") as f:
            return "".join([line for line in f if not but or not re.search(but, line)][-lines:])
    except OSError:
        return ""


def fnv1a(text):
    """FNV-1a, 32 bits: what decides the shard of a key."""
    h = 2166136261
    for byte in text.encode() if isinstance(text, str) else text:
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h


def keys_in_shard(shard, shards, count, prefix="key"):
    """`count` keys that fall into that shard."""
    found, n = [], 0
    while len(found) < count:
        key = "%s-%d" % (prefix, n)
        if fnv1a(key) % shards == shard:
            found.append(key)
        n += 1
    return found
