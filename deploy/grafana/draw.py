#!/usr/bin/env python3
"""Draws panels of the dashboard as one SVG, from the same queries, asked of a Prometheus.

usage: draw.py PROMETHEUS_URL SECONDS OUTPUT.svg TITLE...
  SECONDS: how far back from now. TITLE: of a panel of sirocco.json, each in its place, three a row.
"""
import html
import json
import math
import os
import sys
import time
import urllib.parse
import urllib.request

DASHBOARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sirocco.json")
POINTS = 120
WIDTH, HEIGHT, COLUMNS = 400, 240, 3
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 34, 52  # of the plot in its panel
# Okabe and Ito's, which most eyes tell apart (Color Universal Design, 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000")


def ask(url, query, seconds):
    """[(labels, [(time, value)])] of a query, filled in as Grafana does it."""
    step = seconds / POINTS
    for variable, value in (("$job", ".+"), ("$instance", ".+"),
                            ("$__rate_interval", f"{max(math.ceil(4 * step), 4)}s")):
        query = query.replace(variable, value)
    now = time.time()
    parameters = urllib.parse.urlencode(
        {"query": query, "start": now - seconds, "end": now, "step": step})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{parameters}", timeout=60) as answer:
        result = json.load(answer)["data"]["result"]
    return [(series["metric"], [(moment - now, float(value)) for moment, value in series["values"]
                                if math.isfinite(float(value))]) for series in result]


def legend_of(template, labels):
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def text_of(value, unit):
    """A value for an axis."""
    if value == 0:
        return "0"
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    scales = {"s": ((1, " s"), (1e-3, " ms"), (1e-6, " µs")),
              "bytes": ((1 << 30, " GiB"), (1 << 20, " MiB"), (1 << 10, " KiB"), (1, " B"))}
    for scale, name in scales.get(unit, ((1e6, "M"), (1e3, "k"), (1e-3, ""))):
        if value >= scale:
            # Small plain numbers keep their digits.
            return f"{value / scale:.3g}{name}" if name else f"{value:.3g}"
    return f"{value:.1e}"


def round_up(value):
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def draw_panel(panel, series, seconds, x, y):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    values = [value for _, points in series for _, value in points]
    top = round_up(max(values)) if values and max(values) > 0 else 1
    out = [f'<g transform="translate({x},{y})">',
           f'<rect x="2" y="2" width="{WIDTH - 4}" height="{HEIGHT - 4}" class="panel"/>',
           f'<text x="12" y="22" class="title">{html.escape(panel["title"])}</text>']
    for part in range(5):
        level = bottom - (bottom - TOP) * part / 4
        out.append(f'<line x1="{LEFT}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}" class="grid"/>')
        out.append(f'<text x="{LEFT - 6}" y="{level + 4:.1f}" class="axis" text-anchor="end">'
                   f'{html.escape(text_of(top * part / 4, unit))}</text>')
    for moment, anchor in ((0, "start"), (1, "end")):
        place = LEFT + (right - LEFT) * moment
        out.append(f'<text x="{place}" y="{bottom + 15}" class="axis" text-anchor="{anchor}">'
                   f'{"now" if moment else f"-{seconds:g} s"}</text>')
    at = 12
    for i, (name, points) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        places = " ".join(
            f"{LEFT + (right - LEFT) * (1 + moment / seconds):.1f},"
            f"{bottom - (bottom - TOP) * value / top:.1f}" for moment, value in points)
        out.append(f'<polyline points="{places}" class="line" stroke="{colour}"/>')
        if at < WIDTH - 60:
            out.append(f'<rect x="{at}" y="{HEIGHT - 22}" width="10" height="4" fill="{colour}"/>')
            out.append(f'<text x="{at + 14}" y="{HEIGHT - 16}" class="axis">{html.escape(name)}</text>')
        at += 26 + 7 * len(name)
    return out + ["</g>"]


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    url, seconds, output, titles = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]
    with open(DASHBOARD, encoding="utf-8") as file:
        panels = {panel["title"]: panel for panel in json.load(file)["panels"]
                  if panel["type"] != "row"}
    unknown = [title for title in titles if title not in panels]
    if unknown:
        sys.exit(f"no panel {unknown[0]!r}; there are: {', '.join(panels)}")
    rows = -(-len(titles) // COLUMNS)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" '
           f'height="{rows * HEIGHT}" font-family="sans-serif">',
           "<style>.panel{fill:#fff;stroke:#ccc}.title{font-size:14px;font-weight:bold;fill:#222}"
           ".axis{font-size:11px;fill:#555}.grid{stroke:#eee}"
           ".line{fill:none;stroke-width:1.6}</style>",
           f'<rect width="{COLUMNS * WIDTH}" height="{rows * HEIGHT}" fill="#f7f7f7"/>']
    for i, title in enumerate(titles):
        series = [(legend_of(target["legendFormat"], labels), points)
                  for target in panels[title]["targets"]
                  for labels, points in ask(url, target["expr"], seconds)]
        out += draw_panel(panels[title], series, seconds, i % COLUMNS * WIDTH,
                          i // COLUMNS * HEIGHT)
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n".join([*out, "</svg>", ""]))


main()
