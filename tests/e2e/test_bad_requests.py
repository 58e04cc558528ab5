"""Every bad request gets its status, and a message that names field, value and what is allowed."""
import grpc
import pytest

from harness import details_of, error_of
from stubs import pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_BUILT = grpc.StatusCode.UNIMPLEMENTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NAN, INFINITY = float("nan"), float("inf")
USER = [{"role": "user", "content": "hi"}]


def sampling(**params):
    return {"prompt": "x", "sampling": params, "max_new_tokens": 4}


# name -> (request, the field that the message names)
BAD = {
    "no input": ({}, "input"),
    "empty prompt": ({"prompt": ""}, "prompt"),
    "no prompt ids": ({"prompt_token_ids": {}}, "prompt_token_ids"),
    "id beyond the vocabulary": ({"prompt_token_ids": {"ids": [1, 2000]}}, "prompt_token_ids"),
    "huge id": ({"prompt_token_ids": {"ids": [2**32 - 1]}}, "prompt_token_ids"),
    "no room": ({"prompt_token_ids": {"ids": [5] * 4096}}, "prompt_token_ids"),
    "more than max_length": ({"prompt_token_ids": {"ids": [5] * 5000}}, "prompt_token_ids"),
    "no messages": ({"chat": {}}, "chat.messages"),
    "unknown role": ({"chat": {"messages": [{"role": "robot", "content": "x"}]}}, "role"),
    "extra_json is no JSON": (
        {"chat": {"messages": [{"role": "user", "content": "x", "extra_json": "{"}]}},
        "extra_json"),
    "extra_json is no object": (
        {"chat": {"messages": [{"role": "user", "content": "x", "extra_json": "[]"}]}},
        "extra_json"),
    "kwargs are no JSON": (
        {"chat": {"messages": USER, "template_kwargs_json": "nope"}}, "template_kwargs_json"),
    "kwargs are no object": (
        {"chat": {"messages": USER, "template_kwargs_json": "[1]"}}, "template_kwargs_json"),
    "tools are no array": ({"chat": {"messages": USER, "tools_json": "{}"}}, "tools_json"),
    "documents are no array": (
        {"chat": {"messages": USER, "documents_json": "7"}}, "documents_json"),
    "negative temperature": (sampling(temperature=-0.1), "temperature"),
    "temperature too high": (sampling(temperature=100.5), "temperature"),
    "temperature nan": (sampling(temperature=NAN), "temperature"),
    "temperature infinite": (sampling(temperature=INFINITY), "temperature"),
    "top_k": (sampling(top_k=-2), "top_k"),
    "top_p of 0": (sampling(top_p=0), "top_p"),
    "top_p over 1": (sampling(top_p=1.01), "top_p"),
    "top_p nan": (sampling(top_p=NAN), "top_p"),
    "min_p negative": (sampling(min_p=-0.01), "min_p"),
    "min_p over 1": (sampling(min_p=1.5), "min_p"),
    "repetition_penalty of 0": (sampling(repetition_penalty=0), "repetition_penalty"),
    "repetition_penalty negative": (sampling(repetition_penalty=-1), "repetition_penalty"),
    "repetition_penalty infinite": (sampling(repetition_penalty=INFINITY), "repetition_penalty"),
    "presence_penalty": (sampling(presence_penalty=100.5), "presence_penalty"),
    "presence_penalty nan": (sampling(presence_penalty=NAN), "presence_penalty"),
    "frequency_penalty": (sampling(frequency_penalty=-101), "frequency_penalty"),
    "min_new_tokens over max_new_tokens": (sampling(min_new_tokens=5), "min_new_tokens"),
    "bias of an unknown id": (sampling(logit_bias={2000: 1.0}), "logit_bias"),
    "bias too high": (sampling(logit_bias={5: 100.5}), "logit_bias"),
    "bias nan": (sampling(logit_bias={5: NAN}), "logit_bias"),
    "allowed id": (sampling(allowed_token_ids=[2000]), "allowed_token_ids"),
    "banned id": (sampling(banned_token_ids=[2000]), "banned_token_ids"),
    "nothing left": (sampling(allowed_token_ids=[5, 6], banned_token_ids=[6, 5]),
                     "allowed_token_ids"),
    "17 stop strings": ({"prompt": "x", "stop": {"strings": ["s"] * 17}}, "stop.strings"),
    "empty stop string": ({"prompt": "x", "stop": {"strings": ["a", ""]}}, "stop.strings"),
    "stop id": ({"prompt": "x", "stop": {"token_ids": [2000]}}, "stop.token_ids"),
    "21 alternatives": ({"prompt": "x", "logprobs": {"top": 21}}, "logprobs.top"),
    "n of 0": ({"prompt": "x", "n": 0}, "n"),
    "n over max_batch_size": ({"prompt": "x", "n": 33}, "n"),
    "nothing asked": ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens"),
    "nothing asked but logprobs": (
        {"prompt": "x", "max_new_tokens": 0, "logprobs": {"top": 1}}, "max_new_tokens"),
}

FEATURES = {
    "beam": {"num_beams": 2},
    "adapter": "some",
    "constraint": {"json_object": True},
    "answer_prefix": "Sure",
}


def both(server, request):
    """The errors of the unary and the streaming method."""
    return [error_of(lambda: server.generate(**request)),
            error_of(lambda: list(server.stream(**request)))]


@pytest.mark.parametrize("name", BAD)
def test_bad_request(tiny_server, name):
    request, field = BAD[name]
    for error in both(tiny_server, request):
        assert error.code() == INVALID, error.details()
        assert field in error.details()
        violations = details_of(error)["BadRequest"].field_violations
        assert violations
        assert all(violation.field and violation.description for violation in violations)


def test_message_names_value_and_range(tiny_server):
    error, _ = both(tiny_server, sampling(top_p=1.5))
    assert "1.5" in error.details() and "at most 1" in error.details()
    error, _ = both(tiny_server, {"prompt": "x", "n": 33})
    assert "33" in error.details() and "32" in error.details()
    error, _ = both(tiny_server, {"prompt_token_ids": {"ids": [2000]}})
    assert "2000" in error.details()


@pytest.mark.parametrize("field", FEATURES)
def test_feature_that_is_not_built(tiny_server, field):
    for error in both(tiny_server, {"prompt": "x", field: FEATURES[field]}):
        assert error.code() == NOT_BUILT
        assert field in error.details()


def test_empty_beam_options_are_set_too(tiny_server):
    for error in both(tiny_server, {"prompt": "x", "beam": {}}):
        assert error.code() == NOT_BUILT and "beam" in error.details()


def test_another_model(tiny_server):
    for error in both(tiny_server, {"prompt": "x", "model": "another"}):
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "another" in error.details()


class TestWithoutTokenizer:
    @pytest.mark.parametrize("request_fields", [
        {"prompt": "x"},
        {"chat": {"messages": USER}},
        {"prompt_token_ids": {"ids": [5]}, "stop": {"strings": ["x"]}},
    ], ids=["prompt", "chat", "stop string"])
    def test_text_is_refused(self, bare_server, request_fields):
        for error in both(bare_server, request_fields):
            assert error.code() == PRECONDITION

    def test_tokenize_and_detokenize(self, bare_server):
        assert error_of(lambda: bare_server.tokenize("x")).code() == PRECONDITION
        assert error_of(lambda: bare_server.detokenize([5])).code() == PRECONDITION

    def test_ids_are_served(self, bare_server):
        model = bare_server.get_model()
        assert (model.has_tokenizer, model.has_chat_template) == (False, False)
        completion = bare_server.generate(prompt_token_ids={"ids": [5]}, max_new_tokens=4,
                                          logprobs={"top": 1}).completions[0]
        assert completion.token_ids and completion.text == ""
        assert all(t.token == b"" and t.top[0].token == b"" for t in completion.logprobs)


class TestRawBytes:
    """What no generated client would send."""

    def call(self, server, method, payload):
        send = server.channel.unary_unary(f"/sirocco.v1.Inference/{method}",
                                          request_serializer=bytes, response_deserializer=bytes)
        return error_of(lambda: send(payload, timeout=20))

    def stream(self, server, payload):
        send = server.channel.unary_stream("/sirocco.v1.Inference/GenerateStream",
                                           request_serializer=bytes, response_deserializer=bytes)
        return error_of(lambda: list(send(payload, timeout=20)))

    @pytest.mark.parametrize("payload", [
        b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a", b"\x07", b"\x00", b"\x12\x05ab",
        b"\x2a\x03\x0d\x00",
    ])
    def test_unparsable(self, tiny_server, payload):
        for method in ("Generate", "Tokenize", "Detokenize", "GetModel"):
            assert self.call(tiny_server, method, payload).code() == INVALID
        assert self.stream(tiny_server, payload).code() == INVALID

    @pytest.mark.parametrize("field, payload", [
        ("prompt", b"\x12\x04ab\xff\xfe"),
        ("model", b"\x0a\x02\xc3\x28"),
        ("stop.strings", b"\x12\x01x\x32\x04\x0a\x02\xed\xa0"),
        ("request_id", b"\x12\x01x\x52\x01\x80"),
        ("chat.messages", b"\x22\x08\x0a\x06\x0a\x01u\x12\x01\xff"),
    ])
    def test_invalid_utf8_names_its_field(self, tiny_server, field, payload):
        for error in (self.call(tiny_server, "Generate", payload),
                      self.stream(tiny_server, payload)):
            assert error.code() == INVALID
            assert "UTF-8" in error.details()
            assert field.split(".")[-1] in error.details()

    def test_invalid_utf8_elsewhere(self, tiny_server):
        error = self.call(tiny_server, "Tokenize", b"\x0a\x02\xff\xff")
        assert error.code() == INVALID and "text" in error.details()

    def test_unknown_fields_are_ignored(self, tiny_server):
        known = pb.GenerateRequest(prompt="x", max_new_tokens=2).SerializeToString()
        send = tiny_server.channel.unary_unary("/sirocco.v1.Inference/Generate",
                                               request_serializer=bytes,
                                               response_deserializer=pb.GenerateResponse.FromString)
        assert send(known + b"\xf8\x7f\x01", timeout=20).completions

    def test_unknown_method(self, tiny_server):
        assert self.call(tiny_server, "Guess", b"").code() == NOT_BUILT

    def test_message_that_is_too_large(self, tiny_server):
        payload = pb.GenerateRequest(prompt="x" * (9 << 20)).SerializeToString()
        assert self.call(tiny_server, "Generate", payload).code() \
            == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_bad_request_harms_nothing(tiny_server):
    before = tiny_server.generate(prompt="The wind", max_new_tokens=8)
    for request, _ in BAD.values():
        both(tiny_server, request)
    assert tiny_server.generate(prompt="The wind", max_new_tokens=8).completions \
        == before.completions
    assert tiny_server.metrics()("sirocco_kv_blocks", state="used") == 0
