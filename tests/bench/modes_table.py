#!/usr/bin/env python3
"""Makes a table of the execution modes, for a page, from what `sirocco bench --engine --json` wrote.

usage: tests/bench/modes_table.py FILE.json... [--batches 1,4,16]

Markdown on standard output: of each file a line that says what was measured, and a table of a mode
a row, of what it takes to start and how fast it decodes, absolute and beside `eager` (where that was
measured). Several files of one model on one device join to one table: those of modes that were
measured apart, as they should be. What a mode takes to start stands in parentheses where another one
had run before in the same process, which had then loaded what both need.
--batches: of those measured, the sizes to show; default: all that every mode has.
"""
import argparse
import json
import sys

# The most is compiled in the first.
MODES = ("decoder_graph", "layer_graph", "decoder", "layer", "eager")

# What must be the same in files that join.
CONDITIONS = ("model", "backend", "device", "dtype", "kv_cache_dtype", "prompt_length",
              "output_length")


class NoTable(Exception):
    """Of figures that make none; says why."""


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            figures = json.load(file)
        missing = [key for key in (*CONDITIONS, "stream", "repeat", "modes") if key not in figures]
    except (OSError, ValueError, TypeError) as error:
        raise NoTable(f"{path}: {error}") from None
    if missing:
        raise NoTable(f"{path}: no '{missing[0]}'; `sirocco bench --engine --json` writes it")
    return figures


def join(files):
    """The figures of one model and device, from those of some files: conditions -> figures."""
    joined = {}
    for path in files:
        figures = read(path)
        run = joined.setdefault(tuple(figures[key] for key in CONDITIONS),
                                {**figures, "modes": {}, "streams": []})
        run["streams"].append(figures["stream"])
        for place, mode in enumerate(figures["modes"]):
            mode["behind_another"] = place > 0
            if mode["mode"] not in MODES:
                raise NoTable(f"{path}: mode '{mode['mode']}' is none of {', '.join(MODES)}")
            if mode["mode"] in run["modes"]:
                raise NoTable(f"{path}: mode {mode['mode']} of {figures['model']} stands twice")
            run["modes"][mode["mode"]] = mode
    return list(joined.values())


def batches_of(mode):
    return {row["batch"]: row for row in mode["batches"]}


def shown_batches(run, wanted):
    measured = [set(batches_of(mode)) for mode in run["modes"].values()]
    common = set.intersection(*measured) if measured else set()
    if not common:
        raise NoTable(f"{run['model']}: no batch size was measured in every mode")
    for batch in wanted:
        if batch not in common:
            raise NoTable(f"{run['model']}: batch {batch} was not measured in every mode; "
                          f"measured: {', '.join(map(str, sorted(common)))}")
    return wanted or sorted(common)


def start_cells(mode):
    """Warm-up, capture, graphs, MiB of graphs."""
    def cell(text):
        return f"({text})" if mode["behind_another"] else text
    warm_up = cell(f"{mode['pack_seconds'] + mode['prepare_seconds']:.2f} s")
    if not mode.get("graphs"):
        return [warm_up, "–", "–", "–"]
    return [warm_up, cell(f"{mode['capture_seconds']:.2f} s"), f"{mode['graphs']:,}",
            cell(f"{mode['graph_bytes'] / 2**20:,.0f} MiB")]


def speed_cells(mode, eager, batches):
    """Microseconds a step, tokens a second, and times `eager`, by batch size."""
    cells = []
    for batch in batches:
        row = batches_of(mode)[batch]
        cell = f"{row['step_seconds'] * 1e6:,.0f} µs, {row['tokens_per_second']:,.0f}"
        if eager is not None and mode is not eager:
            times = row["tokens_per_second"] / batches_of(eager)[batch]["tokens_per_second"]
            cell += f" ({times:.2f}×)"
        cells.append(cell)
    return cells


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(run, wanted):
    """Lines of Markdown."""
    batches = shown_batches(run, wanted)
    eager = run["modes"].get("eager")
    streams = sorted(round(stream * 1e-9) for stream in run["streams"])
    stream = f"{streams[0]:,}" if streams[0] == streams[-1] else f"{streams[0]:,} to {streams[-1]:,}"
    head = ["mode", "warm-up", "capture", "graphs", "they hold",
            *(f"batch {batch}: a step, tokens/s" for batch in batches)]
    lines = [
        f"{run['model']} on {run['device']} ({run['backend']}), {run['dtype']}, KV cache "
        f"{run['kv_cache_dtype']}, prompts of {run['prompt_length']} tokens, outputs of "
        f"{run['output_length']}, medians of {run['repeat']}; memory stream {stream} GB/s:",
        "", row(head), "|" + "---|" * len(head)]
    for name in MODES:
        if name in run["modes"]:
            mode = run["modes"][name]
            lines.append(row([f"`{name}`", *start_cells(mode), *speed_cells(mode, eager, batches)]))
    if any(mode["behind_another"] for mode in run["modes"].values()):
        lines += ["", "In parentheses: behind another mode in one process, which had loaded kernels "
                  "that both need."]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--batches", default="", help="sizes to show, with commas; default: all")
    options = parser.parse_args()
    try:
        wanted = [int(size) for size in options.batches.split(",") if size]
    except ValueError:
        parser.error(f"--batches: '{options.batches}' is no list of numbers")
    try:
        tables = [table(run, wanted) for run in join(options.files)]
    except NoTable as error:
        print(f"modes_table.py: {error}", file=sys.stderr)
        return 1
    print("\n\n".join("\n".join(lines) for lines in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
