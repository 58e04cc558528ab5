"""`sirocco score`: the perplexity of a text."""
import json
import math
import os
import pty
import re
import subprocess

import pytest

from harness import BINARY, GOLDENS, TIMEOUT, environment, run_cli

TEXT = os.path.join(GOLDENS, "scores/text.txt")

with open(os.path.join(GOLDENS, "scores/expected.json"), encoding="utf-8") as file:
    EXPECTED = json.load(file)


def score(model, *args, text=TEXT, **options):
    result = run_cli("score", "--model", model, "--json", *args, *([text] if text else []),
                     **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("case", EXPECTED,
                         ids=[f"{c['context']}-{c['stride']}" for c in EXPECTED])
def test_equals_transformers(tiny, case):
    found = score(tiny, "--dtype", "float32", "--context", case["context"], "--stride",
                  case["stride"])
    assert found["tokens"] == case["tokens"] and found["scored_tokens"] == case["scored"]
    # Log-probabilities within 2e-3 (tests/goldens/README.md), and so is their mean.
    mean = case["log_likelihood"] / case["scored"]
    assert found["log_likelihood"] / found["scored_tokens"] == pytest.approx(mean, abs=2e-3)
    assert found["perplexity"] == pytest.approx(math.exp(-mean), rel=2e-3)
    assert found["bits_per_byte"] == pytest.approx(
        -case["log_likelihood"] / math.log(2) / os.path.getsize(TEXT), rel=2e-3)


def test_the_same_bits_whatever_the_batch_and_the_chunks(tiny):
    windows = ("--context", 128, "--stride", 32)
    found = [score(tiny, *windows, *flags)["log_likelihood"] for flags in (
        (), ("--max-batch-size", 1, "--threads", 1), ("--prefill-chunk-size", 16))]
    assert found[0] == found[1] == found[2]


def test_one_window_is_what_the_server_says(tiny, tiny_server):
    with open(TEXT, encoding="utf-8") as file:
        text = file.read()
    response = tiny_server.generate(prompt=text, max_new_tokens=0, logprobs={"prompt": True})
    found = score(tiny, text=None, stdin=text)
    assert found["windows"] == 1
    assert found["log_likelihood"] == pytest.approx(
        sum(token.logprob for token in response.prompt_logprobs), rel=1e-6)


def test_a_model_of_english_finds_english_probable(smollm2):
    with open(TEXT, encoding="utf-8") as file:
        words = file.read().split()
    flags = ("--max-length", 512)
    english = score(smollm2, *flags, text=None, stdin=" ".join(words))
    backwards = score(smollm2, *flags, text=None, stdin=" ".join(reversed(words)))
    assert english["perplexity"] < 60
    assert backwards["perplexity"] > 5 * english["perplexity"]


def test_for_people(tiny):
    result = run_cli("score", "--model", tiny, "--context", 128, TEXT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("perplexity ") and "64 apart" in result.stdout


def test_a_terminal_has_a_bar(tiny):
    own, terminal = pty.openpty()
    with subprocess.Popen([BINARY, "score", "--model", tiny, TEXT], env=environment(),
                          stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(own, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert process.wait(TIMEOUT) == 0
    os.close(own)
    assert re.search(rb"scoring +\[#+ *\] +\d+%", shown), shown


@pytest.mark.parametrize("args, text, names", [
    (("--context", 1), "a b c", ["--context", "1"]),
    (("--context", 8193), "a b c", ["--context", "8193", "8192"]),
    (("--context", 8, "--stride", 8), "a b c", ["--stride", "8", "1 to 7"]),
    (("--stride", 0), "a b c", ["--stride"]),
    ((), "", ["0 tokens", "at least 2"]),
])
def test_refused(tiny, args, text, names):
    result = run_cli("score", "--model", tiny, *args, stdin=text)
    assert result.returncode == 2 and result.stdout == ""
    assert all(name in result.stderr for name in names), result.stderr


def test_what_is_no_text(tiny, bare, tmp_path):
    (tmp_path / "bytes").write_bytes(b"a\xff b c")
    result = run_cli("score", "--model", tiny, tmp_path / "bytes")
    assert result.returncode == 2 and "UTF-8" in result.stderr
    result = run_cli("score", "--model", tiny, tmp_path / "nothing")
    assert result.returncode == 2 and "nothing" in result.stderr
    result = run_cli("score", "--model", bare, stdin="a b c")
    assert result.returncode == 2 and "tokenizer" in result.stderr
