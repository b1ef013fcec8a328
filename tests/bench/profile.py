#!/usr/bin/python3
"""Where the daemon's CPU goes while it drains a full table: its busiest functions by themselves, by thread and by library, as `perf`
samples them (Debian: linux-perf; as root, or with kernel.perf_event_paranoid <= 1 as the daemon's user).

Functions that a library does not export have no names, unless its debug symbols are installed (librdkafka1-dbgsym, libpq5-dbgsym)."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from benchlib import Wrong, drain  # noqa: E402
from benchlib.records import Records  # noqa: E402
from benchlib.servers import Servers  # noqa: E402

from bed.postgres import TABLE  # noqa: E402


def recorder(path, frequency, stacks):
    """A context for drain.py that samples the daemon."""
    class Recording:
        def __init__(self, harvestd):
            self.pid, self.process = harvestd.pid, None

        def __enter__(self):
            graph = ["--call-graph", "dwarf,4096"] if stacks else []
            self.process = subprocess.Popen(["perf", "record", "-q", "-F", str(frequency), *graph, "-o", path, "-p", str(self.pid)])

        def __exit__(self, *_):
            self.process.terminate()
            self.process.wait(timeout=60)
    return Recording


def show(path, title, sort, limit, *options):
    out = subprocess.run(["perf", "report", "-i", path, "--stdio", "-q", "--sort", sort, "-g", "none", *options],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    lines = [line.rstrip() for line in out.splitlines() if line.strip() and not line.startswith("#")]
    print("\n%s" % title)
    print("\n".join(lines[:limit]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--value-bytes", type=int, default=200)
    parser.add_argument("--strategy", choices=["cursor", "mark"], default="cursor")
    parser.add_argument("--frequency", type=int, default=2999)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--stacks", action="store_true", help="also who calls (slower): functions with all that they call")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="for the daemon")
    args = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("profile: perf is not installed (Debian: linux-perf)")
    with tempfile.TemporaryDirectory(prefix="harvestd-bench-") as directory, Servers() as servers:
        path = os.path.join(directory, "perf.data")
        database = servers.postgres.database(TABLE + " WITH (autovacuum_enabled = off)")
        figures = drain.drain(servers, database, Records(args.keys, args.value_bytes), args.records, args.strategy, args.set,
                              while_draining=recorder(path, args.frequency, args.stacks))
        print("%d records, %.0f/s, %.2f µs of CPU each, perf's share included" % (args.records, figures["rate"], figures["cpu"]))
        show(path, "by thread", "comm", args.top, "--no-children")
        show(path, "by thread and library", "comm,dso", 2 * args.top, "--no-children")
        show(path, "functions by themselves", "comm,dso,symbol", args.top, "--no-children")
        show(path, "harvestd's own functions by themselves", "symbol", args.top, "--no-children", "--dsos", "harvestd")
        if args.stacks:
            show(path, "harvestd's own functions with all that they call", "symbol", 3 * args.top, "--children", "--dsos", "harvestd")


if __name__ == "__main__":
    try:
        main()
    except (Wrong, OSError, subprocess.SubprocessError) as e:
        sys.exit("profile: %s" % e)
