#!/usr/bin/python3
"""How fast the daemon drains a preloaded outbox, beside two limits measured in the same run on the same machine.

A round measures, one after the other, over the same records:
  producer alone   producer_alone.c: librdkafka with the daemon's settings, records from memory
  mark + delete    mark_delete_alone.c: the daemon's statements over two connections, nothing sent, the broker idle beside it
  drain            harvestd as it is, from "acquired" until the table is empty

Prints the median of the rounds with the least and the most. The targets are printed beside the figures, never asserted:
the exit code is 1 only when something went wrong (rows left, records missing or doubled, a program that failed).
"""
import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
sys.dont_write_bytecode = True

import psycopg  # noqa: E402
from confluent_kafka import Consumer, TopicPartition  # noqa: E402

import bed.kafka  # noqa: E402
from bed.postgres import TABLE, Postgres  # noqa: E402
from bed.util import children, process_cpu_seconds, spawn  # noqa: E402

BUILD = os.environ.get("HARVESTD_BUILD", os.path.join(ROOT, "build"))
PARTITIONS = 4
KEYS = 1000
VALUE_BYTES = 200
BATCH = 1000  # rows a statement of mark + delete alone

# For all alike. Durable as in production; neither a checkpoint nor a vacuum falls into some runs and not into others: both are
# made before each.
POSTGRES = dict(fsync="on", synchronous_commit="on", shared_buffers="256MB", max_wal_size="4GB",
                checkpoint_timeout="30min", autovacuum="off", log_lock_waits="off")
# Records that producer alone keeps in flight: what the daemon's window allows by default.
IN_FLIGHT = 5000


class Broker(bed.kafka.Kafka):
    """With the optimising compiler, which the tests' short-lived brokers do without."""

    def launch(self):
        quick, bed.kafka.java = bed.kafka.java, lambda arguments, heap="512m": [
            "java", "-Xmx" + heap, "-Xms" + heap, "-XX:+UseSerialGC", "-XX:-UsePerfData"] + arguments
        try:
            return super().launch()
        finally:
            bed.kafka.java = quick


def make_records(path, count):
    """A line a record: key, value, two headers (name, value), separated by tabs. Half of a value is incompressible."""
    dice = random.Random(1)
    with open(path, "w", encoding="ascii") as f:
        for i in range(count):
            value = json.dumps({"order": i, "customer": dice.randrange(10**6), "state": dice.choice(["new", "paid"]),
                                "token": "%0100x" % dice.getrandbits(400)}, separators=(",", ":"))
            f.write("customer-%04d\t%s\ttype\torder\ttrace\t%016x\n" % (
                dice.randrange(KEYS), value.ljust(VALUE_BYTES, "."), dice.getrandbits(64)))


class Meter:
    """CPU that the two servers use while something runs, in µs a record: where the time goes on a machine that all share. Sessions
    of Postgres that came or went in between are counted as far as they can be seen."""

    def __init__(self, postgres, broker):
        self.postgres, self.broker, self.seen = postgres.process.pid, broker.process.pid, {}
        self.read()
        self.start = dict(self.seen)

    def read(self):
        for pid in [self.postgres, self.broker, *children(self.postgres)]:
            try:
                self.seen[pid] = process_cpu_seconds(pid)
            except OSError:
                pass

    def used(self, records):
        """(Postgres, Kafka)"""
        self.read()
        used = {pid: seconds - self.start.get(pid, 0) for pid, seconds in self.seen.items()}
        broker = used.pop(self.broker)
        return sum(used.values()) * 1e6 / records, broker * 1e6 / records


class Bench:
    def __init__(self, args, directory, postgres, broker):
        self.args, self.directory, self.postgres, self.broker = args, directory, postgres, broker
        self.file = os.path.join(directory, "records")
        self.database = postgres.database(TABLE)
        self.topics = 0
        make_records(self.file, args.records)

    def topic(self):
        self.topics += 1
        return self.broker.create_topic("orders-%d" % self.topics, PARTITIONS)

    def load(self, topic):
        """The records as rows, in their order, and nothing left to do for the server."""
        with self.database.connect() as c:
            c.execute("TRUNCATE outbox")
            with c.cursor().copy("COPY outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys,"
                                 " kafka_header_values) FROM STDIN") as copy, open(self.file, encoding="ascii") as f:
                for line in f:
                    key, value, n1, v1, n2, v2 = line.rstrip("\n").split("\t")
                    copy.write_row(("now", topic, key, value, [n1, n2], [v1, v2]))
            c.execute("VACUUM ANALYZE outbox")
            c.execute("CHECKPOINT")

    def written(self, topic):
        """Records in the topic."""
        consumer = Consumer({"bootstrap.servers": self.broker.servers, "group.id": "bench"})
        try:
            return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]
                       for p in range(PARTITIONS))
        finally:
            consumer.close()

    def expect_written(self, topic):
        found = self.written(topic)
        if found != self.args.records:
            raise RuntimeError("%s holds %d records instead of %d" % (topic, found, self.args.records))

    def program(self, name, *arguments):
        """Runs a tiny program; what it printed as a dictionary of numbers."""
        meter = Meter(self.postgres, self.broker)
        with spawn([os.path.join(BUILD, "bench", name), *arguments], stdout=subprocess.PIPE) as process:
            while process.poll() is None:
                meter.read()
                time.sleep(0.01)
            out = process.stdout.read().decode()
        if process.returncode != 0:
            raise RuntimeError("%s ended with %d" % (name, process.returncode))
        figures = {k: float(v) for k, v in (f.split("=") for f in out.split())}
        if figures["records"] != self.args.records:
            raise RuntimeError("%s did %d records instead of %d" % (name, figures["records"], self.args.records))
        return dict(rate=figures["records"] / figures["seconds"], cpu=figures["cpu_us"],
                    memory=figures["rss_kb"] / 1024, servers=meter.used(self.args.records))

    def producer_alone(self):
        topic = self.topic()
        figures = self.program("producer_alone", self.file, topic, str(IN_FLIGHT),
                               "bootstrap.servers=" + self.broker.servers)
        self.expect_written(topic)
        return figures

    def mark_delete_alone(self):
        self.load("nowhere")
        figures = self.program("mark_delete_alone", self.database.data_source(), "outbox", str(BATCH))
        if self.database.count():
            raise RuntimeError("mark + delete left rows")
        return figures

    def drain(self):
        topic = self.topic()
        self.load(topic)
        ini = os.path.join(self.directory, "harvestd.ini")
        with open(ini, "w") as f:
            f.write("[harvest]\ndata_source = %s\nleader_group_id = bench-%d\n[kafka]\nbootstrap.servers = %s\n" % (
                self.database.data_source(), self.topics, self.broker.servers))
        log = os.path.join(self.directory, "log")
        command = [os.path.join(BUILD, "harvestd"), "--config", ini]
        for setting in self.args.set:
            command += ["--set", setting]
        with open(log, "w") as f:
            daemon = spawn(command, stdout=f, stderr=f)
        try:
            return self.watch(daemon, log, topic)
        except Exception:
            with open(log, errors="replace") as f:
                sys.stderr.write("".join(f.readlines()[-30:]))
            raise
        finally:
            if daemon.poll() is None:
                daemon.kill()
            daemon.wait()

    def watch(self, daemon, log, topic):
        def alive(deadline):
            if daemon.poll() is not None:
                raise RuntimeError("harvestd ended with %d" % daemon.returncode)
            if time.monotonic() > deadline:
                raise RuntimeError("the drain takes too long")

        deadline = time.monotonic() + 300
        while not (line := find_line(log, "leader", "acquired")):
            alive(deadline)
            time.sleep(0.002)
        start, cpu, meter = time.monotonic(), process_cpu_seconds(daemon.pid), Meter(self.postgres, self.broker)
        with self.database.connect() as c:
            # The end of the index: cheap as long as the newest rows are there.
            while c.execute("SELECT id FROM outbox ORDER BY id DESC LIMIT 1").fetchone():
                alive(deadline)
                time.sleep(0.02)
        seconds, cpu = time.monotonic() - start, process_cpu_seconds(daemon.pid) - cpu
        servers = meter.used(self.args.records)
        with open("/proc/%d/status" % daemon.pid) as f:
            peak_kb = int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
        daemon.send_signal(signal.SIGTERM)
        if daemon.wait(timeout=60) != 0:
            raise RuntimeError("harvestd ended with %d after SIGTERM; %s" % (daemon.returncode, line))
        self.expect_written(topic)
        return dict(rate=self.args.records / seconds, cpu=cpu * 1e6 / self.args.records, memory=peak_kb / 1024,
                    servers=servers)


def find_line(path, component, message):
    with open(path, errors="replace") as f:
        for line in f:
            if "component=%s" % component in line and re.search(r'msg="?%s"?(\s|$)' % message, line):
                return line.strip()
    return None


def spread(values, form):
    return "%s (%s-%s)" % tuple(form % v for v in (statistics.median(values), min(values), max(values)))


def report(args, results):
    print("\n%s records, %d-byte values, 2 headers, %d keys, %d partitions; %d cores shared by all; %d rounds" % (
        f"{args.records:,}", VALUE_BYTES, KEYS, PARTITIONS, os.cpu_count(), args.rounds))
    form = "%-16s %-23s %-18s %-18s %-10s %s"
    print("median (least-most)\n")
    print(form % ("", "records/s", "CPU µs a record", "peak MB", "Postgres", "Kafka (CPU µs a record)"))
    for name, rounds in results.items():
        postgres, broker = (statistics.median(r["servers"][i] for r in rounds) for i in (0, 1))
        print(form % (name, spread([r["rate"] for r in rounds], "%.0f"), spread([r["cpu"] for r in rounds], "%.2f"),
                      spread([r["memory"] for r in rounds], "%.1f"), "%.1f" % postgres, "%.1f" % broker))
    if "drain" not in results:
        return
    drain = results["drain"]
    print("\nharvestd, median             target")
    if "mark + delete" in results:
        ratios = [d["rate"] / m["rate"] * 100 for d, m in zip(drain, results["mark + delete"])]
        print("  %5.0f %% of mark + delete     60 %% at least   (rounds: %s)" % (
            statistics.median(ratios), " ".join("%.0f" % r for r in ratios)))
    print("  %5.2f µs of CPU a record     6 at most" % statistics.median(r["cpu"] for r in drain))
    print("  %5.1f MB resident at most    20 at most" % statistics.median(r["memory"] for r in drain))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["producer", "mark", "drain"], action="append")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="for the daemon")
    args = parser.parse_args()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))

    wanted = args.only or ["producer", "mark", "drain"]
    results = {}
    with tempfile.TemporaryDirectory(prefix="harvestd-bench-") as directory:
        postgres, broker = Postgres(**POSTGRES), Broker()
        try:
            print("starting Postgres (%s) and Kafka ..." % ", ".join("%s=%s" % s for s in POSTGRES.items()), flush=True)
            broker.create().launch()
            postgres.create().start()
            broker.start()
            bench = Bench(args, directory, postgres, broker)
            steps = {"producer alone": ("producer", bench.producer_alone),
                     "mark + delete": ("mark", bench.mark_delete_alone), "drain": ("drain", bench.drain)}
            # Round 0 does not count: the broker's code is compiled while it runs.
            for number in range(args.rounds + 1):
                for name, (choice, step) in steps.items():
                    if choice in wanted:
                        figures = step()
                        if number > 0:
                            results.setdefault(name, []).append(figures)
                        print("round %d  %-15s %8.0f records/s  %6.2f µs CPU a record  %6.1f MB   load %.1f" % (
                            number, name, figures["rate"], figures["cpu"], figures["memory"], os.getloadavg()[0]),
                            flush=True)
        finally:
            broker.destroy()
            postgres.destroy()
    report(args, results)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, AssertionError, OSError, psycopg.Error, subprocess.SubprocessError) as e:
        sys.exit("bench: %s" % e)
    except KeyboardInterrupt:
        sys.exit(130)
