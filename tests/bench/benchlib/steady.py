"""A steady load, and how late it comes through: `harvestd pump --verify` writes at a rate, 4 connections, transactions of 20, and reads
what arrives. Latency runs from when the writer has the reply to its commit until the consumer has the record. Lost, overtaken and doubled
records are the pump's to find."""
import json
import os
import re
import subprocess
import tempfile

from bed.daemon import command
from bed.util import spawn

from . import Wrong, cpu, daemon

CONNECTIONS, TRANSACTION, KEYS = 4, 20, 1000
FULL = 0.95  # of the rate has to be written, or the machine did not carry the load, whatever the daemon made of it
PROGRESS = re.compile(r"^\s*[\d.]+ s  written (\d+) .* outstanding (\d+)$")


def _children_cpu():
    """Of our children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _pump(ini, topic, rate, seconds, linger="1s"):
    """(summary, [(records written, records outstanding)], CPU of the pump)"""
    argv = command() + ["pump", "-c", ini, "--topic", topic, "--rate", str(rate), "--records", str(rate * seconds),
                        "--connections", str(CONNECTIONS), "--transaction", str(TRANSACTION), "--keys", str(KEYS),
                        "--progress", "500ms", "--verify", "--verify-linger", linger, "--json"]
    before = _children_cpu()
    with tempfile.TemporaryFile("w+") as told:
        process = spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told)
        try:
            out = process.communicate(timeout=seconds * 10 + 120)[0].decode()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        told.seek(0)
        lines = told.read()
    if process.returncode != 0:
        raise Wrong("pump at %d/s:\n%s\n%s" % (rate, out, lines))
    found = [PROGRESS.match(line) for line in lines.splitlines()]
    return json.loads(out), [(int(m[1]), int(m[2])) for m in found if m], _children_cpu() - before


def _is_growing(progress, total, rate):
    """Does more and more wait? By the means of the second and of the last quarter of the writing."""
    waiting = [outstanding for written, outstanding in progress if written < total]
    quarter = len(waiting) // 4
    if quarter == 0:
        return False
    earlier = sum(waiting[quarter:2 * quarter]) / quarter
    later = sum(waiting[-quarter:]) / quarter
    return later > 1.5 * earlier + rate * 0.05


def steady(servers, database, strategy, rate, seconds, settings=()):
    topic = servers.new_topic()
    database.execute("TRUNCATE outbox")
    database.execute("CHECKPOINT")
    harvestd = daemon.make(servers, database, strategy, settings)
    try:
        harvestd.start()
        daemon.wait_leading(harvestd)
        _pump(harvestd.ini, topic, rate, 1, linger="100ms")  # the topic is known, code is compiled
        used, meter = cpu.seconds(harvestd.pid), cpu.Meter(servers)
        summary, progress, pump = _pump(harvestd.ini, topic, rate, seconds)
        used = cpu.seconds(harvestd.pid) - used
        count, verified = summary["written"], summary["verify"]
        figures = {"records": count, "rate": summary["rate"], "cpu": used * 1e6 / count,
                   "memory": cpu.memory_mb(harvestd.pid, "VmHWM"), "pump": pump * 1e6 / count,
                   "p50": verified["latency_ms"]["p50"], "p99": verified["latency_ms"]["p99"],
                   "max": verified["latency_ms"]["max"], "growing": _is_growing(progress, count, rate),
                   "full": summary["rate"] >= FULL * rate,
                   "outstanding": max((waiting for _, waiting in progress), default=0), **meter.per_record(count)}
        if verified["duplicates"]:
            raise Wrong("%d records came twice at %d/s\n%s" % (verified["duplicates"], rate, harvestd.tail()))
        harvestd.stop(60)
    finally:
        harvestd.destroy()
    servers.drop_topic(topic)
    return figures
