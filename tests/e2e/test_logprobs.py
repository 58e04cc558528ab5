"""Log-probabilities: of the raw logits, of what was said and of the prompt."""
import math

import pytest

from harness import Collected, Server
from stubs import pb


def ask(server, **request):
    request["sampling"] = {"seed": 1, **request.get("sampling", {})}
    response = server.generate(**request)
    Collected(server.stream(**request)).assert_equals(response)
    return response


def test_one_a_token(tiny_server):
    completion = ask(tiny_server, prompt="The wind", max_new_tokens=8, stop={"ignore_eos": True},
                     logprobs={"top": 3}).completions[0]
    assert [token.token_id for token in completion.logprobs] == list(completion.token_ids)
    for token in completion.logprobs:
        assert token.logprob < 0 and token.rank == 1
        assert len(token.top) == 3
        values = [candidate.logprob for candidate in token.top]
        assert values == sorted(values, reverse=True)
        assert (token.top[0].token_id, token.top[0].logprob) == (token.token_id, token.logprob)
        assert token.top[0].token == token.token
    total = sum(token.logprob for token in completion.logprobs)
    assert completion.cumulative_logprob == pytest.approx(total, abs=1e-4)
    assert b"".join(t.token for t in completion.logprobs).decode(errors="replace") \
        == completion.text


def test_no_alternatives_unless_asked(tiny_server):
    completion = ask(tiny_server, prompt="The wind", max_new_tokens=4, logprobs={}).completions[0]
    assert len(completion.logprobs) == len(completion.token_ids)
    assert not any(token.top for token in completion.logprobs)


def test_they_are_of_raw_logits(tiny_server):
    request = {"prompt": "The wind", "max_new_tokens": 1, "logprobs": {"top": 20}}
    plain = ask(tiny_server, **request).completions[0].logprobs[0]
    hot = ask(tiny_server, **request, sampling={
        "temperature": 3.0, "seed": 4, "repetition_penalty": 2.0, "top_k": 15,
    }).completions[0].logprobs[0]
    assert hot.top == plain.top
    assert hot.logprob == plain.top[hot.rank - 1].logprob
    assert sum(math.exp(candidate.logprob) for candidate in plain.top) <= 1 + 1e-5


def test_prompt_logprobs_equal_those_of_generation(tiny_server):
    first = ask(tiny_server, prompt="The wind", max_new_tokens=6, logprobs={"top": 2},
                stop={"ignore_eos": True})
    prompt = tiny_server.tokenize("The wind")
    whole = prompt + list(first.completions[0].token_ids)
    scored = ask(tiny_server, prompt_token_ids={"ids": whole}, max_new_tokens=0,
                 logprobs={"top": 2, "prompt": True})
    assert [token.token_id for token in scored.prompt_logprobs[1:]] == whole[1:]
    assert scored.prompt_logprobs[0] == pb.TokenLogprob()
    # Bit for bit: a result does not depend on how a prompt is cut.
    assert list(scored.prompt_logprobs[len(prompt):]) == list(first.completions[0].logprobs)


def test_scoring_alone(tiny_server):
    ids = tiny_server.tokenize("Nothing is said after this.")
    response = ask(tiny_server, prompt="Nothing is said after this.", max_new_tokens=0,
                   logprobs={"prompt": True})
    assert len(response.prompt_logprobs) == len(ids)
    completion = response.completions[0]
    assert (completion.text, list(completion.token_ids)) == ("", [])
    assert completion.finish_reason == pb.FINISH_REASON_LENGTH
    assert response.usage.prompt_tokens == len(ids)
    assert response.usage.completion_tokens == 0
    assert response.usage.cached_prompt_tokens == 0


def test_scored_prompt_may_fill_max_length(bare_server):
    response = ask(bare_server, prompt_token_ids={"ids": [7] * 512}, max_new_tokens=0,
                   logprobs={"prompt": True})
    assert len(response.prompt_logprobs) == 512
    assert all(token.token == b"" for token in response.prompt_logprobs)


def test_both_at_once(tiny_server):
    response = ask(tiny_server, prompt="The wind", max_new_tokens=3,
                   logprobs={"top": 1, "prompt": True}, stop={"ignore_eos": True})
    assert len(response.prompt_logprobs) == response.usage.prompt_tokens
    assert all(len(token.top) == 1 for token in response.prompt_logprobs[1:])
    assert len(response.completions[0].logprobs) == 3
    without = tiny_server.generate(prompt="The wind", max_new_tokens=3, stop={"ignore_eos": True})
    assert without.completions[0].token_ids == response.completions[0].token_ids


def test_smollm2_prompt_chunks_do_not_show(smollm2):
    """The same bits, however a prompt is cut into steps and whatever the threads."""
    text = "The quick brown fox jumps over the lazy dog. " * 8
    scored = []
    for flags in (["--prefill-chunk-size", 512, "--threads", 2],
                  ["--prefill-chunk-size", 16, "--threads", 1]):
        with Server(smollm2, "--max-batch-size", 2, "--max-length", 256, *flags) as server:
            response = server.generate(prompt=text, max_new_tokens=4,
                                       logprobs={"top": 2, "prompt": True})
            scored.append((list(response.prompt_logprobs), response.completions[0]))
    assert scored[0] == scored[1]
