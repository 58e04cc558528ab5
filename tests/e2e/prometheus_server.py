"""Starts a real Prometheus and asks it."""
import json
import os
import re
import subprocess
import tempfile
import urllib.parse

import yaml

from harness import ROOT, eventually, free_port, http

FOLDER = os.path.join(ROOT, "deploy/prometheus")
RULE_FILES = ("recording.yml", "alerts.yml")


def metric_names(expression):
    """The server's own metrics that a query names."""
    return set(re.findall(r"(?<![\w:])(?:sirocco_|vllm:)\w+", expression))


def load_yaml(path):
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def rules():
    """All rules of deploy/prometheus."""
    return [rule for name in RULE_FILES
            for group in load_yaml(os.path.join(FOLDER, name))["groups"]
            for rule in group["rules"]]


class Prometheus:
    """A running Prometheus with the configuration of deploy/prometheus, but for what it scrapes
    (`targets`, whose series get `labels`) and how often.
    """

    def __init__(self, targets, folder, interval="500ms", labels=None):
        config = load_yaml(os.path.join(FOLDER, "prometheus.yml"))
        config["global"] = {"scrape_interval": interval, "evaluation_interval": "1s"}
        config["rule_files"] = [os.path.join(FOLDER, name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [
            {"targets": targets, "labels": labels or {}}]
        config_file = os.path.join(folder, "prometheus.yml")
        with open(config_file, "w", encoding="utf-8") as file:
            yaml.safe_dump(config, file)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config_file}", "--log.level=warn",
             f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={self.url.removeprefix('http://')}"],
            stdout=self.log, stderr=self.log)
        eventually(self._ready, timeout=30, what="Prometheus's start")

    def _ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(f"Prometheus ended:\n{self.log.read()}")
        try:
            return http(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False

    def get(self, path, **parameters):
        """The `data` of an answer."""
        status, body = http(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, f"{path} {parameters}: {body}"
        return json.loads(body)["data"]

    def query(self, expression, **parameters):
        return self.get("query", query=expression, **parameters)["result"]

    def query_range(self, expression, start, end, step=1):
        return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]

    def value(self, expression, **parameters):
        """Of a query that has one sample."""
        result = self.query(expression, **parameters)
        assert len(result) == 1, f"{expression}: {result}"
        return float(result[0]["value"][1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
