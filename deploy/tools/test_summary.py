#!/usr/bin/env python3
"""Sums test cases over runs of bazel and pytest, and ends with 'N passed, N failed, N skipped'.

usage: deploy/tools/test_summary.py [--bazel EVENT_FILE]... [--case STATUS NAME]...

An EVENT_FILE is what `bazel test --build_event_json_file` wrote; a STATUS is passed, failed or
skipped. Failed and skipped cases are named. A bazel target without a test.xml (it crashed, timed
out or did not build) counts as one failure, and so does a run that broke off.
"""
import argparse
import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ET

# Of bazel: success, some tests failed, no tests (of a filter that leaves none).
COUNTED_EXIT_CODES = (0, 3, 4)


class Summary:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def add_xml(self, path, prefix):
        """Counts the cases of one JUnit file."""
        for case in ET.parse(path).getroot().iter("testcase"):
            name = f"{prefix}{case.get('classname', '')}.{case.get('name', '')}"
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed.append(name)
            elif (skipped is not None or case.get("status") == "notrun"
                  or case.get("result") in ("skipped", "suppressed")):
                reason = skipped.get("message") if skipped is not None else None
                self.skipped.append(name + (f": {' '.join(reason.split())}" if reason else ""))
            else:
                self.passed += 1

    def add_case(self, status, name):
        if status == "passed":
            self.passed += 1
        elif status == "skipped":
            self.skipped.append(name)
        else:
            self.failed.append(name)

    def add_bazel(self, path):
        expected, skipped_targets, results, exit_code = set(), set(), {}, None
        with open(path) as events:
            for line in events:
                event = json.loads(line)
                ident = event.get("id", {})
                if "targetConfigured" in ident and event.get("configured", {}).get("testSize"):
                    expected.add(ident["targetConfigured"]["label"])
                elif "targetCompleted" in ident \
                        and event.get("aborted", {}).get("reason") == "SKIPPED":
                    skipped_targets.add(ident["targetCompleted"]["label"])
                elif "testResult" in ident and "testResult" in event:
                    key = ident["testResult"]
                    # A later attempt of the same run and shard replaces an earlier one.
                    results[(key["label"], key.get("run", 1), key.get("shard", 1))] = \
                        event["testResult"]
                elif "buildFinished" in ident:
                    exit_code = event.get("finished", {}).get("exitCode", {}).get("code", 0)
        for (label, _, _), result in sorted(results.items()):
            self.add_bazel_result(label, result)
        for label in sorted(expected - {key[0] for key in results}):
            if label in skipped_targets:  # it needs what this build is without
                self.skipped.append(label)
            else:
                self.failed.append(f"{label}: did not run")
        if exit_code not in COUNTED_EXIT_CODES:
            self.failed.append(f"bazel ended with {exit_code}: not everything was built")

    def add_bazel_result(self, label, result):
        failed_before = len(self.failed)
        for output in result.get("testActionOutput", []):
            uri = output.get("uri", "")
            if output.get("name") == "test.xml" and uri.startswith("file://"):
                try:
                    self.add_xml(urllib.parse.unquote(uri[len("file://"):]), f"{label} ")
                except (OSError, ET.ParseError):
                    pass  # cut short by a crash: counted below
        if result.get("status") not in ("PASSED", "FLAKY") and len(self.failed) == failed_before:
            self.failed.append(f"{label}: {result.get('status')}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bazel", action="append", default=[])
    parser.add_argument("--case", action="append", default=[], nargs=2)
    args = parser.parse_args()
    summary = Summary()
    for path in args.bazel:
        if os.path.exists(path):
            summary.add_bazel(path)
        else:
            summary.failed.append(f"{path}: bazel did not start")
    for status, name in args.case:
        summary.add_case(status, name)
    for name in summary.skipped:
        print(f"skipped: {name}")
    for name in summary.failed:
        print(f"FAILED: {name}")
    print(f"{summary.passed} passed, {len(summary.failed)} failed, {len(summary.skipped)} skipped")
    return 1 if summary.failed or not summary.passed else 0


if __name__ == "__main__":
    sys.exit(main())
