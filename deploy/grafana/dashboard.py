#!/usr/bin/env python3
"""Writes deploy/grafana/sirocco.json, the Grafana dashboard, from the table of its panels below.

usage: dashboard.py [--check]     --check: exit with 1 where the file is not what would be written
"""
import json
import os
import sys

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sirocco.json")
WIDTH = 24  # of Grafana's grid
HEIGHT = 8

# What a query selects: the variables at the dashboard's top.
SELECT = 'job=~"$job", instance=~"$instance"'
RATE = "[$__rate_interval]"

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rate(name, labels="", by=""):
    """Events a second of a counter, over all replicas selected."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{SELECT}{labels}}}{RATE}))"


def quantiles(name, labels=""):
    """The targets of a latency panel."""
    return [(f"histogram_quantile({q}, {rate(name + '_bucket', labels, 'le')})", legend)
            for q, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


# Rows of panels: (title, unit, [(query, legend)], what it tells). Units are Grafana's identifiers.
ROWS = {
    "Throughput": [
        ("Tokens", "short",
         [(rate("sirocco_tokens_total", by="phase"), "{{phase}}")],
         "A second: prompt tokens computed, and tokens generated."),
        ("Tokens generated, by replica", "short",
         [(rate("sirocco_tokens_total", ', phase="decode"', "instance"), "{{instance}}")],
         "A second. One that lags behind the others gets fewer calls, or has a slower device."),
        ("Generate calls that ended", "reqps",
         [(f"sum by (code) (rate(sirocco_requests_total{{{SELECT}, method=~\"Generate.*\"}}{RATE}))"
           " > 0", "{{code}}")],
         "By status code; those that did not happen are left out."),
    ],
    "Latency": [
        ("Time to first token", "s", quantiles("vllm:time_to_first_token_seconds"),
         "From a request's arrival to a sequence's first token."),
        ("Time between tokens", "s", quantiles("vllm:inter_token_latency_seconds"),
         "One observation a token after the first."),
        ("Whole requests", "s", quantiles("vllm:e2e_request_latency_seconds"),
         "From a request's arrival to its end."),
    ],
    "Load": [
        ("Requests", "short",
         [(f"sum (vllm:num_requests_running{{{SELECT}}})", "run"),
          (f"sum (vllm:num_requests_waiting{{{SELECT}}})", "wait")],
         "At the scrape."),
        ("Time in the queue", "s", quantiles("vllm:request_queue_time_seconds"),
         "Of requests that left it for the engine."),
        ("Prompt tokens that wait", "short",
         [(f"sum (sirocco_queue_tokens{{{SELECT}}})", "tokens")],
         "What new requests have before them."),
        ("Refused calls", "reqps",
         [(rate("sirocco_rejected_total", by="reason"), "{{reason}}")],
         "At once, with RESOURCE_EXHAUSTED or, while draining, UNAVAILABLE."),
        ("Deadlines that passed", "reqps",
         [(rate("sirocco_deadline_exceeded_total", by="stage"), "{{stage}}")],
         "By the stage that the request was in."),
        ("From cancel to free blocks", "s", quantiles("sirocco_cancel_to_free_seconds"),
         "A step of the engine, where all is well."),
    ],
    "KV cache": [
        ("KV cache in use", "percentunit",
         [(f"vllm:kv_cache_usage_perc{{{SELECT}}}", "{{instance}}")],
         "By running sequences. Near 100% sequences are preempted."),
        ("Blocks", "short",
         [(f"sum by (state) (sirocco_kv_blocks{{{SELECT}}})", "{{state}}")],
         "Cached ones are given up when there are no free ones."),
        ("Prompt tokens found in the prefix cache", "percentunit",
         [(f"{rate('vllm:prefix_cache_hits_total')} / "
           f"({rate('vllm:prefix_cache_queries_total')} > 0)", "found")],
         "Share of all prompt tokens."),
        ("Preempted sequences", "cps", [(rate("vllm:num_preemptions_total"), "preempted")],
         "They lost their blocks and are computed anew."),
    ],
    "Engine": [
        ("Decode batch", "short",
         [(f"{rate('sirocco_batch_size_sum')} / ({rate('sirocco_batch_size_count')} > 0)", "mean")],
         "Sequences of a decode step."),
        ("Decode steps", "s", quantiles("sirocco_step_seconds", ', phase="decode"'),
         "Time of a step."),
        ("Prefill steps", "s", quantiles("sirocco_step_seconds", ', phase="prefill"'),
         "Time of a step."),
        ("Sequences that ended", "cps",
         [(rate("vllm:request_success_total", by="finished_reason"), "{{finished_reason}}")],
         "By the reason."),
        ("Overrun rows", "cps", [(rate("sirocco_overrun_rows_total"), "rows")],
         "Rows computed for sequences that had already ended."),
        ("Replayed decode steps", "cps", [(rate("sirocco_graph_replays_total"), "steps")],
         "Nothing in modes without graphs."),
    ],
    "Process": [
        ("Device memory", "bytes",
         [(f"sum by (instance, use) (sirocco_memory_bytes{{{SELECT}}})", "{{instance}} {{use}}")],
         "What the server has allocated, by what it is for."),
        ("Start-up", "s",
         [(f"sirocco_startup_seconds{{{SELECT}}}", "{{instance}} {{phase}}")],
         "Of the last start, by phase."),
        ("Since the last step", "s",
         [(f"time() - (sirocco_last_step_timestamp_seconds{{{SELECT}}} > 0)", "{{instance}}")],
         "Grows while there is nothing to do, and where a step hangs."),
        ("Replicas", "short",
         [(f"count by (version, backend, mode, dtype) (sirocco_build_info{{{SELECT}}})",
           "{{version}} {{backend}} {{mode}} {{dtype}}")],
         "By what runs in them."),
    ],
}


def panel(number, title, unit, targets, description, place):
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "custom": {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATA_SOURCE, "expr": query,
             "legendFormat": legend, "range": True}
            for i, (query, legend) in enumerate(targets)
        ],
    }


def panels():
    out, y = [], 0
    for title, row in ROWS.items():
        out.append({"id": len(out) + 1, "type": "row", "title": title, "collapsed": False,
                    "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}, "panels": []})
        y += 1
        columns = 3 if len(row) % 3 == 0 else 2
        width = WIDTH // columns
        for i, (name, unit, targets, description) in enumerate(row):
            place = {"x": i % columns * width, "y": y + i // columns * HEIGHT, "w": width,
                     "h": HEIGHT}
            out.append(panel(len(out) + 1, name, unit, targets, description, place))
        y += -(-len(row) // columns) * HEIGHT
    return out


def query_variable(name, label):
    query = f"label_values(sirocco_build_info, {name})"
    if name == "instance":
        query = 'label_values(sirocco_build_info{job=~"$job"}, instance)'
    return {
        "name": name, "label": label, "type": "query", "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": "variable"}, "definition": query, "refresh": 2,
        "multi": True, "includeAll": True, "sort": 1,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def dashboard():
    return {
        "uid": "sirocco",
        "title": "Sirocco",
        "description": "Throughput, latency, load and state of Sirocco servers.",
        "tags": ["sirocco"],
        "schemaVersion": 38,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource",
             "query": "prometheus", "current": {}},
            query_variable("job", "Service"),
            query_variable("instance", "Replica"),
        ]},
        "annotations": {"list": []},
        "panels": panels(),
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        with open(FILE, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{FILE} is not what {os.path.basename(__file__)} writes: run it")
        return
    if sys.argv[1:]:
        sys.exit("usage: dashboard.py [--check]")
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(text)


main()
