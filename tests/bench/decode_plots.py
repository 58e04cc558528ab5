#!/usr/bin/env python3
"""Draws how fast steps decode, by rows and mode, beside other engines: one SVG for pages.

usage: tests/bench/decode_plots.py PEERS.json OUTPUT.svg FILE.json...

FILE.json: what `sirocco bench --engine --json` wrote, all on the peers' device; files of one model join.
PEERS.json: tokens a second of other engines, with their versions and who measured them. Above, tokens a
second; below, the share of the memory's bandwidth: the bytes that a step must read, each weight and each
KV slot once, over its time and the stream's rate. A peer's share is of the bytes that ours must read
with as many rows; where we measured none, it has none.
"""
import html
import json
import math
import sys

from modes_table import CONDITIONS, MODES, NoTable, batches_of, join

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 34, 34  # of the plot in its panel
# Okabe and Ito's, which most eyes tell apart (Color Universal Design, 2008): modes, then peers.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
SHARE_TOP = 100


def read_peers(path):
    try:
        with open(path, encoding="utf-8") as file:
            peers = json.load(file)
        for key in ("device", "measured_by", "engines"):
            if key not in peers:
                raise NoTable(f"{path}: no '{key}'")
        for engine in peers["engines"]:
            for key in ("engine", "version", "tokens_per_second"):
                if key not in engine:
                    raise NoTable(f"{path}: an engine without '{key}'")
        return peers
    except (OSError, ValueError, TypeError) as error:
        raise NoTable(f"{path}: {error}") from None


def name_of(model):
    return model.rstrip("/").rsplit("/", 1)[-1]


def series_of(run, peers):
    """[(name, place among colours, [(rows, tokens/s, share in percent or None)])] of a model."""
    floors, found = {}, []
    for place, mode in enumerate(MODES):
        if mode not in run["modes"]:
            continue
        rows = batches_of(run["modes"][mode])
        floors.update({batch: row["floor_bytes"] for batch, row in rows.items()})
        found.append((mode, place, [(batch, row["tokens_per_second"], 100 * row["share"])
                                    for batch, row in sorted(rows.items())]))
    for i, engine in enumerate(peers["engines"]):
        rates = engine["tokens_per_second"].get(name_of(run["model"]), {})
        points = []
        for batch, rate in sorted((int(batch), rate) for batch, rate in rates.items()):
            floor = floors.get(batch)
            share = None if floor is None else 100 * floor * rate / batch / run["stream"]
            points.append((batch, rate, share))
        if points:
            found.append((engine["engine"], len(MODES) + i, points))
    return found


def decades(values):
    """The axis of a logarithmic scale: exponents of ten around the values."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def draw_panel(title, lines, x_of, y_of, ticks, x, y):
    """lines: [(place among colours, [(rows, value)])]; ticks: [(value, text)]."""
    out = [f'<g transform="translate({x},{y})">',
           f'<rect x="2" y="2" width="{WIDTH - 4}" height="{HEIGHT - 4}" class="panel"/>',
           f'<text x="12" y="22" class="title">{html.escape(title)}</text>']
    for value, text in ticks:
        at = y_of(value)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
                   'class="grid"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" class="axis" text-anchor="end">'
                   f'{text}</text>')
    for batch in (1, 4, 16, 64, 256):
        out.append(f'<text x="{x_of(batch):.1f}" y="{HEIGHT - BOTTOM + 16}" class="axis" '
                   f'text-anchor="middle">{batch}</text>')
    for place, points in lines:
        colour = COLOURS[place % len(COLOURS)]
        dash = ' stroke-dasharray="5 3"' if place >= len(MODES) else ""
        places = " ".join(f"{x_of(batch):.1f},{y_of(value):.1f}" for batch, value in points)
        out.append(f'<polyline points="{places}" class="line" stroke="{colour}"{dash}/>')
        out += [f'<circle cx="{x_of(batch):.1f}" cy="{y_of(value):.1f}" r="3" fill="{colour}"/>'
                for batch, value in points]
    return out + ["</g>"]


def draw(runs, peers):
    width, legend = len(runs) * WIDTH, 56
    x_of = lambda batch: LEFT + 8 + (WIDTH - RIGHT - LEFT - 16) * math.log2(batch) / 8
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
           f'height="{2 * HEIGHT + legend}" font-family="sans-serif">',
           "<style>.panel{fill:#fff;stroke:#ccc}.title{font-size:14px;font-weight:bold;fill:#222}"
           ".axis{font-size:11px;fill:#555}.grid{stroke:#eee}"
           ".line{fill:none;stroke-width:1.6}</style>",
           f'<rect width="{width}" height="{2 * HEIGHT + legend}" fill="#f7f7f7"/>']
    names = {}
    for column, run in enumerate(runs):
        series = series_of(run, peers)
        names.update({place: name for name, place, _ in series})
        low, high = decades([rate for _, _, points in series for _, rate, _ in points])
        rate_y = lambda rate: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (
            math.log10(rate) - low) / (high - low)
        share_y = lambda share: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share / SHARE_TOP
        model = name_of(run["model"])
        out += draw_panel(f"{model}: tokens/s, by rows",
                          [(place, [(batch, rate) for batch, rate, _ in points])
                           for _, place, points in series], x_of, rate_y,
                          [(10 ** power, f"{10 ** power:,}") for power in range(low, high + 1)],
                          column * WIDTH, 0)
        shares = [(place, [(batch, share) for batch, _, share in points if share is not None])
                  for _, place, points in series]
        out += draw_panel(f"{model}: share of the bandwidth, by rows",
                          [line for line in shares if line[1]], x_of, share_y,
                          [(part, f"{part}%") for part in range(0, SHARE_TOP + 1, 20)],
                          column * WIDTH, HEIGHT)
    at = 12
    for place, name in sorted(names.items()):
        if place >= len(MODES):
            name += f" {peers['engines'][place - len(MODES)]['version']}"
        colour = COLOURS[place % len(COLOURS)]
        out.append(f'<rect x="{at}" y="{2 * HEIGHT + 16}" width="12" height="4" fill="{colour}"/>')
        out.append(f'<text x="{at + 16}" y="{2 * HEIGHT + 22}" class="axis">{html.escape(name)}</text>')
        at += 36 + 7 * len(name)
    out.append(f'<text x="12" y="{2 * HEIGHT + 44}" class="axis">{html.escape(runs[0]["device"])}, '
               f'{runs[0]["dtype"]}; dashed: measured by {html.escape(peers["measured_by"])}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        peers = read_peers(sys.argv[1])
        runs = join(sys.argv[3:])
        for run in runs:
            if run["device"] != peers["device"]:
                raise NoTable(f"{run['model']} was measured on {run['device']}, the peers on "
                              f"{peers['device']}")
        different = [key for key in CONDITIONS if key != "model"
                     and len({run[key] for run in runs}) > 1]
        if different:
            raise NoTable(f"figures of different {different[0]} make no one picture")
        picture = draw(runs, peers)
    except NoTable as error:
        sys.exit(f"decode_plots.py: {error}")
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
