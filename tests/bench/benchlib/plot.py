"""The results as a picture: an SVG file written by hand, four panels."""
import html
import math
import os

WIDTH, HEIGHT, MARGIN = 560, 380, 60
COLOURS = ["#3465a4", "#cc0000", "#73d216", "#f57900", "#75507b", "#555753"]


class _Panel:
    def __init__(self, column, row, title, y_label):
        self.x, self.y = column * (WIDTH + 20), row * (HEIGHT + 40) + 20
        self.parts = []
        self.text(0, -4, title, size=14, bold=True)
        self.text(-MARGIN + 12, 12, y_label, size=10)

    def text(self, x, y, text, size=10, anchor="start", bold=False, turn=None):
        turned = ' transform="rotate(%d %.1f %.1f)"' % (turn, x, y) if turn else ""
        self.parts.append('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s"%s%s>%s</text>' % (
            x, y, size, anchor, ' font-weight="bold"' if bold else "", turned, html.escape(text)))

    def line(self, points, colour, width=1.5, dash=""):
        self.parts.append('<polyline fill="none" stroke="%s" stroke-width="%.1f" stroke-dasharray="%s" points="%s"/>' % (
            colour, width, dash, " ".join("%.1f,%.1f" % p for p in points)))

    def box(self, x, y, width, height, colour):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>' % (x, y, width, height, colour))

    def svg(self):
        return '<g transform="translate(%d %d)">%s</g>' % (self.x + MARGIN, self.y + 20, "\n".join(self.parts))


PLOT_W, PLOT_H = WIDTH - MARGIN - 20, HEIGHT - 150


class _Linear:
    def __init__(self, highest):
        self.top = highest * 1.05 or 1

    def y(self, value):
        return 20 + PLOT_H * (1 - value / self.top)

    def marks(self):
        step = 10 ** math.floor(math.log10(self.top))
        step = next(s for s in (step / 5, step / 2, step, step * 2) if self.top / s <= 7)
        return [step * i for i in range(int(self.top / step) + 1)]


class _Logarithmic:
    def __init__(self, values):
        positive = [v for v in values if v > 0] or [1]
        self.low, self.high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive) * 1.01))

    def y(self, value):
        share = (math.log10(max(value, 10 ** self.low)) - self.low) / (self.high - self.low)
        return 20 + PLOT_H * (1 - share)

    def marks(self):
        return [10 ** e for e in range(self.low, self.high + 1)]


def _axis(panel, scale):
    for mark in scale.marks():
        y = scale.y(mark)
        panel.line([(0, y), (PLOT_W, y)], "#dddddd", 0.7)
        panel.text(-4, y + 3, "{:,.10g}".format(mark), anchor="end")


def _bars(panel, bars, legend=(), colours=None):
    """bars: [(label, [height of each part])]; colours: of each bar, instead of each part"""
    scale = _Linear(max((sum(parts) for _, parts in bars), default=1))
    _axis(panel, scale)
    pitch = PLOT_W / max(len(bars), 1)
    for n, (label, parts) in enumerate(bars):
        below = 0
        for part, colour in zip(parts, COLOURS):
            panel.box(n * pitch + 2, scale.y(below + part), pitch - 4, scale.y(below) - scale.y(below + part),
                      colours[n] if colours else colour)
            below += part
        panel.text(n * pitch + pitch / 2, 32 + PLOT_H, label, size=9, anchor="end", turn=-60)
    _legend(panel, legend)


def _legend(panel, names):
    for n, name in enumerate(names):
        panel.box(PLOT_W - 150, 22 + 14 * n, 10, 10, COLOURS[n])
        panel.text(PLOT_W - 136, 31 + 14 * n, name)


def _lines(panel, lines, x_label, logarithmic_x):
    """lines: {name: [(x, y)]}"""
    points = [p for line in lines.values() for p in line]
    if not points:
        return
    scale = _Logarithmic([y for _, y in points])
    _axis(panel, scale)
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    where = (lambda x: math.log(x / low) / math.log(high / low)) if logarithmic_x else (lambda x: (x - low) / (high - low))
    place = (lambda x: PLOT_W * where(x)) if high > low else (lambda x: PLOT_W / 2)
    for x in sorted({x for x, _ in points})[::max(1, len({x for x, _ in points}) // 6)]:
        panel.text(place(x), 34 + PLOT_H, "{:,.0f}".format(x), anchor="middle")
    panel.text(PLOT_W / 2, 50 + PLOT_H, x_label, anchor="middle")
    for n, (name, line) in enumerate(lines.items()):
        colour = COLOURS[n // 2 % len(COLOURS)]
        panel.line([(place(x), scale.y(y)) for x, y in sorted(line)], colour, dash="4 3" if n % 2 else "")
        column, row = n % 2, n // 2
        panel.line([(column * 240, 68 + PLOT_H + 14 * row), (column * 240 + 20, 68 + PLOT_H + 14 * row)], colour,
                   dash="4 3" if n % 2 else "")
        panel.text(column * 240 + 26, 71 + PLOT_H + 14 * row, name)


def _by_name(results, *kinds):
    return [(name, name[1] + ", " + name[2]) for name in results.rounds if name[0] in kinds]


def _rates(results):
    panel, bars = _Panel(0, 0, "Drain", "records/s"), _by_name(results, "limit", "drain")
    kinds = ["cursor", "mark", "raw"]
    _bars(panel, [(label, [results.median(name, "rate")]) for name, label in bars],
          colours=[COLOURS[kinds.index(name[1])] if name[1] in kinds else "#999999" for name, _ in bars])
    _legend(panel, kinds)
    return panel


def _costs(results):
    panel = _Panel(1, 0, "Drain: CPU of a record", "µs")
    _bars(panel, [(label, [results.median(name, f) for f in ("cpu", "postgres", "kafka")])
                  for name, label in _by_name(results, "limit", "drain") if name[2] != "10 kB"],
          ["program", "Postgres", "Kafka"])
    return panel


def _latencies(results):
    panel, lines = _Panel(0, 1, "Steady load: latency, commit to consumer", "ms"), {}
    for name, _ in _by_name(results, "steady"):
        for figure in ("p50", "p99"):
            point = (results.median(name, "rate"), results.median(name, figure))  # what was written, not what was asked for
            lines.setdefault("%s, %s" % (name[1], figure), []).append(point)
    _lines(panel, lines, "records/s", True)
    return panel


def _claims(results):
    panel, lines = _Panel(1, 1, "Forgotten transaction: time of claims in the database", "ms"), {}
    for name, _ in _by_name(results, "forgotten"):
        series = results.rounds[name][-1]["series"]
        for figure, what in (("claim_ms", "1000 rows"), ("empty_ms", "empty")):
            lines["%s, %s, %s" % (name[1], name[2], what)] = [(s["passed"], s[figure]) for s in series]
    _lines(panel, lines, "records that passed (last round)", False)
    return panel


def write(results, path):
    panels = [_rates(results), _costs(results), _latencies(results), _claims(results)]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif">\n'
                '<rect width="100%%" height="100%%" fill="white"/>\n' % (2 * WIDTH + 40, 2 * HEIGHT + 100))
        f.write("\n".join(panel.svg() for panel in panels))
        f.write("\n</svg>\n")
