"""A limit to the CPU that a process gets: by the kernel where it lets us (control groups, version 2 or 1), otherwise by stopping and
continuing it in turns, as cpulimit does."""
import os
import signal
import threading
import time

PERIOD_US = 100_000  # the kernel's own default
ROOT = "/sys/fs/cgroup"


class Unlimited:
    how = "none"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def apply(self, pid):
        pass


def _write(path, value):
    """Into a file that is there: a directory that is no control group would take any."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


class _Group:
    """One control group of our own, for one process; gone afterwards."""

    def __init__(self, parent, settings, how):
        if not os.path.exists(os.path.join(parent, "cgroup.procs")):
            raise FileNotFoundError(parent)  # no control groups there; a directory could be made all the same
        self.path = os.path.join(parent, "harvestd-bench-%d" % os.getpid())
        self.how = how
        os.mkdir(self.path)
        try:
            for name, value in settings.items():
                self._write(name, value)
        except OSError:
            os.rmdir(self.path)
            raise

    def _write(self, name, value):
        _write(os.path.join(self.path, name), value)

    def __enter__(self):
        return self

    def apply(self, pid):
        self._write("cgroup.procs", str(pid))

    def __exit__(self, *_):
        with open(os.path.join(self.path, "cgroup.procs")) as f:
            pids = f.read().split()
        for pid in pids:  # back to where they came from, or the group cannot be removed
            _write(os.path.join(os.path.dirname(self.path), "cgroup.procs"), pid)
        os.rmdir(self.path)


class _DutyCycle:
    """Stops the process when it has used its share of a period."""

    def __init__(self, share):
        self.share, self.how = share, "SIGSTOP and SIGCONT in turns"
        self.ended, self.thread = threading.Event(), None

    def __enter__(self):
        return self

    def apply(self, pid):
        self.thread = threading.Thread(target=self._limit, args=(pid,), daemon=True)
        self.thread.start()

    def _limit(self, pid):
        from . import cpu
        period, start, used = PERIOD_US / 1e6, time.monotonic(), cpu.seconds(pid)
        try:
            while not self.ended.wait(0.002):
                ahead = (cpu.seconds(pid) - used) - self.share * (time.monotonic() - start + period)
                if ahead > 0:
                    os.kill(pid, signal.SIGSTOP)
                    self.ended.wait(ahead / self.share)
                    os.kill(pid, signal.SIGCONT)
        except OSError:
            pass  # it has ended

    def __exit__(self, *_):
        self.ended.set()
        if self.thread:
            self.thread.join()


def tenth_of_a_core():
    quota = PERIOD_US // 10
    for parent, settings, how in (
            (ROOT, {"cpu.max": "%d %d" % (quota, PERIOD_US)}, "cgroup v2, cpu.max"),
            (os.path.join(ROOT, "cpu"), {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)},
             "cgroup v1, cpu.cfs_quota_us")):
        try:
            return _Group(parent, settings, how)
        except OSError:
            pass
    return _DutyCycle(0.1)
