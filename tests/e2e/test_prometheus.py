"""A real Prometheus scrapes a loaded server: tokens a second, rules, alerts, the dashboard."""
import bisect
import json
import math
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree

import pytest

from harness import ROOT, TIMEOUT, Server, eventually
from prometheus_server import Prometheus, load_yaml, metric_names, rules

DASHBOARD = os.path.join(ROOT, "deploy/grafana/sirocco.json")
RULES_TEST = os.path.join(ROOT, "tests/e2e/prometheus/rules_test.yml")
CLIENTS = 4
SECONDS = 10  # of load
WINDOW = 8  # of it, for rates


class Load:
    """Clients that always ask, and when they got which tokens."""

    def __init__(self, server):
        self.server = server
        self.before = server.metrics()("sirocco_tokens_total", phase="decode")
        self.received = [[] for _ in range(CLIENTS)]  # (time, tokens)
        self.started = time.time()
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _ask(self, client):
        while time.time() < self.started + SECONDS:
            for event in self.server.stream(prompt="Once upon a time", max_new_tokens=64,
                                            stop={"ignore_eos": True}):
                self.received[client].append((time.time(), len(event.token_ids)))

    def join(self):
        for thread in self.threads:
            thread.join()
        self.ended = time.time()
        events = sorted(event for events in self.received for event in events)
        self.times = [moment for moment, _ in events]
        self.counts = [0]
        for _, tokens in events:
            self.counts.append(self.counts[-1] + tokens)

    def tokens_until(self, moment):
        return self.counts[bisect.bisect(self.times, moment)]


@pytest.fixture(scope="module")
def loaded(smollm2, tmp_path_factory):
    """(server, Prometheus that scraped it, the load that is over)."""
    # A thread less than cores, so that scrapes are answered when they come.
    with Server(smollm2, "--max-batch-size", CLIENTS, "--max-length", 1024,
                "--threads", 1) as server, \
            Prometheus([server.metrics_address],
                       str(tmp_path_factory.mktemp("prometheus"))) as prometheus:
        eventually(lambda: prometheus.query('up{job="sirocco"} == 1'), what="the first scrape")
        cancelled = server.stream(prompt="Once upon a time", max_new_tokens=900)
        next(cancelled)
        cancelled.cancel()
        eventually(lambda: server.metrics()("sirocco_cancel_to_free_seconds_count") == 1)
        load = Load(server)
        load.join()
        eventually(server.idle)
        load.scraped = settled(prometheus)
        yield server, prometheus, load


def settled(prometheus):
    """Waits until every rule has recorded what a scrape after this moment saw; returns when that was.
    """
    def since(moment, *names):
        """Waits until there are samples of all these names later than this; when the last one is of."""
        def last():
            times = [prometheus.query(f"timestamp({name})") for name in names]
            return [float(series["value"][1]) for group in times for series in group] \
                if all(times) else [0]
        eventually(lambda: min(last()) > moment, timeout=TIMEOUT, what=f"samples after {moment}")
        return max(last())

    recorded = [rule["record"] for rule in rules() if "record" in rule]
    # Twice: some rules read what others recorded.
    scraped = since(time.time(), 'up{job="sirocco"}')
    return since(since(scraped, *recorded), *recorded)


def test_tokens_a_second_are_what_the_clients_counted(loaded):
    _, prometheus, load = loaded
    counter = 'sirocco_tokens_total{phase="decode"}'
    now = load.started + SECONDS
    samples = prometheus.query(f"{counter}[{WINDOW}s]", time=now)[0]["values"]
    first, last = samples[0][0], samples[-1][0]
    assert last - first > WINDOW / 2
    seen = (load.tokens_until(last) - load.tokens_until(first)) / (last - first)
    assert seen > 20
    assert (float(samples[-1][1]) - float(samples[0][1])) / (last - first) \
        == pytest.approx(seen, rel=0.01)
    for name in (counter, "vllm:generation_tokens_total"):
        assert prometheus.value(f"sum(rate({name}[{WINDOW}s]))", time=now) \
            == pytest.approx(seen, rel=0.01)
    # To the last token.
    assert prometheus.value(counter) - load.before == load.counts[-1]


def test_every_rule_has_its_series(loaded):
    _, prometheus, load = loaded
    recorded = [rule for rule in rules() if "record" in rule]
    assert len(recorded) > 10
    for rule in recorded:
        samples = prometheus.query(rule["record"], time=load.scraped)
        assert samples, rule["record"]
        now = {json.dumps({k: v for k, v in sample["metric"].items() if k != "__name__"}):
               float(sample["value"][1])
               for sample in prometheus.query(rule["expr"], time=load.scraped)}
        for sample in samples:
            labels = {k: v for k, v in sample["metric"].items() if k != "__name__"}
            # Taken up to a second before.
            assert float(sample["value"][1]) == pytest.approx(
                now[json.dumps(labels)], rel=0.25, abs=0.05), rule["record"]


def test_rules_name_what_the_server_has(loaded):
    server, _, _ = loaded
    have = {name for name, _ in server.metrics().samples}
    for rule in rules():
        missing = metric_names(rule["expr"]) - have
        assert not missing, f"{rule.get('alert') or rule['record']}: {missing}"


def test_no_alert_under_a_load_that_it_carries(loaded):
    _, prometheus, _ = loaded
    groups = prometheus.get("rules")["groups"]
    loaded_rules = [rule for group in groups for rule in group["rules"]]
    assert len(loaded_rules) == len(rules())
    for rule in loaded_rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
    # How fast this machine is today is nothing to get up for.
    assert [alert for alert in prometheus.get("alerts")["alerts"]
            if alert["labels"]["severity"] == "page"] == []


class TestDashboard:
    @pytest.fixture(scope="class")
    def dashboard(self):
        with open(DASHBOARD, encoding="utf-8") as file:
            return json.load(file)

    def panels(self, dashboard):
        return [panel for panel in dashboard["panels"] if panel["type"] != "row"]

    def test_it_is_what_its_script_writes(self):
        subprocess.run([sys.executable, os.path.join(ROOT, "deploy/grafana/dashboard.py"),
                        "--check"], check=True, timeout=60)

    def test_every_query_has_an_answer(self, loaded, dashboard):
        server, prometheus, load = loaded
        queries = [(panel["title"], target["expr"]) for panel in self.panels(dashboard)
                   for target in panel["targets"]]
        assert len(queries) > 30
        variables = {"$job": "sirocco", "$instance": ".+", "$__rate_interval": "5s"}
        have = {name for name, _ in server.metrics().samples}
        for title, expression in queries:
            assert metric_names(expression) and metric_names(expression) <= have, title
            for variable, value in variables.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, title
            result = prometheus.query_range(expression, load.started, load.ended)
            values = [float(value) for series in result for _, value in series["values"]]
            assert any(math.isfinite(value) for value in values), f"{title}: {expression}"

    def test_the_throughput_it_shows(self, loaded, dashboard):
        _, prometheus, load = loaded
        panel = next(p for p in self.panels(dashboard) if p["title"] == "Tokens")
        query = panel["targets"][0]["expr"].replace("$job", "sirocco").replace("$instance", ".+")
        query = query.replace("$__rate_interval", f"{WINDOW}s")
        shown = {series["metric"]["phase"]: float(series["value"][1])
                 for series in prometheus.query(query, time=load.started + SECONDS)}
        assert shown["decode"] == prometheus.value(
            f'sum(rate(sirocco_tokens_total{{phase="decode"}}[{WINDOW}s]))',
            time=load.started + SECONDS)

    def test_its_pictures(self, loaded, dashboard, tmp_path):
        _, prometheus, _ = loaded
        titles = [panel["title"] for panel in self.panels(dashboard)]
        picture = tmp_path / "dashboard.svg"
        program = os.path.join(ROOT, "deploy/grafana/draw.py")
        subprocess.run([sys.executable, program, prometheus.url, "15", picture, *titles],
                       check=True, timeout=60)
        svg = "{http://www.w3.org/2000/svg}"
        root = xml.etree.ElementTree.parse(picture).getroot()
        drawn = {group.find(f"{svg}text").text: group for group in root.iter(f"{svg}g")}
        assert list(drawn) == titles
        for title, group in drawn.items():
            lines = [line.get("points") for line in group.iter(f"{svg}polyline")]
            assert any(lines), title
            width, height = 400, 240
            for point in " ".join(lines).split():
                x, y = map(float, point.split(","))
                assert 0 < x < width and 0 < y < height, title
        unknown = subprocess.run([sys.executable, program, prometheus.url, "15", picture, "Rain"],
                                 capture_output=True, text=True, timeout=60)
        assert unknown.returncode == 1 and "no panel 'Rain'" in unknown.stderr

    def test_units_places_and_data_source(self, dashboard):
        ids, cells = set(), set()
        for panel in dashboard["panels"]:
            assert panel["id"] not in ids
            ids.add(panel["id"])
            place = panel["gridPos"]
            mine = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                    for y in range(place["y"], place["y"] + place["h"])}
            assert not mine & cells, f"{panel['title']} lies on another panel"
            assert place["x"] + place["w"] <= 24
            cells |= mine
        for panel in self.panels(dashboard):
            unit = panel["fieldConfig"]["defaults"]["unit"]
            assert unit in ("short", "s", "bytes", "percentunit", "reqps", "cps"), panel["title"]
            assert panel["description"]
            expressions = " ".join(target["expr"] for target in panel["targets"])
            assert ("histogram_quantile" not in expressions and "_seconds" not in expressions) \
                or unit == "s", panel["title"]
            assert "_bytes" not in expressions or unit == "bytes", panel["title"]
            for holder in [panel, *panel["targets"]]:
                assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        names = [variable["name"] for variable in dashboard["templating"]["list"]]
        assert names == ["datasource", "job", "instance"]


def test_rules_by_promtool():
    """Each alert where it fires and where it does not, each recorded series' value."""
    text = load_yaml(RULES_TEST)
    fired = {case["alertname"] for test in text["tests"]
             for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
    quiet = {case["alertname"] for test in text["tests"]
             for case in test.get("alert_rule_test", ()) if not case["exp_alerts"]}
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert fired == quiet == alerts
    assert {case["expr"] for test in text["tests"] for case in test.get("promql_expr_test", ())} \
        == {rule["record"] for rule in rules() if "record" in rule}
    result = subprocess.run(["promtool", "test", "rules", RULES_TEST], timeout=60, text=True,
                            capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_explained():
    with open(os.path.join(ROOT, "deploy/docs/alerts.md"), encoding="utf-8") as page:
        explained = {line[3:].strip() for line in page if line.startswith("## ")}
    assert explained == {rule["alert"] for rule in rules() if "alert" in rule}


def test_a_server_that_is_gone_is_told(bare, tmp_path):
    with Server(bare) as server, Prometheus([server.metrics_address], str(tmp_path)) as prometheus:
        eventually(lambda: prometheus.query('up{job="sirocco"} == 1'), what="the first scrape")
        server.stop()
        alert = eventually(lambda: [alert for alert in prometheus.get("alerts")["alerts"]
                                    if alert["labels"]["alertname"] == "SiroccoDown"],
                           what="an alert")
        assert alert[0]["labels"]["instance"] == server.metrics_address
        assert alert[0]["state"] == "pending"  # for two minutes
