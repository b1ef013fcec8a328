#!/usr/bin/python3
"""How fast harvestd is, how late, and what it costs, over a real Postgres and a real Kafka, beside limits measured in the same run.

  limits     librdkafka alone, the database alone, and raw.c: the shortest relay one could write, without any safety
  drain      a full table until it is empty: 1000 keys, 10, 1; a table without statistics; values of 1 kB and 10 kB
  quota      the same with a tenth of a core for the daemon
  steady     1k to 50k records/s: latency from commit to consumer, whether a backlog grows
  idle       a leader and a standby with nothing to do
  forgotten  a transaction left open while records pass

All for claim = cursor and claim = mark, in rounds, one thing after the other, so that a change of the machine meets all alike; the
median counts. In every run the topic is read back: nothing lost, doubled or overtaken. Targets are printed beside the figures, never
asserted: the exit code is 1 only when something went wrong. Tables on standard output; bench.json and bench.svg in --out.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from benchlib import BUILD, Wrong, drain, forgotten, idle, limits, plot, quota, report, steady  # noqa: E402
from benchlib.records import Records  # noqa: E402
from benchlib.servers import PARTITIONS, POSTGRES, Servers  # noqa: E402
from benchlib.targets import BASE, Results  # noqa: E402

import psycopg  # noqa: E402
from bed.postgres import TABLE  # noqa: E402

WARM_UP = 30  # seconds of a steady load, after which the broker's answers take a third of the time they take at first
GROUPS = ["limits", "drain", "quota", "steady", "idle", "forgotten"]
STRATEGIES = ["cursor", "mark"]
NEW_TABLE = "new table"  # like the first, but without statistics
# Name -> keys, bytes of a value, share of --records.
SHAPES = {BASE: (1000, 200, 1), NEW_TABLE: (1000, 200, 3), "10 keys": (10, 200, 1), "1 key": (1, 200, 1),
          "1 kB": (1000, 1000, 2), "10 kB": (1000, 10_000, 10)}
QUICK = {"records": 60_000, "rounds": 1, "seconds": 3, "idle_seconds": 5, "forgotten": 40_000, "portions": 2,
         "rates": "5000,20000", "shapes": "1000 keys,new table,1 key"}
FULL = {"records": 300_000, "rounds": 3, "seconds": 15, "idle_seconds": 25, "forgotten": 1_000_000, "portions": 20,
        "rates": "1000,5000,20000,50000", "shapes": ",".join(SHAPES)}


class Bench:
    """What is to be measured: [(name, function)], each function returning the figures of one run."""

    def __init__(self, args, servers, directory):
        self.args, self.servers, self.directory = args, servers, directory
        # Vacuum comes from us, before each drain; it would fall into some and not into others. Elsewhere it works as in production.
        self.quiet = servers.postgres.database(TABLE + " WITH (autovacuum_enabled = off)")
        self.usual = servers.postgres.database(TABLE)
        self.shapes = {name: Records(*SHAPES[name][:2]) for name in {BASE, *args.shapes}}

    def count(self, shape):
        return self.args.records // SHAPES[shape][2]

    def steps(self):
        # A limit right before what is measured against it: the machine's mood changes.
        for shape in self.args.shapes:
            if "limits" in self.args.only:
                yield from self._limits(shape)
            if "drain" in self.args.only:
                yield from self._drain(shape)
        for group in GROUPS[2:]:
            if group in self.args.only:
                yield from getattr(self, "_" + group)()

    def _limits(self, shape):
        s, records, count = self.servers, self.shapes[shape], self.count(shape)
        if shape == BASE:
            path = os.path.join(self.directory, "records")
            yield ("limit", "producer alone", shape), lambda: limits.producer_alone(s, records, count, path)
            for what, strategy in (("scan + delete", "cursor"), ("mark + delete", "mark")):
                yield ("limit", what, shape), lambda strategy=strategy: limits.database_alone(s, self.quiet, records, count, strategy)
        if shape != NEW_TABLE:
            yield ("limit", "raw", shape), lambda: limits.raw(s, self.quiet, records, count)

    def _drain(self, shape):
        for strategy in self.args.strategies:
            yield ("drain", strategy, shape), lambda strategy=strategy: drain.drain(
                self.servers, self.quiet, self.shapes[shape], self.count(shape), strategy, self.args.set, new_table=shape == NEW_TABLE)

    def _quota(self):
        for strategy in self.args.strategies:
            yield ("quota", strategy, BASE), lambda strategy=strategy: drain.drain(
                self.servers, self.quiet, self.shapes[BASE], self.count(BASE) // 3, strategy, self.args.set, quota.tenth_of_a_core())

    def _steady(self):
        for rate in self.args.rates:
            for strategy in self.args.strategies:
                yield ("steady", strategy, "%d/s" % rate), lambda rate=rate, strategy=strategy: steady.steady(
                    self.servers, self.usual, strategy, rate, self.args.seconds, self.args.set)

    def _idle(self):
        for strategy in self.args.strategies:
            yield ("idle", strategy, ""), lambda strategy=strategy: idle.idle(
                self.servers, self.usual, strategy, self.args.idle_seconds, self.args.set)

    def _forgotten(self):
        for kind in ("snapshot", "insert"):
            for strategy in self.args.strategies:
                yield ("forgotten", strategy, kind), lambda kind=kind, strategy=strategy: forgotten.forgotten(
                    self.servers, self.servers.postgres.database(TABLE), self.shapes[BASE], strategy, kind, self.args.forgotten,
                    self.args.portions, self.args.set)

    def warm_up(self):
        """Does not count: the broker's code is compiled while it runs."""
        base, count = self.shapes[BASE], min(self.count(BASE), 100_000)
        limits.producer_alone(self.servers, base, count, os.path.join(self.directory, "records"))
        for strategy in self.args.strategies:
            drain.drain(self.servers, self.quiet, base, count, strategy, self.args.set)
        if "steady" in self.args.only:  # many small requests are other code than few large ones
            steady.steady(self.servers, self.usual, self.args.strategies[0], 5000, min(WARM_UP, (2 if self.args.quick else 5) * self.args.seconds), self.args.set)


def progress_line(name, figures, seconds):
    shown = ("rate", "cpu", "p50", "p99", "leader", "standby", "memory", "rate_start", "rate_end", "claim_ratio", "empty_ratio")
    return "%-36s %s   [%.0f s, load %.1f]" % (
        " ".join(name), "  ".join("%s %.*f" % (f, 0 if figures[f] > 1000 else 2, figures[f]) for f in shown if f in figures),
        seconds, os.getloadavg()[0])


def measure(args, results):
    with tempfile.TemporaryDirectory(prefix="harvestd-bench-") as directory, Servers() as servers:
        bench = Bench(args, servers, directory)
        if set(args.only) - {"idle"}:
            bench.warm_up()
        for number in range(1, args.rounds + 1):
            for name, step in bench.steps():
                start = time.monotonic()
                figures = step()
                results.add(name, figures)
                print("round %d  %s" % (number, progress_line(name, figures, time.monotonic() - start)), flush=True)


def describe(args):
    return ("%s records, values of 200 bytes where nothing else is said, 2 headers, %d partitions; %d cores shared by all; %d round%s;\n"
            "Postgres with %s; quota: %s" % (
                f"{args.records:,}", PARTITIONS, os.cpu_count(), args.rounds, "s" if args.rounds > 1 else "",
                " ".join("%s=%s" % s for s in POSTGRES.items() if "." not in s[0]), _how_quota()))


def _how_quota():
    with quota.tenth_of_a_core() as limit:
        return limit.how


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a first impression in two minutes: one round, fewer of everything")
    parser.add_argument("--only", choices=GROUPS, action="append")
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=STRATEGIES)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="for the daemon")
    parser.add_argument("--out", default=os.path.join(BUILD, "bench"), help="directory for bench.json and bench.svg")
    for name, value in FULL.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), help="default: %s, quick: %s" % (value, QUICK[name]))
    args = parser.parse_args()
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.only = args.only or GROUPS
    args.shapes = args.shapes.split(",")
    args.rates = [int(rate) for rate in args.rates.split(",")]
    return args


def main():
    args, results = parse(), Results()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    load, setting = os.getloadavg()[0], describe(args)
    if load > os.cpu_count():
        print("The machine is busy (load %.1f): these figures will say more about that than about harvestd." % load)
    start = time.monotonic()
    measure(args, results)
    report.print_all(results, setting)
    report.write_json(results, os.path.join(args.out, "bench.json"), setting, vars(args), load)
    plot.write(results, os.path.join(args.out, "bench.svg"))
    print("\n%.0f s; %s/bench.json, %s/bench.svg" % (time.monotonic() - start, args.out, args.out))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Wrong, RuntimeError, AssertionError, OSError, psycopg.Error, subprocess.SubprocessError) as e:
        sys.exit("bench: %s" % e)
    except KeyboardInterrupt:
        sys.exit(130)
