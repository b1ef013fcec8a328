"""What processes have used: CPU to the nanosecond, memory."""
import os
import re
import time

from bed.util import children

TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pid):
    """CPU of a process that runs, all of its threads, also those that ended."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for the CPU clock of another process


def _of_ended_children(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS


def with_children(pid):
    """CPU of a process and all of its children, those that have ended included (for them: to the tick)."""
    while True:
        ended, total = _of_ended_children(pid), seconds(pid)
        for child in children(pid):
            try:
                total += seconds(child)
            except OSError:
                pass
        if _of_ended_children(pid) == ended:  # or one ended meanwhile, and would count twice or not at all
            return total + ended


def memory_mb(pid, field="VmRSS"):
    """VmRSS: now; VmHWM: the peak; RssAnon: what is not in files."""
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(field + r":\s+(\d+)", f.read()).group(1)) / 1024


class Meter:
    """CPU that the two servers use while something runs: Postgres with all sessions (also the writers' and our own), the broker."""

    def __init__(self, servers):
        self.postgres, self.broker = servers.postgres.process.pid, servers.broker.process.pid
        self.start = self._read()

    def _read(self):
        return with_children(self.postgres), seconds(self.broker)

    def used(self):
        """(Postgres, Kafka), seconds"""
        return tuple(now - then for now, then in zip(self._read(), self.start))

    def per_record(self, records):
        """As figures, in µs."""
        postgres, kafka = self.used()
        return {"postgres": postgres * 1e6 / records, "kafka": kafka * 1e6 / records}
