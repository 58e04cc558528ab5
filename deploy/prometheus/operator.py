#!/usr/bin/env python3
"""Writes deploy/kubernetes/components/monitoring/prometheus_rule.yaml: the rules beside this script, as
the object that the Prometheus operator takes.

usage: operator.py [--check]     --check: exit with 1 where the file is not what would be written
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FILE = os.path.join(HERE, "../kubernetes/components/monitoring/prometheus_rule.yaml")
SOURCES = ("recording.yml", "alerts.yml")

HEAD = """\
# Written by deploy/prometheus/operator.py from the rules there: change those, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sirocco
spec:
  groups:
"""


def text():
    out = HEAD
    for name in SOURCES:
        with open(os.path.join(HERE, name), encoding="utf-8") as file:
            before, found, groups = file.read().partition("groups:\n")
        if not found or any(line and not line.startswith("#") for line in before.split("\n")):
            sys.exit(f"{name} is not comments and then `groups:`")
        out += f"    # From {name}.\n"
        out += "".join(f"  {line}\n" if line else "\n" for line in groups.rstrip("\n").split("\n"))
    return out


def main():
    if sys.argv[1:] == ["--check"]:
        with open(FILE, encoding="utf-8") as file:
            if file.read() != text():
                sys.exit(f"{FILE} is not what {os.path.basename(__file__)} writes: run it")
        return
    if sys.argv[1:]:
        sys.exit("usage: operator.py [--check]")
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(text())


main()
