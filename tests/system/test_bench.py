"""The bench: what it reads back finds every fault, its targets are judged rightly, and (long) all of it runs."""
import json
import os
import subprocess
import sys
import xml.dom.minidom

import pytest

from bed.util import ROOT

sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))

from benchlib import Wrong, targets  # noqa: E402
from benchlib.records import DIGITS, HEAD, Records  # noqa: E402
from benchlib.topic import Reading  # noqa: E402

RECORDS = Records(3, 200)


class Message:
    def __init__(self, number, key=None, value=None):
        self.number = number
        self._key, self._value = key or RECORDS.key(number).encode(), value or value_of(number)

    def topic(self):
        return "t"

    def key(self):
        return self._key

    def value(self):
        return self._value

    def headers(self):
        return [("type", b"order"), ("trace", b"%016x" % self.number)]


def value_of(number):
    return HEAD + b"%0*d" % (DIGITS, number) + RECORDS.rest[number % RECORDS.size].encode()


def read(numbers, count):
    reading = Reading(RECORDS, count)
    for number in numbers:
        reading.take(Message(number))
    return reading.missing(), reading.doubled, reading.overtaken


def of_one_key(count):
    return [n for n in range(100) if RECORDS.key(n) == RECORDS.key(0)][:count]


def test_reading_back_finds_what_is_wrong():
    assert read(range(10), 10) == (0, 0, 0)
    assert read([*range(9)], 10) == (1, 0, 0)
    assert read([*range(10), 5], 10) == (0, 1, 0)
    first, second = of_one_key(2)
    order = list(range(20))
    order[first], order[second] = second, first
    assert read(order, 20) == (0, 0, 1)
    for message in (Message(0, key=b"other"), Message(10), Message(0, value=b"other"), Message(0, value=value_of(0)[:-1])):
        with pytest.raises(Wrong):
            Reading(RECORDS, 10).take(message)


def test_targets_take_ratios_within_a_round():
    results = targets.Results()
    # The machine became slower, the ratios did not: 0.9, 0.9, 0.5.
    for raw, cursor in ((100, 90), (50, 45), (10, 5)):
        results.add(("limit", "raw", targets.BASE), {"rate": raw, "cpu": 1})
        results.add(("drain", "cursor", targets.BASE), {"rate": cursor, "cpu": 2, "memory": 1})
    rows = {t.text: t for t in targets.targets(results)}
    against_raw, cpu = rows["cursor: drain, against raw"], rows["cursor: CPU of the daemon a record, against raw"]
    assert (against_raw.value, against_raw.reached()) == (0.9, True)
    assert (cpu.value, cpu.reached()) == (2, False)
    assert rows["cursor: latency at 5k/s, p99"].row()[3] == "not measured"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_of_it_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tests", "bench", "bench.py"), "--out", str(tmp_path), "--rounds", "1", "--records", "3000",
         "--rates", "500,1000", "--seconds", "3", "--idle-seconds", "1", "--forgotten", "2000", "--portions", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500)
    assert done.returncode == 0, done.stdout
    assert "Targets" in done.stdout
    with open(tmp_path / "bench.json") as f:
        kinds = {r["kind"] for r in json.load(f)["results"]}
    assert kinds == {"limit", "drain", "quota", "steady", "idle", "forgotten"}
    xml.dom.minidom.parse(str(tmp_path / "bench.svg"))
