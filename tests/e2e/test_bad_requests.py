"""Every bad request gets its status, and a message that names field, value and what is allowed."""
import grpc
import pytest

from bad_requests import BAD, FEATURES, USER, sampling
from harness import details_of, error_of
from stubs import pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_BUILT = grpc.StatusCode.UNIMPLEMENTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


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
