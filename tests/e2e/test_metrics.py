"""Metrics equal what the clients saw, name by name."""
import time

import pytest

from harness import MODES, Collected, Server, error_of, eventually
from stubs import pb

LATENCIES = [
    "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds",
]
VLLM = [
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
    "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
] + [name + "_count" for name in LATENCIES]


@pytest.fixture
def server(tiny):
    """A server of its own: every count is this test's."""
    with Server(tiny, "--max-batch-size", 8, "--max-length", 1024) as server:
        yield server


def settled(server):
    """A scrape after all calls have been accounted for: no count moves any more."""
    def counts(metrics):
        return {key: value for key, value in metrics.samples.items()
                if key[0].endswith(("_total", "_count"))}
    eventually(lambda: server.metrics()("vllm:num_requests_running") == 0)
    previous = server.metrics()
    while True:
        time.sleep(0.05)
        metrics = server.metrics()
        if counts(metrics) == counts(previous):
            return metrics
        previous = metrics


def bucket_bounds(metrics, name):
    return sorted(float(labels["le"]) for labels in metrics.labels(name + "_bucket"))


def test_series_exist_before_their_first_event(server):
    metrics = server.metrics()
    for name in VLLM:
        assert metrics(name) == 0, name
        assert {labels["model_name"] for labels in metrics.labels(name)} == {"tiny"}
    for reason in ("queue_full", "queue_tokens", "deadline", "kv", "draining"):
        assert metrics("sirocco_rejected_total", reason=reason) == 0
    for stage in ("queue", "prefill", "decode"):
        assert metrics("sirocco_deadline_exceeded_total", stage=stage) == 0
    for phase in ("prefill", "decode"):
        assert metrics("sirocco_tokens_total", phase=phase) == 0
        assert metrics("sirocco_step_seconds_count", phase=phase) == 0
    for method in ("Generate", "GenerateStream", "Tokenize", "Detokenize", "GetModel"):
        assert metrics("sirocco_requests_total", method=method, code="OK") == 0
    for name in ("sirocco_batch_size_count", "sirocco_overrun_rows_total",
                 "sirocco_decode_allocations_total", "sirocco_queue_requests",
                 "sirocco_queue_tokens", "sirocco_cancel_to_free_seconds_count"):
        assert metrics(name) == 0, name
    assert metrics("sirocco_kv_blocks", state="used") == 0
    assert metrics("sirocco_kv_blocks", state="cached") == 0
    assert metrics("sirocco_kv_blocks", state="free") > 0
    for phase in ("load", "pack", "capture", "kv"):
        assert metrics("sirocco_startup_seconds", phase=phase) >= 0
    assert metrics("sirocco_memory_bytes") > 0
    assert metrics("sirocco_build_info", backend="cpu", mode="decoder_graph") == 1


def test_latency_buckets_start_at_a_quarter_of_a_millisecond(server):
    metrics = server.metrics()
    for name in LATENCIES:
        assert bucket_bounds(metrics, name)[0] == pytest.approx(0.00025)
        assert bucket_bounds(metrics, name)[-1] == float("inf")


def test_types(server):
    types = server.metrics().types
    for name in LATENCIES + ["sirocco_step_seconds", "sirocco_batch_size",
                             "sirocco_cancel_to_free_seconds"]:
        assert types[name] == "histogram", name
    for name in ("vllm:prompt_tokens", "sirocco_requests", "sirocco_tokens",
                 "sirocco_graph_replays", "sirocco_plan_builds"):
        assert types[name] == "counter", name
    for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "sirocco_kv_blocks",
                 "sirocco_queue_requests", "sirocco_graphs"):
        assert types[name] == "gauge", name


def test_every_count(server):
    before = server.metrics()
    responses = [server.generate(prompt=f"Number {i}", max_new_tokens=4 + i,
                                 stop={"ignore_eos": True}) for i in range(4)]
    responses.append(server.generate(
        prompt="Two at once", n=2, max_new_tokens=6,
        sampling={"temperature": 1, "seed": 1}, stop={"ignore_eos": True}))
    responses.append(server.generate(prompt="Ends", max_new_tokens=9,
                                     sampling={"logit_bias": {2: 100.0}}))
    streams = [list(server.stream(prompt="A stream", max_new_tokens=5,
                                  stop={"ignore_eos": True}))[-1] for _ in range(3)]
    server.tokenize("x")
    server.detokenize([5])
    server.get_model()
    error_of(lambda: server.generate(prompt=""))
    error_of(lambda: server.generate(prompt="x", model="another"))
    after = settled(server)

    usages = [answer.usage for answer in responses + streams]
    prompt_tokens = sum(usage.prompt_tokens for usage in usages)
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    sequences = len(usages) + 1  # one request had two
    assert after("vllm:prompt_tokens_total") == prompt_tokens
    assert after("vllm:generation_tokens_total") == completion_tokens
    assert after("sirocco_tokens_total", phase="decode") == completion_tokens
    # Each sequence is prefilled on its own; cached tokens are not computed.
    twice = responses[4].usage.prompt_tokens
    cached = sum(usage.cached_prompt_tokens for usage in usages)
    assert prompt_tokens - cached <= after("sirocco_tokens_total", phase="prefill") \
        <= prompt_tokens + twice
    assert after("vllm:request_success_total", finished_reason="stop") == 1
    assert after("vllm:request_success_total", finished_reason="length") == sequences - 1
    assert after("vllm:time_to_first_token_seconds_count") == sequences
    assert after("vllm:inter_token_latency_seconds_count") == completion_tokens - sequences
    assert after("vllm:e2e_request_latency_seconds_count") == len(usages)
    assert after("vllm:request_queue_time_seconds_count") == len(usages)
    for method, code, count in (
            ("Generate", "OK", 6), ("GenerateStream", "OK", 3), ("Tokenize", "OK", 1),
            ("Detokenize", "OK", 1), ("GetModel", "OK", 1), ("Generate", "INVALID_ARGUMENT", 1),
            ("Generate", "NOT_FOUND", 1)):
        assert after("sirocco_requests_total", method=method, code=code) == count, (method, code)
    # The first token of a sequence comes out of its prefill.
    assert after("sirocco_batch_size_sum") == completion_tokens - sequences
    assert after("sirocco_batch_size_count") == after("sirocco_step_seconds_count", phase="decode")
    assert after("sirocco_graph_replays_total") == after("sirocco_batch_size_count")
    assert after("sirocco_graph_replays_total", batch_size="2") == 5
    for name in ("sirocco_plan_builds_total", "sirocco_graphs", "sirocco_graph_pool_bytes"):
        assert after(name) == before(name), name
    assert after("sirocco_decode_allocations_total") == 0
    assert after("sirocco_overrun_rows_total") == 0
    assert after("sirocco_last_step_timestamp_seconds") > 0
    assert after("sirocco_kv_blocks", state="used") == 0
    assert after("vllm:kv_cache_usage_perc") == 0


def test_prefix_cache(server):
    prompt = list(range(100, 170))  # four full blocks of 16, and 6 more
    request = {"prompt_token_ids": {"ids": prompt}, "max_new_tokens": 3,
               "stop": {"ignore_eos": True}}
    first = server.generate(**request)
    assert first.usage.cached_prompt_tokens == 0
    again = server.generate(**request)
    assert again.usage.cached_prompt_tokens == 64
    assert again.completions == first.completions
    several = server.generate(n=3, **request)
    assert several.usage.cached_prompt_tokens == 64  # of the first; the others found as many
    salted = server.generate(cache_salt="another", **request)
    assert salted.usage.cached_prompt_tokens == 0
    scored = server.generate(logprobs={"prompt": True}, **request)
    assert scored.usage.cached_prompt_tokens == 0
    assert [c.token_ids for c in scored.completions] == [c.token_ids for c in first.completions]
    after = settled(server)
    assert after("vllm:prefix_cache_queries_total") == 6 * 70  # the scored prompt asked for none
    assert after("vllm:prefix_cache_hits_total") == 4 * 64
    assert after("sirocco_tokens_total", phase="prefill") == 3 * 70 + 4 * 6
    assert after("sirocco_kv_blocks", state="used") == 0
    assert after("sirocco_kv_blocks", state="cached") == 8  # of each salt four


def test_a_preempted_sequence_answers_as_any_other(tiny, server):
    requests = [{"prompt": f"Number {i}", "max_new_tokens": 200, "stop": {"ignore_eos": True},
                 "priority": i % 3 - 1, "logprobs": {"top": 1},
                 "sampling": {"temperature": 1, "seed": i}} for i in range(8)]
    expected = [server.generate(**request) for request in requests]
    assert server.metrics()("vllm:num_preemptions_total") == 0
    # 4 KiB a block: room for little more than one of them.
    with Server(tiny, "--max-batch-size", 8, "--max-length", 256, "--kv-cache-memory", "84KiB",
                "--block-size", 16) as tight:
        calls = [tight.stream(**request) for request in requests]
        for call, answer in zip(calls, expected):
            Collected(call).assert_equals(answer)
        after = settled(tight)
        assert after("sirocco_kv_blocks") == 21
        assert after("vllm:num_preemptions_total") > 0
        assert after("sirocco_tokens_total", phase="prefill") > \
            sum(answer.usage.prompt_tokens for answer in expected)
        tokens = sum(answer.usage.completion_tokens for answer in expected)
        assert after("vllm:generation_tokens_total") == tokens
        assert after("vllm:inter_token_latency_seconds_count") == tokens - len(requests)
        assert after("sirocco_kv_blocks", state="used") == 0


def test_without_a_prefix_cache(tiny):
    with Server(tiny, "--prefix-cache", "false", "--max-batch-size", 2,
                "--max-length", 256) as server:
        request = {"prompt_token_ids": {"ids": list(range(100, 170))}, "max_new_tokens": 3}
        for _ in range(2):
            assert server.generate(**request).usage.cached_prompt_tokens == 0
        after = settled(server)
        assert after("vllm:prefix_cache_queries_total") == 0
        assert after("sirocco_tokens_total", phase="prefill") == 140
        assert after("sirocco_kv_blocks", state="cached") == 0


def test_tokens_are_counted_to_the_one_that_completed_a_stop_string(server):
    text = server.generate(prompt="The wind", max_new_tokens=30,
                           stop={"ignore_eos": True}).completions[0].text
    before = settled(server)
    answer = server.generate(prompt="The wind", max_new_tokens=30, stop={
        "ignore_eos": True, "strings": [text[10:14]]})
    assert answer.completions[0].finish_reason == pb.FINISH_REASON_STOP
    assert answer.usage.completion_tokens < 30
    after = settled(server)
    for name, labels in (("vllm:generation_tokens_total", {}),
                         ("sirocco_tokens_total", {"phase": "decode"})):
        assert after(name, **labels) - before(name, **labels) == answer.usage.completion_tokens


def test_gauges_while_it_runs(smollm2):
    with Server(smollm2, "--max-batch-size", 2, "--max-length", 1024) as server:
        request = {"prompt": "Once upon a time", "max_new_tokens": 900,
                   "stop": {"ignore_eos": True}}
        calls = [server.stream(**request) for _ in range(2)]
        for call in calls:
            next(call)
        calls.append(server.stream(**request))  # both lanes are taken: it waits
        eventually(lambda: server.metrics()("vllm:num_requests_waiting") == 1)
        metrics = server.metrics()
        assert metrics("vllm:num_requests_running") == 2
        assert metrics("vllm:num_requests_waiting") == 1
        assert metrics("sirocco_queue_requests") == 1
        assert metrics("sirocco_queue_tokens") == len(server.tokenize("Once upon a time"))
        used = metrics("sirocco_kv_blocks", state="used")
        everything = metrics("sirocco_kv_blocks")
        assert 0 < used < everything
        assert metrics("vllm:kv_cache_usage_perc") == pytest.approx(used / everything, abs=0.05)
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("mode", MODES)
def test_graphs_of_each_mode(tiny, mode):
    with Server(tiny, "--max-batch-size", 4, "--max-length", 512, mode=mode) as server:
        before = server.metrics()
        captured = before("sirocco_graphs", state="captured")
        # In layer_graph a prologue, the one kind of layer, and an epilogue, for each batch size.
        assert captured == {"decoder_graph": 4, "layer_graph": 12}.get(mode, 0)
        calls = [server.stub.Generate.future(pb.GenerateRequest(
            prompt="The wind", max_new_tokens=8 + 4 * i, stop={"ignore_eos": True}))
            for i in range(4)]
        tokens = sum(call.result().usage.completion_tokens for call in calls)
        assert tokens == 8 + 12 + 16 + 20
        after = settled(server)
        assert after("sirocco_batch_size_sum") == tokens - 4
        steps = after("sirocco_batch_size_count")
        replays = after("sirocco_graph_replays_total") \
            if after.has("sirocco_graph_replays_total") else 0
        assert replays == (steps if mode.endswith("_graph") else 0)
        assert after("sirocco_plan_builds_total") == before("sirocco_plan_builds_total")
        assert after("sirocco_decode_allocations_total") == 0
        assert after("sirocco_build_info", mode=mode) == 1


def test_without_vllm_names(bare):
    with Server(bare, "--vllm-metrics", "false") as server:
        server.generate(prompt_token_ids={"ids": [5]}, max_new_tokens=2)
        eventually(lambda: server.metrics()("sirocco_requests_total", method="Generate",
                                            code="OK") == 1)
        assert "vllm:" not in server.metrics().text
