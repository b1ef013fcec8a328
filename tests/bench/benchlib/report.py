"""The results as tables, and as a JSON file."""
import json
import os
import platform
import statistics
import subprocess

from . import ROOT
from .targets import targets


def _spread(values, form):
    if len(values) == 1:
        return form % values[0]
    return "%s (%s-%s)" % tuple(form % v for v in (statistics.median(values), min(values), max(values)))


def _table(head, rows):
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def _section(results, kinds, title, head, make_row):
    rows = [make_row(name, rounds) for name, rounds in results.rounds.items() if name[0] in kinds]
    if rows:
        print("\n" + title)
        _table(head, rows)


def _cells(rounds, *columns):
    return [_spread([r[figure] for r in rounds], form) for figure, form in columns]


def _drain_row(name, rounds):
    tenth = " on a tenth of a core" if name[0] == "quota" else ""
    return [name[1] + tenth, name[2], *_cells(rounds, ("rate", "%.0f"), ("cpu", "%.2f"), ("postgres", "%.1f"), ("kafka", "%.1f"),
                                              ("memory", "%.1f"))]


def _steady_row(name, rounds):
    growing = sum(r["growing"] for r in rounds)
    verdict = "no" if growing == 0 else "in %d of %d" % (growing, len(rounds))
    if not all(r["full"] for r in rounds):
        verdict += ", load not reached"
    return [name[1], name[2], *_cells(rounds, ("rate", "%.0f"), ("p50", "%.1f"), ("p99", "%.1f"), ("max", "%.0f"),
                                      ("outstanding", "%.0f")),
            verdict,
            *_cells(rounds, ("cpu", "%.1f"), ("postgres", "%.1f"), ("kafka", "%.1f"), ("pump", "%.1f"), ("memory", "%.1f"))]


def _idle_row(name, rounds):
    return [name[1], *_cells(rounds, ("leader", "%.2f"), ("standby", "%.2f"), ("postgres", "%.2f"), ("kafka", "%.1f"),
                             ("memory", "%.1f"), ("standby_memory", "%.1f"))]


def _forgotten_row(name, rounds):
    return [name[1], name[2], "%d" % rounds[0]["records"],
            *_cells(rounds, ("rate_start", "%.0f"), ("rate_end", "%.0f"), ("claim_ms_start", "%.1f"), ("claim_ms_end", "%.1f"),
                    ("empty_ms_start", "%.2f"), ("empty_ms_end", "%.2f"), ("slowest_ms", "%.0f"))]


def print_all(results, setting):
    print("\n" + setting)
    print("median (least-most) of the rounds; CPU in µs a record: of the program itself, of all of Postgres, of the broker")
    cpu = ["CPU", "Postgres", "Kafka"]
    _section(results, ("limit", "drain", "quota"), "Drain: a full table, until it is empty",
             ["", "", "records/s", *cpu, "peak MB"], _drain_row)
    _section(results, ("steady",),
             "Steady load; latency from commit to consumer, ms (Postgres: with the writers; pump: writers and consumer)",
             ["", "", "records/s", "p50", "p99", "max", "most waiting", "growing", *cpu, "pump", "peak MB"], _steady_row)
    _section(results, ("idle",), "Idle: % of a core, MB resident",
             ["", "leader", "standby", "Postgres", "Kafka", "MB leader", "MB standby"], _idle_row)
    _section(results, ("forgotten",),
             "A forgotten transaction: at the start and at the end; ms in the database of 1000 rows claimed, and of an empty claim",
             ["", "it has", "records", "records/s", "at the end", "claim", "at the end", "empty claim", "at the end",
              "slowest"], _forgotten_row)
    print("\nTargets")
    _table(["", "target", "measured", ""], [list(t.row()) for t in targets(results)])


def _commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or None


def write_json(results, path, setting, options, load):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump({
            "setting": setting, "options": options, "commit": _commit(), "load_average": load,
            "machine": {"cores": os.cpu_count(), "kernel": platform.release()},
            "results": [{"kind": kind, "what": what, "variant": variant, "rounds": rounds}
                        for (kind, what, variant), rounds in results.rounds.items()],
            "targets": [{"what": t.text, "target": t.bound, "at_least": t.at_least, "measured": t.value,
                         "reached": None if t.value is None else t.reached()} for t in targets(results)],
        }, f, indent=1)
