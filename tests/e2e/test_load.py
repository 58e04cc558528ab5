"""Load: many streams at once, many cancels, and metrics that equal what the clients saw."""
import asyncio
import json
import random
import threading
import time
from collections import Counter

import grpc

from harness import Server, eventually
from stubs import pb, rpc

CHANNELS = 8
LOOP = asyncio.new_event_loop()


def request(**fields):
    return pb.GenerateRequest(**{"stop": {"ignore_eos": True}, **fields})


def log_lines(server):
    """What the server logged of its Generate calls, by request id; those without one are a list."""
    by_id, nameless = {}, []
    for text in server.stderr().splitlines():
        line = json.loads(text)
        if line["message"] != "request" or not line["method"].startswith("Generate"):
            continue
        if "id" in line:
            assert line["id"] not in by_id
            by_id[line["id"]] = line
        else:
            nameless.append(line)
    return by_id, nameless


def run(coroutine):
    """As asyncio.run, on one loop for all: at a loop's end grpc.aio may wait for ever."""
    return LOOP.run_until_complete(coroutine)


class Clients:
    """Calls of asynchronous clients over several connections."""

    def __init__(self, address):
        self.channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CHANNELS)]
        self.stubs = [rpc.InferenceStub(channel) for channel in self.channels]

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for channel in self.channels:
            await channel.close()

    def stream(self, number, timeout=120, **fields):
        return self.stubs[number % CHANNELS].GenerateStream(request(**fields), timeout=timeout)

    def generate(self, number, timeout=120, **fields):
        return self.stubs[number % CHANNELS].Generate(request(**fields), timeout=timeout)


class Outcomes:
    """What the clients of a test saw."""

    def __init__(self):
        self.codes = Counter()  # (method, code) -> calls
        self.usages = {}  # request id -> usage, of calls that ended well
        self.finished = Counter()  # finish reason -> sequences

    async def unary(self, call, request_id):
        try:
            response = await call
            self.usages[request_id] = response.usage
            self.finished.update(c.finish_reason for c in response.completions)
        except grpc.aio.AioRpcError:
            pass
        self.codes["Generate", (await call.code()).name] += 1

    async def stream(self, call, request_id, cancel_after=None):
        events = 0
        try:
            async for event in call:
                events += 1
                if event.finish_reason:
                    self.finished[event.finish_reason] += 1
                if event.HasField("usage"):
                    self.usages[request_id] = event.usage
                if events == cancel_after:
                    call.cancel()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        self.codes["GenerateStream", (await call.code()).name] += 1


LONG = 3900  # tokens: nothing here waits for them


async def one_of_ten(clients, seen, i, dice):
    """A call whose kind its number tells."""
    name, kind = f"call-{i}", i % 10
    fields = {"prompt": f"Number {i}: " + "once " * dice.randint(0, 30), "request_id": name}
    if kind < 3:
        await seen.stream(clients.stream(i, max_new_tokens=dice.randint(1, 40), **fields), name)
    elif kind < 5:
        await seen.unary(clients.generate(
            i, max_new_tokens=dice.randint(1, 40), n=dice.randint(1, 3),
            sampling={"temperature": 1, "seed": i}, **fields), name)
    elif kind == 5:  # ends by a token
        await seen.unary(clients.generate(
            i, max_new_tokens=40, sampling={"logit_bias": {2: 100.0}}, stop={}, **fields), name)
    elif kind < 8:
        await seen.stream(clients.stream(i, max_new_tokens=LONG, **fields), name,
                          cancel_after=dice.randint(1, 5))
    elif kind == 8:
        await seen.stream(clients.stream(i, timeout=dice.uniform(0.5, 2), max_new_tokens=LONG,
                                         **fields), name)
    else:
        wrong = [{"prompt": ""}, {"model": "another"}, {"n": 1000}, {"adapter": "x"}][i // 10 % 4]
        await seen.unary(clients.generate(i, max_new_tokens=3, **{**fields, **wrong}), name)


async def mixed_calls(address, count):
    """Calls of every outcome, within half a second."""
    seen = Outcomes()

    async def later(i):
        dice = random.Random(i)
        await asyncio.sleep(dice.uniform(0, 0.5))
        await one_of_ten(clients, seen, i, dice)

    async with Clients(address) as clients:
        await asyncio.gather(*(later(i) for i in range(count)))
    return seen


def assert_counts(metrics, seen, by_id, nameless):
    """Whether metrics, log and clients say the same."""
    lines = list(by_id.values()) + nameless
    logged = Counter((line["method"], line["status"]) for line in lines)
    for (method, code), count in logged.items():
        assert metrics("sirocco_requests_total", method=method, code=code) == count, (method, code)
    # A client that runs out of time resets its stream like one that cancels; which it was, a server
    # under load may guess wrong.
    unsure = [("GenerateStream", "CANCELLED"), ("GenerateStream", "DEADLINE_EXCEEDED")]
    assert sum(logged.pop(key) for key in unsure) == sum(seen.codes[key] for key in unsure)
    assert logged == {key: n for key, n in seen.codes.items() if key not in unsure}
    for name, usage in seen.usages.items():
        line = by_id[name]
        assert (line["status"], line["prompt_tokens"], line["completion_tokens"]) == (
            "OK", usage.prompt_tokens, usage.completion_tokens)
    assert len(seen.usages) == sum(n for (_, code), n in seen.codes.items() if code == "OK")

    # What clients that had gone were given is in the log alone.
    generated = sum(line["completion_tokens"] for line in lines)
    assert metrics("vllm:generation_tokens_total") == generated
    assert metrics("sirocco_tokens_total", phase="decode") == generated
    started = [line for line in lines if line["stage"] != "queue"]
    assert metrics("vllm:prompt_tokens_total") == sum(line["prompt_tokens"] for line in started)
    assert metrics("vllm:request_queue_time_seconds_count") == len(started)
    assert metrics("vllm:e2e_request_latency_seconds_count") == len(seen.usages)

    # Of what is refused at once nothing is counted; what the engine had has its prompt's length.
    ended_early = [line for line in by_id.values()
                   if line["status"] != "OK" and line["prompt_tokens"] > 0]
    for reason, count in (("stop", seen.finished[pb.FINISH_REASON_STOP]),
                          ("length", seen.finished[pb.FINISH_REASON_LENGTH]),
                          ("abort", len(ended_early))):
        assert metrics("vllm:request_success_total", finished_reason=reason) == count, reason
    firsts = seen.finished.total() + sum(line["completion_tokens"] > 0 for line in ended_early)
    assert metrics("vllm:time_to_first_token_seconds_count") == firsts
    assert metrics("vllm:inter_token_latency_seconds_count") == generated - firsts
    assert metrics("sirocco_cancel_to_free_seconds_count") == sum(
        line["stage"] != "queue" for line in ended_early)
    for stage in ("queue", "prefill", "decode"):
        assert metrics("sirocco_deadline_exceeded_total", stage=stage) == sum(
            (line["status"], line["stage"]) == ("DEADLINE_EXCEEDED", stage) for line in lines)
    assert metrics("sirocco_rejected_total") == sum(
        count for (_, code), count in seen.codes.items() if code == "RESOURCE_EXHAUSTED")
    for gauge in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                  "sirocco_queue_requests", "sirocco_queue_tokens", "vllm:kv_cache_usage_perc"):
        assert metrics(gauge) == 0, gauge


def test_every_count_under_load(tiny):
    """Sums over 600 calls of every outcome: metrics, log and clients agree."""
    with Server(tiny, "--max-batch-size", 16, "--max-length", 4096, "--max-queue-size", 300,
                "--log-format", "json") as server:
        seen = run(mixed_calls(server.address, 600))
        calls = seen.codes.total()
        assert calls == 600
        for code in ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "NOT_FOUND",
                     "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"):
            assert sum(n for (_, its), n in seen.codes.items() if its == code) > 0, code

        def all_logged():
            by_id, nameless = log_lines(server)
            return len(by_id) + len(nameless) == calls and server.idle() and (by_id, nameless)
        by_id, nameless = eventually(all_logged, what="a log line of every call")
        assert_counts(server.metrics(), seen, by_id, nameless)


def test_cancels_at_random_moments(tiny):
    """1,000 of them leave nothing: no block, no lane, no call."""
    async def cancel_all(address):
        dice = random.Random(3)

        async def one(clients, i):
            await asyncio.sleep(dice.uniform(0, 2))
            call = clients.stream(i, prompt="Once " * dice.randint(1, 50), max_new_tokens=LONG)
            reading = asyncio.ensure_future(read(call))
            await asyncio.sleep(dice.choice([0, dice.uniform(0, 0.2)]))
            call.cancel()
            await reading

        async def read(call):
            try:
                async for _ in call:
                    pass
            except (grpc.aio.AioRpcError, asyncio.CancelledError):
                pass

        async with Clients(address) as clients:
            await asyncio.gather(*(one(clients, i) for i in range(1000)))

    with Server(tiny, "--max-batch-size", 16, "--max-length", 4096) as server:
        whole = server.generate(prompt="The wind", max_new_tokens=20)
        run(cancel_all(server.address))
        eventually(server.idle, what="the end of all sequences")
        # Every lane is to be had.
        calls = [server.stream(prompt=f"{i}", max_new_tokens=LONG, stop={"ignore_eos": True})
                 for i in range(16)]
        eventually(lambda: server.metrics()("vllm:num_requests_running") == 16)
        for call in calls:
            call.cancel()
        assert server.generate(prompt="The wind", max_new_tokens=20).completions == \
            whole.completions
        # A call that was still held would hold up the end.
        server.channel.close()
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 1.5


def rss_mib(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def test_2000_streams_at_once(tiny):
    """All are under way at once, every tenth is read slowly, and each is its unary answer."""
    texts = [f"Story {i}: " + "once " * i for i in range(20)]
    fields = [{"prompt": text, "max_new_tokens": 12 + i, "sampling": {
        "temperature": 0.8, "seed": i}} for i, text in enumerate(texts)]

    async def read(clients, i, expected):
        text, ids = "", []
        async for event in clients.stream(i, **fields[i % 20]):
            text += event.text
            ids += event.token_ids
            if i % 10 == 0:
                await asyncio.sleep(0.05)
        assert (text, ids) == expected[i % 20]

    async def read_all(address, expected):
        async with Clients(address) as clients:
            await asyncio.gather(*(read(clients, i, expected) for i in range(2000)))

    with Server(tiny, "--max-batch-size", 64, "--max-length", 512, "--max-queue-size",
                2000) as server:
        expected = []
        for one in fields:
            answer = server.generate(stop={"ignore_eos": True}, **one).completions[0]
            expected.append((answer.text, list(answer.token_ids)))
        highest = [0]

        def watch(stop):
            while not stop.wait(0.05):
                metrics = server.metrics()
                highest[0] = max(highest[0], metrics("vllm:num_requests_running")
                                 + metrics("vllm:num_requests_waiting"))
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(stop,))
        watcher.start()
        run(read_all(server.address, expected))
        stop.set()
        watcher.join()
        assert highest[0] > 1000
        metrics = server.metrics()
        assert metrics("sirocco_requests_total", method="GenerateStream", code="OK") == 2000
        assert metrics("sirocco_rejected_total") == 0
        assert metrics("sirocco_decode_allocations_total") == 0
        assert rss_mib(server) < 1024
        eventually(server.idle)
