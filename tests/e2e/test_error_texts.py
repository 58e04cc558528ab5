"""What errors say to clients: of what they sent, and nothing of what is inside."""
import re

import grpc
import pytest

from bad_requests import BAD, FEATURES
from harness import details_of, error_of
from stubs import pb

INSIDE = re.compile(
    r"(/\w[\w.-]*){2,}"  # a path
    r"|\b\w+\.(cc|cpp|h|cu|py|gguf|safetensors|so)\b|\.jinja\b"
    r"|\b0x[0-9a-fA-F]{4,}|\bstd::|\babsl|\bgrpc::|\bsirocco::|\bnlohmann|\bjson\.exception"
    r"|[Ss]egmentation|[Ee]xception|[Aa]ssert|CHECK|errno|\bnullptr\b|\bbad_alloc\b"
    r"|\bline \d+ of file|\bcuda\w*Error|\bpid\b|/tmp|/proc|/root|/home")


def texts(error):
    """Every text of an error that a client gets."""
    yield error.details()
    for message in details_of(error).values():
        yield str(message)
    for key, value in [*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())]:
        if isinstance(value, str):
            yield f"{key}: {value}"


def raw(server, method, payload, metadata=()):
    send = server.channel.unary_unary(f"/sirocco.v1.Inference/{method}",
                                      request_serializer=bytes, response_deserializer=bytes)
    return error_of(lambda: send(payload, timeout=20, metadata=metadata))


def generate(server, **fields):
    return error_of(lambda: server.generate(**fields))


def template_errors(server):
    """A chat template that fails over what it is given."""
    for kwargs in ('{"messages": 1}', '{"bos_token": {}}', '{"eos_token": [1]}', '{"a": 1e999}',
                   '{"a": "\\ud800"}', '{"a": ' + "[" * 200 + "]" * 200 + "}"):
        try:
            server.generate(chat={"messages": [{"role": "user", "content": "x"}],
                                  "template_kwargs_json": kwargs}, max_new_tokens=1)
        except grpc.RpcError as error:
            yield error


def all_errors(tiny_server, bare_server):
    for request, _ in BAD.values():
        yield generate(tiny_server, **request)
    for feature in FEATURES:
        yield generate(tiny_server, prompt="x", **{feature: FEATURES[feature]})
    yield generate(tiny_server, prompt="x", model="/etc/passwd/../another")
    yield generate(bare_server, prompt="x")
    yield generate(bare_server, chat={"messages": [{"role": "user", "content": "x"}]})
    yield error_of(lambda: bare_server.tokenize("x"))
    yield from template_errors(tiny_server)
    for method in ("Generate", "Tokenize", "Detokenize", "GetModel", "NoSuchMethod"):
        yield raw(tiny_server, method, b"\xff\xff\xff")
    yield raw(tiny_server, "Generate", b"\x12\x04ab\xff\xfe")
    yield raw(tiny_server, "Generate", b"\x12" + b"\xff" * (9 << 20))
    ask = pb.GenerateRequest(prompt="x").SerializeToString()
    yield raw(tiny_server, "Generate", ask, [("sirocco-client", "x" * 300)])
    yield error_of(lambda: tiny_server.generate(
        timeout=0.05, prompt="x", max_new_tokens=4000, stop={"ignore_eos": True}))


def test_no_text_tells_of_what_is_inside(tiny_server, bare_server):
    seen = 0
    for error in all_errors(tiny_server, bare_server):
        for text in texts(error):
            # What the client itself has named comes back in quotes.
            text = re.sub(r'"[^"]*"', '""', text)
            assert not INSIDE.search(text), text
            seen += 1
    assert seen > 150


@pytest.mark.parametrize("text", [
    "server/service/call.cc:91: failed", "cannot open /etc/passwd", "std::bad_alloc",
    "model.safetensors is damaged", "at 0x7fff12345678", "cudaLaunchKernelError",
    "[json.exception.parse_error.101] syntax error",
])
def test_the_scan_finds_what_it_looks_for(text):
    assert INSIDE.search(text)
