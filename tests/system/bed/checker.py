"""Compares what applications committed with what consumers received.

The unit of order is a key within a topic. What is an error:
  lost          committed and not received
  invented      received and never written, or written and rolled back
  corrupted     like a written record of that topic and key, but not byte for byte
  overtaken     received for the first time before its predecessor of the same topic and key was received
What is counted:
  duplicates    received again
  skips         a replay that left something out: after a repeated record came neither its successor nor an earlier one
"""
import threading
from collections import namedtuple

# headers: tuple of (name: str, value: bytes); key and value: bytes, value None for a tombstone
Record = namedtuple("Record", "topic key value headers")
Message = namedtuple("Message", "topic partition offset key value headers")


def record(topic, key, value, headers=()):
    """A record as it must arrive. Text is UTF-8; value None is a tombstone."""
    as_bytes = lambda x: x.encode() if isinstance(x, str) else x  # noqa: E731
    return Record(topic, as_bytes(key), as_bytes(value), tuple((n, as_bytes(v)) for n, v in headers))


class Truth:
    """What was committed, per topic and key in the order of ids, and what was rolled back. Records of one topic and key
    must differ, or nobody could tell a duplicate of one from a loss of the other."""

    def __init__(self):
        self.lock = threading.Lock()
        self.lanes = {}  # (topic, key) -> [(id, Record)]
        self.ids = {}    # Record -> id
        self.rolled_back = set()

    def committed(self, rows):
        """rows: (id, Record); of one key in the order in which they were committed."""
        with self.lock:
            for row_id, r in rows:
                assert r not in self.ids, "the test wrote two equal records: %r" % (r,)
                self.ids[r] = row_id
                self.lanes.setdefault((r.topic, r.key), []).append((row_id, r))

    def not_committed(self, records):
        with self.lock:
            self.rolled_back.update(records)

    def __len__(self):
        with self.lock:
            return len(self.ids)

    def topics(self):
        with self.lock:
            return sorted({topic for topic, _ in self.lanes})


class Report:
    def __init__(self):
        self.written = self.received = 0
        self.lost, self.invented, self.corrupted, self.overtaken = [], [], [], []
        self.duplicates = 0
        self.skips = 0

    def __str__(self):
        return ("written %d, received %d, lost %d, invented %d, corrupted %d, overtaken %d, duplicates %d, skips %d" % (
            self.written, self.received, len(self.lost), len(self.invented), len(self.corrupted),
            len(self.overtaken), self.duplicates, self.skips))

    def faults(self):
        lines = []
        for name in ("lost", "invented", "corrupted", "overtaken"):
            found = getattr(self, name)
            lines += ["  %s: %s" % (name, what) for what in found[:10]]
            if len(found) > 10:
                lines.append("  %s: and %d more" % (name, len(found) - 10))
        return lines

    def assert_ok(self, duplicates=None):
        """No fault; and exactly so many duplicates, unless None."""
        lines = self.faults()
        assert not lines, "\n".join([str(self)] + lines)
        if duplicates is not None:
            assert self.duplicates == duplicates, str(self)
        return self


def _short(r):
    value = "NULL" if r.value is None else repr(r.value[:60])
    return "%s[%s] value=%s headers=%s" % (r.topic, r.key, value, [(n, v[:20]) for n, v in r.headers[:4]])


def check(truth, messages):
    """messages: in the order of their offsets within each partition."""
    report = Report()
    with truth.lock:
        lanes = {lane: list(rows) for lane, rows in truth.lanes.items()}
        rolled_back = set(truth.rolled_back)
    positions = {}
    for lane, rows in lanes.items():
        ids = [row_id for row_id, _ in rows]
        assert ids == sorted(ids), "the test did not serialise its writes for %r" % (lane,)
        positions[lane] = {r: n for n, (_, r) in enumerate(rows)}
        report.written += len(rows)

    received = {}
    for m in messages:
        received.setdefault((m.topic, m.key), []).append(m)
        report.received += 1

    for lane, arrived in received.items():
        _check_lane(report, lanes.get(lane, []), positions.get(lane, {}), rolled_back, arrived)
    for lane, rows in lanes.items():
        seen = {Record(m.topic, m.key, m.value, m.headers) for m in received.get(lane, ())}
        report.lost += ["id %d %s" % (row_id, _short(r)) for row_id, r in rows if r not in seen]
    return report


def _check_lane(report, rows, positions, rolled_back, arrived):
    seen = set()
    done = 0        # the records before this position have all been seen
    previous = -1   # position of the message before
    replaying = False
    for m in arrived:
        r = Record(m.topic, m.key, m.value, m.headers)
        where = "%s partition %d offset %d" % (_short(r), m.partition, m.offset)
        position = positions.get(r)
        if position is None:
            if r in rolled_back:
                report.invented.append("rolled back: " + where)
            elif _resembles(r, rows):
                report.corrupted.append(where)
            else:
                report.invented.append(where)
            continue
        if position in seen:
            report.duplicates += 1
            replaying = True
        elif position > done:
            report.overtaken.append("id %d before id %d: %s" % (rows[position][0], rows[done][0], where))
        if replaying and position > previous + 1:
            report.skips += 1
        if position not in seen:
            replaying = False
        seen.add(position)
        while done in seen:
            done += 1
        previous = position


def _resembles(r, rows):
    """Is it a record of ours, damaged? Same value or same (not empty) headers as one that was written."""
    return any((r.value and r.value == w.value) or (r.headers and r.headers == w.headers) or
               (r.value and w.value and len(r.value) == len(w.value) and
                sum(a != b for a, b in zip(r.value, w.value)) * 4 <= len(r.value)) for _, w in rows)
