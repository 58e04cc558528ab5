"""Runs a command and says what it took: a small process, so that a child's peak memory is its own.

usage: measured.py REPORT COMMAND ARGUMENT...

(What a forked child had in memory before its exec counts as its peak too: from pytest's own
process that would be more than the command's.)
"""
import json
import os
import sys


def main():
    report, command = sys.argv[1], sys.argv[2:]
    child = os.fork()
    if child == 0:
        os.execv(command[0], command)
    _, status, usage = os.wait4(child, 0)
    with open(report, "w", encoding="utf-8") as out:
        json.dump({"status": os.waitstatus_to_exitcode(status),
                   "seconds": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss << 10}, out)


main()
