"""Requests at the edges of what protobuf can say, through the real server: every number of every
field, all pairs of sampling options in all modes, and messages that chance has damaged.

SIROCCO_TEST_BACKENDS names the backends, with commas (cpu): where there is a GPU, run-gpu-tests has
all this done on `cuda`, whose answers are compared with the CPU's.
"""
import itertools
import math
import os
import random
import struct

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor as Field

from harness import MODES, Server, eventually
from stubs import pb

BACKENDS = os.environ.get("SIROCCO_TEST_BACKENDS", "cpu").split(",")
CODES = grpc.StatusCode
# What a request may be answered with, whatever it says: never INTERNAL, UNKNOWN or UNAVAILABLE.
ANSWERS = {CODES.OK, CODES.INVALID_ARGUMENT, CODES.UNIMPLEMENTED, CODES.FAILED_PRECONDITION,
           CODES.NOT_FOUND, CODES.RESOURCE_EXHAUSTED}
INTEGERS = {
    Field.TYPE_INT32: (-2**31, -2**31 + 1, -1, 0, 1, 2, 2**31 - 2, 2**31 - 1),
    Field.TYPE_UINT32: (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1),
    Field.TYPE_UINT64: (0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1),
}
LEAST, TINY, MOST = 2.0**-149, 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32
FLOATS = (0.0, -0.0, LEAST, -LEAST, TINY, -TINY, 1.0, math.nextafter(1, 2), -1.0, 100.0, 100.5, MOST,
          -MOST, math.inf, -math.inf, math.nan)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def small(tiny, backend):
    """Answers that cannot become long."""
    with Server(tiny, "--max-batch-size", 16, "--max-length", 96,
                env={"SIROCCO_BACKEND": backend}) as server:
        assert server.metrics()("sirocco_build_info", backend=backend) == 1
        yield server
        assert server.check_health() == "SERVING" and server.generate(prompt="Once",
                                                                      max_new_tokens=3)
        eventually(server.idle, what="the end of all that was asked")


def base():
    return pb.GenerateRequest(prompt="Once", max_new_tokens=3, sampling={"seed": 1})


def number_fields(descriptor, path=()):
    """The path of each field that holds a number, however deep."""
    for field in descriptor.fields:
        if field.type == Field.TYPE_MESSAGE:
            if field.message_type.full_name not in path:
                yield from number_fields(field.message_type, (*path, field))
        elif field.type in INTEGERS or field.type == Field.TYPE_FLOAT:
            yield (*path, field)


def with_value(path, value):
    """The request with that field set to the value; of a map, once as the key and once as what it
    leads to."""
    request = base()
    message = request
    for field in path[:-1]:
        if field.message_type.GetOptions().map_entry:
            name = path[-1].name
            entries = getattr(message, field.name)
            entries[value if name == "key" else 5] = value if name == "value" else 1.0
            return request
        message = getattr(message, field.name)
        message.SetInParent()
    field = path[-1]
    if path[0].name == "beam":
        message.num_beams = 2  # what the other options are of
    if field.label == Field.LABEL_REPEATED:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
    return request


FIELDS = {".".join(field.name for field in path): path
          for path in number_fields(pb.GenerateRequest.DESCRIPTOR)}


def code_of(call):
    error = call.exception()
    return CODES.OK if error is None else error.code()


def test_the_fields_are_all():
    for name in ("priority", "n", "sampling.top_k", "sampling.seed", "sampling.logit_bias.key",
                 "sampling.logit_bias.value", "stop.token_ids", "logprobs.top", "beam.num_beams",
                 "prompt_token_ids.ids", "sampling.frequency_penalty"):
        assert name in FIELDS
    assert len(FIELDS) >= 22


@pytest.mark.parametrize("name", FIELDS)
def test_every_number_at_its_edges(small, name):
    path = FIELDS[name]
    values = FLOATS if path[-1].type == Field.TYPE_FLOAT else INTEGERS[path[-1].type]
    requests = [with_value(path, value) for value in values]
    calls = [small.stub.Generate.future(request, timeout=30) for request in requests]
    for value, call in zip(values, calls):
        code = code_of(call)
        assert code in ANSWERS, (name, value, call.exception())
        if code == CODES.OK:
            for completion in call.result().completions:
                assert all(token < 2000 for token in completion.token_ids)
                assert math.isfinite(completion.cumulative_logprob)
        elif code == CODES.INVALID_ARGUMENT:
            assert path[-1].name in call.exception().details() or path[-1].name in ("key", "value",
                                                                                    "ids")
    assert CODES.OK in map(code_of, calls)
    eventually(small.idle)


# Option -> values that differ in what they make the sampler do.
OPTIONS = {
    "temperature": (None, 0.0, 1e-6, 0.7, 100.0),
    "top_k": (None, -1, 1, 5, 2**31 - 1),
    "top_p": (None, 1e-6, 0.5, 1.0),
    "min_p": (None, 0.0, 0.2, 1.0),
    "repetition_penalty": (None, 0.5, 1.3, 1e30),
    "presence_penalty": (None, -100.0, 0.5),
    "frequency_penalty": (None, 100.0, 0.1),
    "min_new_tokens": (None, 8),
    "no_repeat_ngram_size": (None, 1, 3, 2**32 - 1),
    "logit_bias": (None, {7: 100.0}, {7: -100.0, 9: 5.0}),
    "allowed_token_ids": (None, (7, 9, 11, 13)),
    "banned_token_ids": (None, (7, 8)),
    "n": (None, 2),
    "logprobs": (None, 0, 20),
    "stop ids": (None, (9,)),
}


def pairwise(options, seed=1):
    """Cases such that each two values of two options stand together in one of them."""
    names = list(options)
    left = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2)
            for x in range(len(options[a])) for y in range(len(options[b]))}
    pick = random.Random(seed)

    def pairs(case):
        return set(itertools.combinations([(name, case[name]) for name in names], 2))
    while left:
        first = pick.choice(sorted(left))
        tries = []
        for _ in range(30):
            case = {name: pick.randrange(len(options[name])) for name in names}
            case.update(dict(first))
            tries.append((len(pairs(case) & left), case))
        best = max(tries, key=lambda one: one[0])[1]
        left -= pairs(best)
        yield {name: options[name][best[name]] for name in names}


def request_of(case):
    sampling = {"seed": 42}
    request = {"prompt": "The wind", "max_new_tokens": 12, "sampling": sampling}
    for name, value in case.items():
        if value is None:
            continue
        if name == "n":
            request["n"] = value
        elif name == "logprobs":
            request["logprobs"] = {"top": value}
        elif name == "stop ids":
            request["stop"] = {"token_ids": value}
        else:
            sampling[name] = value
    return pb.GenerateRequest(**request)


CASES = list(pairwise(OPTIONS))


def answer_of(response):
    return [(list(c.token_ids), c.text, c.finish_reason, c.stop_reason,
             [(t.token_id, t.logprob, t.rank, [(o.token_id, o.logprob) for o in t.top])
              for t in c.logprobs]) for c in response.completions]


def pairs_server(tiny, backend, mode):
    return Server(tiny, "--max-batch-size", 16, "--max-length", 96, "--dtype", "float32", mode=mode,
                  env={"SIROCCO_BACKEND": backend})


def answers_of(server, requests):
    """(code, answer) of each, all asked at once; afterwards nothing is held."""
    calls = [server.stub.Generate.future(request, timeout=60) for request in requests]
    out = [(code_of(call), None if call.exception() else answer_of(call.result()))
           for call in calls]
    eventually(server.idle, what="the end of all cases")
    return out


@pytest.fixture(scope="module")
def reference(tiny):
    """The CPU's server whose answers are compared with, and its answer to each case."""
    with pairs_server(tiny, "cpu", "eager") as server:
        yield server, answers_of(server, map(request_of, CASES))


@pytest.fixture(scope="module")
def answers(tiny, backend, reference):
    """mode -> what it answers to each case."""
    out = {}
    for mode in MODES:
        if (backend, mode) == ("cpu", "eager"):
            out[mode] = reference[1]
            continue
        with pairs_server(tiny, backend, mode) as server:
            assert server.metrics()("sirocco_build_info", backend=backend, mode=mode) == 1
            out[mode] = answers_of(server, map(request_of, CASES))
            assert server.check_health() == "SERVING"
    return out


def test_all_pairs_are_there():
    seen = set()
    for case in CASES:
        seen |= set(itertools.combinations([(k, repr(v)) for k, v in case.items()], 2))
    wanted = {((a, repr(x)), (b, repr(y))) for a, b in itertools.combinations(OPTIONS, 2)
              for x in OPTIONS[a] for y in OPTIONS[b]}
    assert seen == wanted and len(CASES) < 100


# Of tests/goldens/README.md, for float32: how far log-probabilities may differ, and a margin below
# which either id may be chosen.
LOGPROB_TOLERANCE, LEAST_MARGIN = 2e-3, 5e-3
# Of the cases, those that may end otherwise for such a margin.
MOST_CLOSE_CALLS = 0.1


def near(got, wanted):
    return got == wanted or abs(got - wanted) <= LOGPROB_TOLERANCE + 1e-4 * abs(wanted)


def differs(got, wanted):
    """Where a sequence leaves the reference's: (step, the reference's id, the other), or None. Up to
    there the two say the same.
    """
    (tokens, text, reason, stop, logprobs), other = got, wanted[0]
    step = next((i for i, pair in enumerate(zip(tokens, other)) if pair[0] != pair[1]), None)
    for mine, its in itertools.islice(zip(logprobs, wanted[4]), step):
        assert near(mine[1], its[1])
        tops = dict(its[3])  # near its end another id may stand
        same = [(value, tops[token]) for token, value in mine[3] if token in tops]
        assert len(same) >= len(tops) - 1 and all(near(*pair) for pair in same)
    if step is not None:
        return step, other[step], tokens[step]
    assert (tokens, text, reason, stop) == wanted[:4] and len(logprobs) == len(wanted[4])
    return None


def is_close_call(server, request, index, tokens, step, wanted, got):
    """Whether the reference chooses the other id, too, once that id's logit is larger by half the
    least margin and its own choice's smaller by as much.
    """
    for sign in ((-1, 1), (-1, 0), (0, 1)):
        nudged = pb.GenerateRequest()
        nudged.CopyFrom(request)
        for token, way in zip((wanted, got), sign):
            bias = nudged.sampling.logit_bias[token] + way * LEAST_MARGIN / 2
            nudged.sampling.logit_bias[token] = max(-100, min(100, bias))
        answer = server.stub.Generate(nudged, timeout=60).completions[index]
        if list(answer.token_ids)[:step + 1] == tokens[:step + 1]:
            return True
    return False


@pytest.mark.parametrize("mode", MODES)
def test_pairs_of_options(answers, reference, backend, mode):
    """Every mode answers as the CPU does in eager, and obeys each option. On the CPU it is the same to
    the last bit."""
    server, wanted = reference
    close = 0
    for case, (code, answer), (eager_code, eager) in zip(CASES, answers[mode], wanted):
        assert code == eager_code and code in (CODES.OK, CODES.INVALID_ARGUMENT), case
        if answer is None:
            continue
        if backend == "cpu":
            assert answer == eager, case
        else:
            assert len(answer) == len(eager)
            for index, (mine, its) in enumerate(zip(answer, eager)):
                at = differs(mine, its)
                if at is not None:
                    close += 1
                    assert is_close_call(server, request_of(case), index, mine[0], *at), (case, at)
        assert len(answer) == (case["n"] or 1)
        for tokens, _, reason, _, logprobs in answer:
            assert 1 <= len(tokens) <= 12
            if case["allowed_token_ids"]:
                assert set(tokens) <= {7, 9, 11, 13}
            if case["banned_token_ids"] and not case["allowed_token_ids"]:
                assert not set(tokens) & {7, 8}
            if case["no_repeat_ngram_size"] == 1 and not case["allowed_token_ids"]:
                assert len(set(tokens)) == len(tokens)
            if reason == pb.FINISH_REASON_STOP:
                assert len(tokens) > (case["min_new_tokens"] or 0)
            assert len(logprobs) == (0 if case["logprobs"] is None else len(tokens))
    assert sum(code == CODES.OK for code, _ in answers[mode]) > len(CASES) // 2
    print(f"{backend} {mode}: {len(CASES)} cases, {close} close calls")
    assert close <= MOST_CLOSE_CALLS * len(CASES)


def seeds():
    full = pb.GenerateRequest(
        model="tiny", chat={"messages": [{"role": "user", "content": "Héllo"}]},
        sampling={"temperature": 0.7, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 3,
                  "logit_bias": {5: 1.0}, "banned_token_ids": [4, 5]},
        stop={"strings": ["end"], "token_ids": [9]}, logprobs={"top": 3, "prompt": True}, n=2,
        max_new_tokens=4, request_id="an-id", priority=1, cache_salt="salt")
    ids = pb.GenerateRequest(prompt_token_ids={"ids": range(3, 40)}, max_new_tokens=2)
    return {"Generate": [full, ids, base()], "GenerateStream": [full, ids],
            "Tokenize": [pb.TokenizeRequest(text="Hello there"),
                         pb.TokenizeRequest(chat=full.chat)],
            "Detokenize": [pb.DetokenizeRequest(token_ids=range(40))]}


def damage(pick, payload):
    """A few changes of the kinds that hit tags, lengths and numbers."""
    data = bytearray(payload)
    for _ in range(pick.randint(1, 4)):
        at = pick.randrange(len(data) + 1)
        kind = pick.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << pick.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = pick.choice((0, 1, 0x7f, 0x80, 0xff, pick.randrange(256)))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at:at + pick.randint(1, 8)]
        elif kind == 4:
            data[at:at] = data[at:at + pick.randint(1, 16)] * pick.randint(1, 8)
        elif kind == 5:
            data[at:at] = b"\xff" * pick.randint(1, 9) + bytes([pick.randrange(128)])
        else:
            data[at:at] = struct.pack("<f", pick.choice(FLOATS))
    return bytes(data)


@pytest.mark.parametrize("method", seeds())
def test_damaged_messages(small, method):
    seed = int(os.environ.get("SIROCCO_TEST_SEED", "20261126"))
    pick = random.Random(f"{seed} {method}")
    path = f"/sirocco.v1.Inference/{method}"
    payloads = [message.SerializeToString() for message in seeds()[method]]
    raw = {"request_serializer": bytes, "response_deserializer": bytes}
    unary = small.channel.unary_unary(path, **raw)
    stream = small.channel.unary_stream(path, **raw)

    def code(call):
        try:
            list(call) if method == "GenerateStream" else call.result()
        except grpc.RpcError as error:
            return error.code()
        return CODES.OK
    seen = {}
    for _ in range(20):
        sent = [damage(pick, pick.choice(payloads)) for _ in range(50)]
        calls = [stream(payload, timeout=30) if method == "GenerateStream" else
                 unary.future(payload, timeout=30) for payload in sent]
        for payload, call in zip(sent, calls):
            got = code(call)
            assert got in ANSWERS, (got, payload.hex())
            seen[got] = seen.get(got, 0) + 1
    assert seen[CODES.OK] > 20 and seen[CODES.INVALID_ARGUMENT] > 20, seen
    eventually(small.idle)
    assert small.check_health() == "SERVING"
