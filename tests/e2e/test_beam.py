"""Beam searches by the real server: unary and streamed, beside others, and from the command line."""
import json

import pytest

from harness import Collected, eventually, run_cli
from stubs import pb

IDS = {"prompt_token_ids": {"ids": [5, 9, 200, 31, 77]}}
BEAM = {"num_beams": 4, "num_return_sequences": 3}


def search(server, **request):
    """The unary answer; the stream's is the same, and comes all at once."""
    request = {**IDS, "max_new_tokens": 12, "beam": BEAM, **request}
    response = server.generate(**request)
    Collected(server.stream(**request)).assert_equals(response)
    return response


def score(completion, length_penalty=1.0):
    return completion.cumulative_logprob / len(completion.token_ids) ** length_penalty


def test_the_best_come_first(tiny_server):
    response = search(tiny_server, logprobs={"top": 2}, stop={"ignore_eos": True})
    assert [completion.index for completion in response.completions] == [0, 1, 2]
    assert len({tuple(completion.token_ids) for completion in response.completions}) == 3
    scores = [score(completion) for completion in response.completions]
    assert scores == sorted(scores, reverse=True)
    for completion in response.completions:
        assert len(completion.logprobs) == len(completion.token_ids) == 12
        assert sum(token.logprob for token in completion.logprobs) == pytest.approx(
            completion.cumulative_logprob, abs=1e-4)
    assert response.usage.completion_tokens == 36


def test_one_beam_is_greedy(tiny_server):
    greedy = tiny_server.generate(**IDS, max_new_tokens=12, sampling={"temperature": 0})
    response = search(tiny_server, beam={"num_beams": 1})
    assert response.completions[0].token_ids == greedy.completions[0].token_ids


def test_stop_tokens_end_beams_and_penalties_hold(tiny_server):
    free = search(tiny_server, stop={"ignore_eos": True})
    stop = free.completions[0].token_ids[5]
    response = search(tiny_server, stop={"ignore_eos": True, "token_ids": [stop]})
    for completion in response.completions:
        assert stop not in completion.token_ids[:-1]
        if completion.token_ids[-1] == stop:
            assert completion.stop_reason == str(stop)
    banned = search(tiny_server, sampling={"banned_token_ids": [stop], "repetition_penalty": 1.3})
    assert all(stop not in completion.token_ids for completion in banned.completions)


def test_beside_others_the_answers_are_the_same(tiny_server):
    requests = [{"prompt_token_ids": {"ids": [5 + i, 9, 31]}, "max_new_tokens": 10 + i,
                 "stop": {"ignore_eos": True},
                 **({"beam": BEAM} if i % 2 else {"sampling": {"temperature": 0}})}
                for i in range(12)]
    alone = [tiny_server.generate(**request) for request in requests]
    calls = [tiny_server.stub.Generate.future(pb.GenerateRequest(**request), timeout=30)
             for request in requests]
    for call, expected in zip(calls, alone):
        assert call.result().completions == expected.completions
    eventually(tiny_server.idle)


def test_from_the_command_line(tiny_server):
    out = run_cli("generate", "--address", tiny_server.address, "--num-beams", "3",
                  "--num-return-sequences", "2", "--length-penalty", "0.5", "--early-stopping",
                  "--max-new-tokens", "8", "--json", "The wind")
    assert out.returncode == 0, out.stderr
    answer = json.loads(out.stdout)
    expected = tiny_server.generate(
        prompt="The wind", max_new_tokens=8,
        beam={"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5,
              "early_stopping": True})
    assert [c["text"] for c in answer["completions"]] == [c.text for c in expected.completions]
    plain = run_cli("generate", "--address", tiny_server.address, "--num-beams", "3",
                    "--length-penalty", "0.5", "--early-stopping", "--max-new-tokens", "8",
                    "The wind")
    assert plain.stdout.rstrip("\n") == expected.completions[0].text.rstrip("\n")
    # What says how a search is made needs one.
    refused = run_cli("generate", "--address", tiny_server.address, "--early-stopping", "x")
    assert refused.returncode != 0 and "--num-beams" in refused.stderr
