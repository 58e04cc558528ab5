"""Serves a small model for minutes under calls of every kind, checks every answer, and watches the
server's memory. Exit status 1: an answer was wrong, something is held in the end, or memory grows;
the last lines say what, after the end of the server's log.

usage: soak.py [--minutes N] [--pause SECONDS] [--report FILE]    (deploy/soak prepares it)
"""
import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter

import grpc

import harness
import tiny_model
from harness import eventually
from stubs import pb, rpc

WORKERS = 48
CASES = 40
CHANNELS = 4
# Sixteen run and sixteen wait: with 48 workers some are refused, which is an outcome too.
FLAGS = ["--max-batch-size", 16, "--max-length", 1024, "--max-queue-size", 16, "--log-format",
         "json"]
# Kinds of calls, and how many of a hundred.
KINDS = {"stream": 55, "unary": 18, "slow": 5, "cancel": 9, "deadline": 5, "wrong": 5,
         "disconnect": 3}
# The codes that they may end with beside OK; and all with RESOURCE_EXHAUSTED.
MAY_END_WITH = {"deadline": {"DEADLINE_EXCEEDED"}, "wrong": {"INVALID_ARGUMENT"}}
# No call takes so many seconds, however busy the machine is: it hangs.
PATIENCE = 300
# glibc's allocator fills an arena and a cache of small pieces a thread, one after the other, which
# looks like a leak for minutes: with a single arena and without the caches it does not.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
# What the linear fit may grow by over the whole measurement: the allocator's ups and downs. A call
# that leaked a hundred bytes would be beyond it within a minute.
GROWTH_BOUND_MIB = 1.0


def cases():
    """Requests of different shapes; deterministic."""
    dice = random.Random(11)
    for i in range(CASES):
        yield {
            "prompt": f"Story {i}: " + "once " * dice.randint(0, 60),
            "max_new_tokens": dice.randint(1, 60),
            "n": dice.choice([1, 1, 1, 2]),
            "sampling": {"temperature": dice.choice([0.0, 0.9]), "seed": i, "top_p": 0.95},
            "stop": {"ignore_eos": dice.random() < 0.7,
                     "strings": ["zz", "a b"] if dice.random() < 0.2 else []},
            "logprobs": {"top": 3} if dice.random() < 0.2 else None,
        }


def completions(response):
    return {c.index: (c.text, list(c.token_ids), c.finish_reason) for c in response.completions}


class Wrong(Exception):
    """An answer that is not the expected one."""


class Clients:
    """Workers that call until told to stop."""

    def __init__(self, address, requests, answers, until, pause):
        self.address, self.requests, self.answers = address, requests, answers
        self.until, self.pause = until, pause
        self.seen = Counter()  # (kind, code) -> calls
        self.checked = 0  # whole answers
        self.tokens = 0
        self.failures = []  # what ended the workers that found something wrong

    def channel(self):
        return grpc.aio.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    async def run(self):
        channels = [self.channel() for _ in range(CHANNELS)]
        stubs = [rpc.InferenceStub(channel) for channel in channels]
        await asyncio.gather(*(self.work(i, stubs[i % CHANNELS], random.Random(i))
                               for i in range(WORKERS)))
        for channel in channels:
            await channel.close()

    async def work(self, worker, stub, dice):
        kinds, weights = list(KINDS), list(KINDS.values())
        began = time.monotonic()
        while time.monotonic() < self.until:
            kind, number = dice.choices(kinds, weights)[0], dice.randrange(len(self.requests))
            call_began = time.monotonic()
            try:
                code = await asyncio.wait_for(self.call(kind, stub, dice, number), PATIENCE)
            except (Exception, asyncio.CancelledError) as failure:
                now = time.monotonic()
                self.failures.append(
                    f"worker {worker}, {kind} of case {number}, begun {call_began - began:.1f} s "
                    f"into the soak, failed {now - call_began:.1f} s later: {failure!r}")
                self.until = 0  # for all: each ends with the call that it is in
                return
            self.seen[kind, code] += 1
            wait = self.pause * 2 + (0.1 if code == "RESOURCE_EXHAUSTED" else 0)
            if wait > 0:
                await asyncio.sleep(dice.uniform(0, wait))

    async def call(self, kind, stub, dice, number):
        """One call, its answer checked; the code."""
        try:
            await getattr(self, kind)(stub, dice, number)
            return "OK"
        except grpc.aio.AioRpcError as error:
            if error.code().name not in MAY_END_WITH.get(kind, set()) | {"RESOURCE_EXHAUSTED"}:
                raise
            return error.code().name

    @staticmethod
    def expect(condition, what):
        if not condition:
            raise Wrong(what)

    async def read(self, call, number, pause=0.0, most=None):
        """A stream to its end, or of it the first events, checked against the answer."""
        parts = {i: ["", [], 0] for i in self.answers[number]}
        events = 0
        async for event in call:
            part = parts[event.index]
            part[0] += event.text
            part[1] += event.token_ids
            part[2] = event.finish_reason
            events += 1
            if events == most:
                break
            await asyncio.sleep(pause)
        for index, (text, ids, finish) in self.answers[number].items():
            got = parts[index]
            if most is None:
                self.expect(got == [text, ids, finish], f"case {number}: {got} is not {text!r}")
                self.checked += 1
            else:
                self.expect(text.startswith(got[0]) and ids[:len(got[1])] == got[1],
                            f"case {number}: {got} does not begin {text!r}")
            self.tokens += len(got[1])

    async def stream(self, stub, _, number):
        await self.read(stub.GenerateStream(self.requests[number]), number)

    async def slow(self, stub, dice, number):
        await self.read(stub.GenerateStream(self.requests[number]), number, dice.uniform(0, 0.05))

    async def unary(self, stub, _, number):
        response = await stub.Generate(self.requests[number])
        self.expect(completions(response) == self.answers[number], f"case {number}: {response}")
        self.checked += len(response.completions)
        self.tokens += response.usage.completion_tokens

    async def cancel(self, stub, dice, number):
        call = stub.GenerateStream(self.requests[number])
        await self.read(call, number, most=dice.randint(1, 8))
        call.cancel()

    async def deadline(self, stub, dice, number):
        call = stub.GenerateStream(self.requests[number], timeout=dice.uniform(0.001, 0.2))
        await self.read(call, number)

    async def wrong(self, stub, _, number):
        await stub.Generate(pb.GenerateRequest(prompt=f"{number}", sampling={"temperature": -1}))
        self.expect(False, "it was answered")

    async def disconnect(self, _, dice, number):
        channel = self.channel()
        call = rpc.InferenceStub(channel).GenerateStream(self.requests[number])
        try:
            await self.read(call, number, most=dice.randint(1, 3))
        finally:
            await channel.close()


def proc(pid):
    """(resident MiB, threads, open files)."""
    values = {}
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            key, _, value = line.partition(":")
            values[key] = value
    return (int(values["VmRSS"].split()[0]) / 1024, int(values["Threads"]),
            len(os.listdir(f"/proc/{pid}/fd")))


class Watcher(threading.Thread):
    """Samples the process twice a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.samples, self.stopped = pid, [], threading.Event()
        self.begin = time.monotonic()

    def run(self):
        while not self.stopped.wait(0.5):
            self.samples.append((time.monotonic() - self.begin, *proc(self.pid)))

    def stop(self):
        self.stopped.set()
        self.join()


def slope(points):
    """Least squares: what y grows by while x grows by one."""
    count = len(points)
    mean_x, mean_y = (sum(p[i] for p in points) / count for i in (0, 1))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return covariance / sum((x - mean_x) ** 2 for x, _ in points)


def run_clients(address, seconds, pause):
    """The clients' process: prints what they saw, and ends without further ado. grpc.aio may keep a
    closed channel's connection as long as anything refers to a call, and may wait for its own thread
    for ever at a loop's end; with the process all is closed.
    """
    requests = [pb.GenerateRequest(**case) for case in cases()]
    with grpc.insecure_channel(address) as channel:
        stub = rpc.InferenceStub(channel)
        answers = [completions(stub.Generate(one)) for one in requests]
    clients = Clients(address, requests, answers, time.monotonic() + seconds, pause)
    asyncio.new_event_loop().run_until_complete(clients.run())
    print(json.dumps({"calls": sum(clients.seen.values()), "answers_checked": clients.checked,
                      "tokens": clients.tokens, "failures": clients.failures,
                      "calls_by_outcome": {f"{kind} {code}": count for (kind, code), count in
                                           sorted(clients.seen.items())}}), flush=True)
    os._exit(0)


def seen_by_clients(address, seconds, pause):
    done = subprocess.run([sys.executable, __file__, "--clients", address, "--minutes",
                           str(seconds / 60), "--pause", str(pause)], stdout=subprocess.PIPE,
                          text=True, check=False, timeout=seconds + 2 * PATIENCE)
    if done.returncode != 0:
        raise Wrong(f"the clients' process ended with {done.returncode}")
    seen = json.loads(done.stdout)
    failures = seen.pop("failures")
    if failures:
        raise Wrong("\n".join([f"{len(failures)} calls failed:", *failures[:10]]))
    return seen


def soak(server, minutes, pause):
    for case in cases():
        server.generate(**case)
    idle_threads, idle_files = proc(server.process.pid)[1:]
    seconds = minutes * 60
    warm_up = min(max(20, seconds / 4), 300)
    watcher = Watcher(server.process.pid)
    watcher.start()
    seen = seen_by_clients(server.address, seconds, pause)
    watcher.stop()

    eventually(server.idle, timeout=60, what="the end of all sequences")
    assert server.metrics()("sirocco_decode_allocations_total") == 0
    eventually(lambda: proc(server.process.pid)[2] <= idle_files, timeout=60,
               what="the end of all connections")
    # gRPC has threads that come and go, by the number of processors.
    most_threads = idle_threads + 4 + 2 * os.cpu_count()
    eventually(lambda: proc(server.process.pid)[1] <= most_threads, timeout=60,
               what=f"the end of all threads beyond {most_threads}")

    warm = [(at, rss) for at, rss, *_ in watcher.samples if at >= warm_up]
    measured = warm[-1][0] - warm[0][0]
    per_second = slope(warm)
    return {
        "minutes": minutes, "flags": " ".join(map(str, FLAGS)), "workers": WORKERS,
        "pause_seconds": pause,
        **seen, "warm_up_seconds": warm_up, "measured_seconds": round(measured, 1),
        "rss_mib": {"after_warm_up": round(warm[0][1], 2), "end": round(warm[-1][1], 2),
                    "least": round(min(rss for _, rss in warm), 2),
                    "most": round(max(rss for _, rss in warm), 2)},
        "slope_kib_per_second": round(per_second * 1024, 3),
        "growth_bytes_per_call": round(per_second * 2**20 / (seen["calls"] / seconds), 2),
        "growth_mib": round(per_second * measured, 3), "growth_bound_mib": GROWTH_BOUND_MIB,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--pause", type=float, default=0,
                        help="seconds between a client's calls, on average: leaves processors idle")
    parser.add_argument("--report", help="a file for the figures, as JSON")
    parser.add_argument("--clients", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        run_clients(options.clients, options.minutes * 60, options.pause)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write(os.path.join(folder, "tiny"),
                                 os.path.join(harness.GOLDENS, "tokenizers/digits_style"))
        with harness.Server(model, *FLAGS, env=ENVIRONMENT) as server:
            try:
                report = soak(server, options.minutes, options.pause)
            except Exception as failure:
                status = server.process.poll()
                traceback.print_exc()
                print(f"\nThe server {'runs' if status is None else f'has ended with {status}'}; "
                      f"its log ends:\n{server.log_tail()}\n", file=sys.stderr)
                sys.exit(f"the soak failed: {failure}")
    text = json.dumps(report, indent=1)
    print(text)
    if options.report:
        with open(options.report, "w", encoding="utf-8") as out:
            out.write(text + "\n")
    if report["growth_mib"] > GROWTH_BOUND_MIB:
        sys.exit(f"memory grows: {report['growth_mib']} MiB in {report['measured_seconds']} s")


main()
