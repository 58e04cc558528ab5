#!/usr/bin/env python3
"""What users feel of a loaded server, on the real one: long prompts beside running streams, prompts
with a beginning that was read before, and one client beside another's flood. Prints Markdown.

Before: `deploy/build`. SIROCCO_BIN names another program, SIROCCO_TEST_MODEL another file of the
default model.

usage: tests/bench/serving_bench.py [--model MODEL] [--backend cpu] [--streams N] [--long N]
       [--shared N] [--seconds N] [--factors F...] [--asks N] [--only prompts|beginning|flood]
"""
import argparse
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import grpc  # noqa: E402

import harness  # noqa: E402
from stubs import pb, rpc  # noqa: E402

TIMEOUT = 600
SMALLEST_CHUNK = 16  # tokens of a prompt that a step takes at least
PAUSE = 1.0  # s, of one who asks now and then
BLOCK = 16  # tokens that the prefix cache shares at once
UNBOUNDED = 1000  # an itl_factor that no step reaches
numbers = itertools.count()


def request(length, new, beginning=()):
    """Prompts that no two requests share, but for `beginning`."""
    own = next(numbers)
    ids = list(beginning) + [100 + (own * 7919 + i * 31) % 40000 for i in range(length)]
    return {"prompt_token_ids": {"ids": ids}, "max_new_tokens": new, "stop": {"ignore_eos": True}}


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def seconds(call):
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


class Streams:
    """Streams that are always under way: when each token came, and how long after the one before."""

    def __init__(self, server, count, length):
        self.gaps = []
        self.ends = False
        self.threads = [threading.Thread(target=self.run, args=(server, length))
                        for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, server, length):
        while not self.ends:
            last = None
            call = server.stream(timeout=TIMEOUT, **request(20, length))
            for _ in call:
                now = time.monotonic()
                if last is not None:
                    self.gaps.append((now, now - last))
                last = now
                if self.ends:
                    call.cancel()
                    return

    def stop(self):
        self.ends = True
        for thread in self.threads:
            thread.join()

    def between(self, begin, end):
        return [gap for at, gap in self.gaps if begin < at < end]


def all_beside_prompts(args):
    print(f"## {args.streams} running streams, prompts of {args.long} tokens back to back\n")
    print("| itl_factor | gaps without prompts, ms: median, p99 | with: median, p99, most | p99 over "
          "idle median, p99 | a prompt's last 16 tokens alone, ms | bounds of p99, ms: 3.3 idle "
          "medians, 1.1 (idle + last 16 tokens) | tokens/s of the streams, without and with | first "
          "token of the long prompts |")
    print("|---|---|---|---|---|---|---|---|")
    for factor in args.factors:
        beside_prompts(args, factor)


def last_chunk_alone(server, args):
    """What the last chunk of a long prompt takes alone: all before it was read already."""
    beginning = list(range(300, 300 + (args.long - SMALLEST_CHUNK) // BLOCK * BLOCK))

    def read():
        server.generate(timeout=TIMEOUT, **request(SMALLEST_CHUNK, 1, beginning))
    read()
    return statistics.median(seconds(read) for _ in range(9))


def beside_prompts(args, factor):
    """A row: the gaps of running streams without and with long prompts back to back. Without them
    before and after: a stream's tokens are dearer the longer it is.
    """
    with harness.Server(args.model, "--backend", args.backend, "--max-batch-size",
                        args.streams + 2, "--max-length", args.long + 4096, "--itl-factor",
                        factor) as server:
        chunk = last_chunk_alone(server, args)
        streams = Streams(server, args.streams, 4000)
        time.sleep(2)
        idle_from = time.monotonic()
        time.sleep(args.seconds / 3)
        idle_to = time.monotonic()
        first = []
        while time.monotonic() < idle_to + args.seconds:
            first.append(seconds(
                lambda: server.generate(timeout=TIMEOUT, **request(args.long, 1))))
        busy_to = time.monotonic()
        time.sleep(0.5)
        after_from = time.monotonic()
        time.sleep(args.seconds / 3)
        after_to = time.monotonic()
        streams.stop()
    idle = streams.between(idle_from, idle_to) + streams.between(after_from, after_to)
    busy = streams.between(idle_to + 0.5, busy_to)
    step = statistics.median(idle)
    by_factor, by_chunk = 3.3 * step, 1.1 * (step + chunk)
    bound = max(by_factor, by_chunk)
    rates = (len(idle) / (idle_to - idle_from + after_to - after_from),
             len(busy) / (busy_to - idle_to - 0.5))
    tail = percentile(busy, 0.99)
    print(f"| {factor:g} | {step * 1e3:.1f}, {percentile(idle, 0.99) * 1e3:.1f} | "
          f"{statistics.median(busy) * 1e3:.1f}, {tail * 1e3:.1f}, {max(busy) * 1e3:.1f} | "
          f"{tail / step:.1f}, {tail / percentile(idle, 0.99):.1f} | {chunk * 1e3:.1f} | "
          f"{by_factor * 1e3:.1f}, {by_chunk * 1e3:.1f}: "
          f"{'kept' if tail <= bound else 'not kept'} | {rates[0]:.0f}, {rates[1]:.0f} | "
          f"{statistics.median(first):.2f} s ({len(first)}) |", flush=True)


def shared_beginning(args):
    """The first token's time of a long prompt whose beginning was read before, or was not."""
    shared = [200 + i * 17 % 40000 for i in range(args.shared)]
    print("\n## A beginning that many prompts share\n")
    with harness.Server(args.model, "--backend", args.backend, "--max-batch-size", 4,
                        "--max-length", args.shared + 64) as server:
        def first(salt):
            return seconds(lambda: server.generate(timeout=TIMEOUT, cache_salt=salt,
                                                   **request(20, 1, shared)))
        cold = statistics.median(first(f"cold {i}") for i in range(5))
        first("warm")
        warm = statistics.median(first("warm") for _ in range(9))
    print(f"{args.shared} shared tokens and 20 of its own: {cold * 1e3:.0f} ms where they were not "
          f"read before, {warm * 1e3:.0f} ms where they were: {cold / warm:.0f} times faster "
          f"(medians of 5 and 9).", flush=True)


def first_token(stub, client, length):
    """Seconds until it came; all the answer has come when this returns."""
    call = stub.GenerateStream(pb.GenerateRequest(**request(length, 16)), timeout=TIMEOUT,
                               metadata=[("sirocco-client", client)])
    begin = time.monotonic()
    next(call)
    taken = time.monotonic() - begin
    for _ in call:
        pass
    return taken


def flood(address, count):
    """So many requests at any time, until stdin ends; prints the median of their first tokens."""
    stub = rpc.InferenceStub(grpc.insecure_channel(address))
    next(itertools.islice(numbers, 10**6, None))  # no prompt is the other process's too
    ends = threading.Event()
    taken = []

    def ask():
        while not ends.is_set():
            taken.append(first_token(stub, "flood", 100))
    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ends.set()
    for thread in threads:
        thread.join()
    print(statistics.median(taken))


def beside_a_flood(args):
    """The first token's time of a client alone, and beside one that always has many requests: a
    process of its own, so that none of the other's time is this one's.
    """
    print("\n## One client beside another's flood\n")
    lengths = (100, 300)
    count = 8 * args.streams
    with harness.Server(args.model, "--backend", args.backend, "--max-batch-size", args.streams,
                        "--max-length", 1024) as server:
        def after_a_pause(length):
            time.sleep(PAUSE)
            return first_token(server.stub, "quiet", length)
        for length in lengths:
            first_token(server.stub, "quiet", length)
        alone = {length: [first_token(server.stub, "quiet", length) for _ in range(args.asks)] for length in lengths}
        other = subprocess.Popen([sys.executable, __file__, "--flood", server.address, str(count)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(3)
        beside = {length: [after_a_pause(length) for _ in range(args.asks)] for length in lengths}
        flooded = float(other.communicate(timeout=TIMEOUT)[0])
        assert other.returncode == 0, "the flood failed"
    print(f"It asks {PAUSE} s after each answer; {count} requests of another client, which waits "
          f"{flooded * 1e3:.0f} ms itself. First token:\n")
    print("| prompt | alone, ms | beside, ms: median, worst | times |\n|---|---|---|---|")
    for length in lengths:
        base, median = statistics.median(alone[length]), statistics.median(beside[length])
        print(f"| {length} | {base * 1e3:.1f} | {median * 1e3:.1f}, "
              f"{max(beside[length]) * 1e3:.1f} | {median / base:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="the default model unless given")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--long", type=int, default=1000, help="tokens of the long prompts")
    parser.add_argument("--shared", type=int, default=2000, help="tokens of the beginning")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--factors", type=float, nargs="+", default=[3, UNBOUNDED],
                        help="the server's itl_factor, a row of prompts each")
    parser.add_argument("--asks", type=int, default=12, help="of the client beside a flood, a length")
    parser.add_argument("--flood", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["prompts", "beginning", "flood"])
    args = parser.parse_args()
    if args.flood:
        return flood(args.flood[0], int(args.flood[1]))
    args.model = args.model or harness.smollm2()

    parts = {"prompts": all_beside_prompts, "beginning": shared_beginning, "flood": beside_a_flood}
    for name, part in parts.items():
        if args.only in (None, name):
            part(args)


if __name__ == "__main__":
    main()
