"""Streams: each equals its unary answer, whatever else runs and however slowly it is read."""
import threading
import time

import pytest

from harness import Collected, eventually, read_jsonl
from stubs import pb, rpc


def request_of(index):
    """Requests of different shapes."""
    return {
        "prompt": f"Story number {index}: " + "once " * (index % 7),
        "max_new_tokens": 8 + 5 * (index % 9),
        "sampling": {"temperature": 0.9 if index % 2 else 0.0, "seed": index, "top_p": 0.95},
        "stop": {"ignore_eos": True},
        "logprobs": {"top": 2} if index % 3 == 0 else None,
    }


def test_events_of_a_stream(tiny_server):
    events = list(tiny_server.stream(prompt="The wind", max_new_tokens=10, request_id="r1",
                                     stop={"ignore_eos": True}))
    assert {event.request_id for event in events} == {"r1"}
    assert sum(len(event.token_ids) for event in events) == 10
    for event in events[:-1]:
        assert not event.finish_reason
        assert not event.HasField("usage") and not event.HasField("timing")
    last = events[-1]
    assert last.finish_reason == pb.FINISH_REASON_LENGTH
    assert last.usage.completion_tokens == 10
    assert last.HasField("timing")


def test_trailing_metadata(tiny_server):
    call = tiny_server.stream(prompt="The wind", max_new_tokens=3)
    list(call)
    trailing = dict(call.trailing_metadata())
    assert trailing["sirocco-mode"] == "decoder_graph"
    for key in ("sirocco-queue-ms", "sirocco-prefill-ms", "sirocco-decode-ms"):
        assert float(trailing[key]) >= 0


def test_32_concurrent_streams_equal_their_unary_answers(tiny_server):
    alone = [tiny_server.generate(**request_of(i)) for i in range(32)]
    collected = [None] * 32

    def read(index):
        collected[index] = Collected(tiny_server.stream(**request_of(index)))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for response, stream in zip(alone, collected):
        stream.assert_equals(response)


def test_32_concurrent_streams_of_a_real_model(smollm2_server):
    """More streams than lanes: some wait for their turn."""
    request = {"max_new_tokens": 12, "stop": {"ignore_eos": True}}
    prompts = [f"A list of {word}:" for word in ("fruits", "rivers", "planets", "colours")]
    alone = [smollm2_server.generate(prompt=prompt, **request) for prompt in prompts]
    calls = [smollm2_server.stream(prompt=prompts[i % 4], **request) for i in range(32)]
    for i, call in enumerate(calls):
        Collected(call).assert_equals(alone[i % 4])


def test_every_text_is_valid_utf8_and_whole(tiny_server):
    """Tokens that are parts of characters: what cannot be finished becomes U+FFFD."""
    partial = [i for i in range(4, 2000) if tiny_server.detokenize([i]).strip("\ufffd") == ""]
    assert len(partial) > 100
    for seed in range(8):
        request = {"prompt": "The wind", "max_new_tokens": 40, "stop": {"ignore_eos": True},
                   "sampling": {"temperature": 1.0, "seed": seed, "allowed_token_ids": partial}}
        response = tiny_server.generate(**request)
        completion = response.completions[0]
        assert completion.text == tiny_server.detokenize(completion.token_ids)
        Collected(tiny_server.stream(**request)).assert_equals(response)


def test_a_character_of_several_tokens_comes_whole(smollm2_server):
    """Chinese, of which this vocabulary holds hardly a character in one token."""
    case = next(case for case in read_jsonl("smollm2/cases.jsonl") if case["tag"] == "chinese")
    stream = Collected(smollm2_server.stream(prompt=case["prompt"], max_new_tokens=64))
    text = stream.text[0]
    assert any("\u4e00" <= character <= "\u9fff" for character in text)
    cut = [event for event in stream.events if "\ufffd" in event.text]
    assert cut in ([], [stream.last]), "only the end of the output may cut a character"


def test_a_slow_reader_slows_nobody(tiny_server):
    slow_channel = tiny_server.new_channel(("grpc.http2.lookahead_bytes", 1024))
    request = {"prompt": "The wind", "max_new_tokens": 4000, "stop": {"ignore_eos": True},
               "logprobs": {"top": 20}}
    slow = rpc.InferenceStub(slow_channel).GenerateStream(pb.GenerateRequest(**request),
                                                          timeout=120)
    next(slow)  # and then nothing is read
    started = time.monotonic()
    for _ in range(5):
        tiny_server.generate(prompt="Quick", max_new_tokens=16)
    assert time.monotonic() - started < 10
    # It ends on the engine's side although most of it has not been read.
    eventually(lambda: tiny_server.metrics()("vllm:num_requests_running") == 0, timeout=60,
               what="the slow stream's end in the engine")
    rest = Collected(slow)
    assert rest.last.usage.completion_tokens == 4000
    slow_channel.close()


@pytest.mark.parametrize("count", [1, 2, 31, 32])
def test_batches_of_every_kind_agree(tiny_server, count):
    calls = [tiny_server.stub.Generate.future(pb.GenerateRequest(**request_of(i)))
             for i in range(count)]
    for i, call in enumerate(calls):
        alone = tiny_server.generate(**request_of(i))
        assert call.result().completions == alone.completions
