"""What harvestd has to reach, and whether it did. Ratios are taken within a round, between figures of the same minutes, and their median
counts. Printed, never asserted."""
import statistics


class Results:
    """Figures of rounds: results.add(("drain", "cursor", "1000 keys"), {"rate": …})."""

    def __init__(self):
        self.rounds = {}

    def add(self, name, figures):
        self.rounds.setdefault(name, []).append(figures)

    def values(self, name, figure):
        return [r[figure] for r in self.rounds.get(name, ())]

    def median(self, name, figure):
        values = self.values(name, figure)
        return statistics.median(values) if values else None

    def ratio(self, name, other, figure):
        ratios = [a / b for a, b in zip(self.values(name, figure), self.values(other, figure))]
        return statistics.median(ratios) if ratios else None

    def highest(self, name, *figures):
        found = [self.median(name, f) for f in figures]
        return None if None in found else max(found)


class Target:
    def __init__(self, text, at_least, bound, form, value):
        self.text, self.at_least, self.bound, self.form, self.value = text, at_least, bound, form, value

    def reached(self):
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self):
        """(what, target, measured, verdict)"""
        target = ("≥ " if self.at_least else "≤ ") + self.form % self.bound
        if self.value is None:
            return self.text, target, "-", "not measured"
        return self.text, target, self.form % self.value, "reached" if self.reached() else "NOT REACHED"


BASE = "1000 keys"


def _of_strategy(r, s):
    drain = ("drain", s, BASE)
    at_5k, at_20k, idle = ("steady", s, "5000/s"), ("steady", s, "20000/s"), ("idle", s, "")
    growing = [n for n, full in zip(r.values(at_20k, "growing"), r.values(at_20k, "full")) if full]
    yield Target(s + ": drain, one hot key, against 1000 keys", True, 0.7, "%.2f ×", r.ratio(("drain", s, "1 key"), drain, "rate"))
    yield Target(s + ": latency at 5k/s, p50", False, 5, "%.1f ms", r.median(at_5k, "p50"))
    yield Target(s + ": latency at 5k/s, p99", False, 10, "%.1f ms", r.median(at_5k, "p99"))
    yield Target(s + ": latency at 20k/s, p99", False, 20, "%.1f ms", r.median(at_20k, "p99") if growing else None)
    yield Target(s + ": rounds at 20k/s with a growing backlog", False, 0, "%d", sum(growing) if growing else None)
    yield Target(s + ": resident memory, idle", False, 11, "%.1f MB", r.median(idle, "memory"))
    yield Target(s + ": resident memory, peak of a drain", False, 16, "%.1f MB", r.median(drain, "memory"))
    yield Target(s + ": CPU idle, leader", False, 0.5, "%.2f %%", r.median(idle, "leader"))
    yield Target(s + ": CPU idle, standby", False, 0.3, "%.2f %%", r.median(idle, "standby"))
    for kind in ("snapshot", "insert"):
        name = ("forgotten", s, kind)
        yield Target("%s: claim time under a forgotten transaction (%s), end against start" % (s, kind), False, 2, "%.2f ×",
                     r.highest(name, "claim_ratio", "empty_ratio"))
    yield Target(s + ": drain with a tenth of a core", True, 20_000, "%.0f/s", r.median(("quota", s, BASE), "rate"))


def targets(results):
    r, raw, cursor = results, ("limit", "raw", BASE), ("drain", "cursor", BASE)
    return [
        Target("cursor: drain, against raw", True, 0.9, "%.2f ×", r.ratio(cursor, raw, "rate")),
        Target("cursor: CPU of the daemon a record, against raw", False, 1.3, "%.2f ×", r.ratio(cursor, raw, "cpu")),
        Target("mark: drain, against mark + delete alone", True, 0.8, "%.2f ×",
               r.ratio(("drain", "mark", BASE), ("limit", "mark + delete", BASE), "rate")),
        *_of_strategy(r, "cursor"),
        *_of_strategy(r, "mark"),
    ]
