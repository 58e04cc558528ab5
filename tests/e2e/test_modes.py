"""Every mode answers as the references do, and as the other modes do."""
import json
import os
import struct
import subprocess
import sys

import pytest

from harness import BINARY, GOLDENS, MODES, ROOT, Collected, Server, read_jsonl
from stubs import pb

CHECK_REFERENCE = os.path.join(ROOT, "deploy/tools/check_reference.py")
CASES = read_jsonl("smollm2/cases.jsonl")
with open(os.path.join(GOLDENS, "smollm2/tolerances.json"), encoding="utf-8") as tolerances:
    TOLERANCES = json.load(tolerances)
FLOAT32 = TOLERANCES["float32"]
BFLOAT16 = TOLERANCES["bfloat16 with float32 arithmetic"]
BLOCKS = TOLERANCES["blocks with int8 activations"]


def sure_steps(margins, least):
    """How many steps come before the first that may go another way, and all after it."""
    return next((i for i, margin in enumerate(margins) if margin < least), len(margins))


def request_of(case):
    request = {"max_new_tokens": 64, "logprobs": {"top": 5}}
    if case["kind"] == "chat":
        request["chat"] = {"messages": case["messages"]}
    else:
        request["prompt"] = case["prompt"]
    return request


def check_answer(case, response, tolerance):
    completion = response.completions[0]
    sure = sure_steps(case["margins"], tolerance["margin"])
    assert list(completion.token_ids[:sure]) == case["completion_token_ids"][:sure]
    for step in range(sure):
        got, expected = completion.logprobs[step], case["logprobs"][step]
        assert got.token_id == case["completion_token_ids"][step]
        assert got.rank == 1
        assert got.logprob == pytest.approx(expected, abs=tolerance["logprob"])
        for candidate in got.top:
            reference = dict(case["top5"][step]) if step < len(case["top5"]) else {}
            if candidate.token_id in reference:
                assert candidate.logprob == pytest.approx(reference[candidate.token_id],
                                                          abs=4 * tolerance["logprob"])
    if sure == len(case["margins"]):
        assert completion.text == case["text"]
        stopped = case["finish_reason"] == "stop"
        assert completion.finish_reason == (pb.FINISH_REASON_STOP if stopped
                                            else pb.FINISH_REASON_LENGTH)
        assert response.usage.completion_tokens == len(case["completion_token_ids"])
    assert response.usage.prompt_tokens == len(case["prompt_token_ids"])


@pytest.fixture(scope="module")
def answers():
    """The answers of each mode so far: the modes must agree."""
    return {}


@pytest.mark.parametrize("mode", MODES)
def test_smollm2(smollm2, mode, answers):
    with Server(smollm2, "--max-batch-size", 4, "--max-length", 1024, mode=mode) as server:
        model = server.get_model()
        assert model.mode == mode
        assert (model.backend, model.max_length, model.max_batch_size) == ("cpu", 1024, 4)
        assert (model.has_tokenizer, model.has_chat_template) == (True, True)
        assert (model.vocab_size, model.architecture) == (49152, "llama")
        assert 134_000_000 < model.parameter_count < 136_000_000
        assert 2 in model.end_token_ids
        assert model.dtype == "Q4_1"  # as most of the file is
        assert mode in server.stderr()

        results = []
        for case in CASES:
            call = server.stub.Generate.future(pb.GenerateRequest(**request_of(case)), timeout=120)
            results.append((case, call))
        for case, call in results:
            check_answer(case, call.result(), BLOCKS)
            trailing = dict(call.trailing_metadata())
            assert trailing["sirocco-mode"] == mode
            for key in ("sirocco-queue-ms", "sirocco-prefill-ms", "sirocco-decode-ms"):
                assert float(trailing[key]) >= 0
        answers[mode] = [[(list(c.token_ids), [t.logprob for t in c.logprobs])
                          for c in call.result().completions] for _, call in results]

    if mode.endswith("_graph"):  # run before its twin
        return
    twin = mode + "_graph"
    if twin in answers:
        assert answers[mode] == answers[twin], "a graph changes no bit"


@pytest.mark.parametrize("dtype, tolerance", [("float32", FLOAT32), ("bfloat16", BFLOAT16)])
def test_smollm2_dequantised(smollm2, dtype, tolerance):
    with Server(smollm2, "--dtype", dtype, "--max-batch-size", 4,
                "--max-length", 512) as server:
        assert server.get_model().dtype == dtype
        for case in CASES:
            check_answer(case, server.generate(**request_of(case), timeout=120), tolerance)


# The tool that compares any backend where there is no pytest.
@pytest.mark.parametrize("off, status, word", [(0, 0, "passed"), (1, 1, "FAILED")])
def test_check_reference(smollm2, off, status, word, tmp_path):
    with open(tmp_path / "cases.jsonl", "w", encoding="utf-8") as lines:
        for case in CASES:
            case = dict(case, logprobs=[logprob - off for logprob in case["logprobs"]])
            lines.write(json.dumps(case) + "\n")
    (tmp_path / "tolerances.json").write_text(json.dumps(TOLERANCES))
    result = subprocess.run(
        [sys.executable, CHECK_REFERENCE, "--sirocco", BINARY, "--model", smollm2, "--references",
         tmp_path, "--dtypes", "bfloat16", "--modes", "decoder"],
        capture_output=True, text=True, timeout=300)
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stdout.startswith(f"{word}: cpu bfloat16 decoder")


def read_safetensors(path):
    """name -> a list of numbers, of the dtypes that the references have."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    kinds = {"F32": "f", "I64": "q", "I32": "i"}
    return {name: struct.unpack(f"<{(e - b) // struct.calcsize(kinds[t['dtype']])}"
                                f"{kinds[t['dtype']]}", data[b:e])
            for name, t in header.items() if name != "__metadata__"
            for b, e in [t["data_offsets"]]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("golden", ["llama_tied", "llama3_rope", "qwen2"])
def test_tiny_goldens(golden, mode):
    folder = os.path.join(GOLDENS, golden)
    expected = read_safetensors(os.path.join(folder, "expected.safetensors"))
    with Server(folder, "--dtype", "float32", "--max-batch-size", 4, mode=mode) as server:
        prompts = sorted(name for name in expected if name.startswith("prompt_"))
        assert prompts
        for name in prompts:
            index = name.removeprefix("prompt_")
            request = {"prompt_token_ids": {"ids": expected[name]}, "max_new_tokens": 32,
                       "stop": {"ignore_eos": True}}
            response = server.generate(**request)
            completion = response.completions[0]
            assert len(completion.token_ids) == 32
            assert completion.text == ""
            sure = sure_steps(expected[f"margin_{index}"], FLOAT32["margin"])
            assert list(completion.token_ids[:sure]) == list(expected[f"greedy_{index}"][:sure])
            Collected(server.stream(**request)).assert_equals(response)
