"""What a request may ask of sampling and length."""
import collections
import math

import pytest

from harness import Collected
from stubs import pb

PROMPT = "The wind from the desert"


def ids_of(response, index=0):
    return list(response.completions[index].token_ids)


def equalised(server, allowed):
    """Sampling params under which these ids alone may follow PROMPT, all equally likely."""
    bias = {}
    for token in allowed:
        response = server.generate(prompt=PROMPT, max_new_tokens=1, logprobs={},
                                   sampling={"allowed_token_ids": [token]})
        bias[token] = -response.completions[0].logprobs[0].logprob
    return {"allowed_token_ids": allowed, "logit_bias": bias}


@pytest.fixture(scope="module")
def greedy(tiny_server):
    """The greedy answer that the variations here start from."""
    response = tiny_server.generate(prompt=PROMPT, max_new_tokens=24, stop={"ignore_eos": True})
    assert len(ids_of(response)) == 24
    return ids_of(response)


def test_answer_has_all_its_parts(tiny_server, greedy):
    response = tiny_server.generate(prompt=PROMPT, max_new_tokens=24, stop={"ignore_eos": True},
                                    request_id="mine")
    completion = response.completions[0]
    assert response.request_id == "mine"
    assert len(response.completions) == 1
    assert ids_of(response) == greedy
    assert completion.index == 0
    assert completion.finish_reason == pb.FINISH_REASON_LENGTH
    assert completion.stop_reason == ""
    assert completion.text == tiny_server.detokenize(greedy)
    assert completion.cumulative_logprob == 0
    assert not completion.logprobs and not response.prompt_logprobs
    assert response.usage.prompt_tokens == len(tiny_server.tokenize(PROMPT))
    assert response.usage.completion_tokens == 24
    assert response.timing.prefill.ToNanoseconds() > 0
    assert response.timing.decode.ToNanoseconds() > 0


def test_request_id_is_made_where_none_is_given(tiny_server):
    made = {tiny_server.generate(prompt=PROMPT, max_new_tokens=1).request_id for _ in range(3)}
    assert len(made) == 3 and "" not in made


def test_model_name_may_be_given(tiny_server):
    name = tiny_server.get_model().name
    assert ids_of(tiny_server.generate(model=name, prompt=PROMPT, max_new_tokens=1))


def test_prompt_forms_agree(tiny_server, greedy):
    ids = tiny_server.tokenize(PROMPT)
    by_ids = tiny_server.generate(prompt_token_ids={"ids": ids}, max_new_tokens=24,
                                  stop={"ignore_eos": True})
    assert ids_of(by_ids) == greedy
    messages = [{"role": "user", "content": PROMPT}]
    chat_ids = tiny_server.stub.Tokenize(pb.TokenizeRequest(chat={"messages": messages}))
    by_chat = tiny_server.generate(chat={"messages": messages}, max_new_tokens=8)
    by_chat_ids = tiny_server.generate(prompt_token_ids={"ids": chat_ids.token_ids},
                                       max_new_tokens=8)
    assert ids_of(by_chat) == ids_of(by_chat_ids)
    assert by_chat.usage.prompt_tokens == len(chat_ids.token_ids)


def test_length_is_cut_at_the_room(bare_server):
    response = bare_server.generate(prompt_token_ids={"ids": [5] * 500}, max_new_tokens=4000,
                                    stop={"ignore_eos": True})
    assert len(ids_of(response)) == 12
    assert response.completions[0].finish_reason == pb.FINISH_REASON_LENGTH
    unset = bare_server.generate(prompt_token_ids={"ids": [5] * 500}, stop={"ignore_eos": True})
    assert ids_of(unset) == ids_of(response)


def test_prompt_of_one_less_than_max_length(bare_server):
    response = bare_server.generate(prompt_token_ids={"ids": [5] * 511}, max_new_tokens=9)
    assert len(ids_of(response)) == 1


class TestSampling:
    def sample(self, server, count=32, **sampling):
        return ids_of(server.generate(prompt=PROMPT, max_new_tokens=count,
                                      sampling={"temperature": 1.0, **sampling},
                                      stop={"ignore_eos": True}))

    def test_seed_decides(self, tiny_server):
        first = self.sample(tiny_server, seed=7)
        assert self.sample(tiny_server, seed=7) == first
        assert self.sample(tiny_server, seed=8) != first

    def test_seed_is_returned(self, tiny_server):
        request = {"prompt": PROMPT, "max_new_tokens": 16, "sampling": {"temperature": 1.0}}
        drawn = tiny_server.generate(**request)
        request["sampling"] = {"temperature": 1.0, "seed": drawn.seed}
        again = tiny_server.generate(**request)
        assert (ids_of(again), again.seed) == (ids_of(drawn), drawn.seed)
        largest = tiny_server.generate(prompt=PROMPT, max_new_tokens=1,
                                       sampling={"temperature": 1, "seed": 2**64 - 1})
        assert largest.seed == 2**64 - 1

    def test_seeds_are_drawn(self, tiny_server):
        assert self.sample(tiny_server) != self.sample(tiny_server)

    def test_one_candidate_is_greedy(self, tiny_server, greedy):
        assert self.sample(tiny_server, 24, top_k=1, seed=3) == greedy
        assert self.sample(tiny_server, 24, top_p=1e-6, seed=3) == greedy
        assert self.sample(tiny_server, 24, min_p=1.0, seed=3) == greedy
        assert self.sample(tiny_server, 24, temperature=0, seed=3) == greedy
        assert self.sample(tiny_server, 24, temperature=1e-4, seed=3) == greedy

    def test_filters_that_are_off(self, tiny_server):
        plain = self.sample(tiny_server, seed=11)
        assert self.sample(tiny_server, seed=11, top_k=0) == plain
        assert self.sample(tiny_server, seed=11, top_k=-1) == plain
        assert self.sample(tiny_server, seed=11, top_k=10**6, top_p=1, min_p=0) == plain

    def test_top_k_keeps_the_best(self, tiny_server):
        response = tiny_server.generate(
            prompt=PROMPT, max_new_tokens=64, logprobs={"top": 5}, stop={"ignore_eos": True},
            sampling={"temperature": 5.0, "top_k": 5, "seed": 1})
        ranks = [token.rank for token in response.completions[0].logprobs]
        assert max(ranks) <= 5 and len(set(ranks)) > 2

    def test_top_p_keeps_the_smallest_set_that_reaches_it(self, tiny_server):
        # Of two ids with probabilities of 3 to 1 the first alone reaches 0.7, but not 0.8.
        sampling = equalised(tiny_server, [100, 200])
        sampling["logit_bias"][100] += math.log(3)
        for top_p, expected in ((0.7, {100}), (0.8, {100, 200})):
            response = tiny_server.generate(
                prompt=PROMPT, max_new_tokens=1, n=32,
                sampling={**sampling, "temperature": 1, "seed": 1, "top_p": top_p})
            assert {c.token_ids[0] for c in response.completions} == expected

    def test_min_p_is_a_share_of_the_best(self, tiny_server):
        sampling = equalised(tiny_server, [100, 200])
        sampling["logit_bias"][100] += math.log(3)
        for min_p, expected in ((0.4, {100}), (0.3, {100, 200})):
            response = tiny_server.generate(
                prompt=PROMPT, max_new_tokens=1, n=32,
                sampling={**sampling, "temperature": 1, "seed": 1, "min_p": min_p})
            assert {c.token_ids[0] for c in response.completions} == expected

    def test_frequencies_follow_the_probabilities(self, tiny_server):
        sampling = equalised(tiny_server, [100, 200, 300])
        draws = collections.Counter()
        for seed in range(30):
            response = tiny_server.generate(prompt=PROMPT, max_new_tokens=1, n=20,
                                            sampling={**sampling, "temperature": 1, "seed": seed})
            draws.update(c.token_ids[0] for c in response.completions)
        assert sum(draws.values()) == 600
        for token in (100, 200, 300):  # 200 expected, deviation 11.5
            assert 140 < draws[token] < 260, draws

    def test_sequences_of_one_request(self, tiny_server):
        request = {"prompt": PROMPT, "max_new_tokens": 16, "n": 4,
                   "sampling": {"temperature": 1.0, "seed": 5}, "stop": {"ignore_eos": True}}
        response = tiny_server.generate(**request)
        assert [c.index for c in response.completions] == [0, 1, 2, 3]
        assert len({tuple(c.token_ids) for c in response.completions}) == 4
        assert response.usage.completion_tokens == 64
        assert response.usage.prompt_tokens == len(tiny_server.tokenize(PROMPT))
        alone = tiny_server.generate(**{**request, "n": 1})
        assert ids_of(alone) == ids_of(response)
        Collected(tiny_server.stream(**request)).assert_equals(response)

    def test_greedy_sequences_are_equal(self, tiny_server, greedy):
        response = tiny_server.generate(prompt=PROMPT, max_new_tokens=24, n=3,
                                        stop={"ignore_eos": True})
        assert [ids_of(response, i) for i in range(3)] == [greedy] * 3


class TestWhichIds:
    def ask(self, server, count=24, **sampling):
        return ids_of(server.generate(prompt=PROMPT, max_new_tokens=count, sampling=sampling,
                                      stop={"ignore_eos": True}))

    def test_allowed(self, tiny_server):
        allowed = {50, 60, 70, 80}
        assert set(self.ask(tiny_server, allowed_token_ids=allowed)) <= allowed
        assert set(self.ask(tiny_server, allowed_token_ids=allowed, temperature=2.0)) <= allowed

    def test_banned(self, tiny_server, greedy):
        answer = self.ask(tiny_server, banned_token_ids=[greedy[0]])
        assert greedy[0] not in answer
        allowed = [50, 60]
        assert set(self.ask(tiny_server, allowed_token_ids=allowed, banned_token_ids=[50])) == {60}

    def test_bias(self, tiny_server):
        assert set(self.ask(tiny_server, logit_bias={123: 100.0})) == {123}
        allowed = [50, 60]
        assert set(self.ask(tiny_server, allowed_token_ids=allowed,
                            logit_bias={50: -100.0})) == {60}

    def test_bias_does_not_change_logprobs(self, tiny_server, greedy):
        plain = tiny_server.generate(prompt=PROMPT, max_new_tokens=1, logprobs={"top": 1})
        biased = tiny_server.generate(prompt=PROMPT, max_new_tokens=1, logprobs={"top": 1},
                                      sampling={"logit_bias": {123: 100.0}})
        assert ids_of(biased) == [123]
        token = biased.completions[0].logprobs[0]
        assert token.rank > 1
        assert token.top[0].token_id == greedy[0]
        assert token.top == plain.completions[0].logprobs[0].top

    def test_frequency_penalty_spreads(self, tiny_server):
        # Greedy over four ids: a penalty that outweighs all logits makes them take turns.
        allowed = [50, 60, 70, 80]
        counts = collections.Counter(self.ask(tiny_server, allowed_token_ids=allowed,
                                              frequency_penalty=100.0))
        assert set(counts.values()) == {6}

    def test_presence_penalty_is_once_a_token(self, tiny_server):
        allowed = [50, 60, 70, 80]
        answer = self.ask(tiny_server, allowed_token_ids=allowed, presence_penalty=100.0)
        assert set(answer[:4]) == set(allowed)
        # From then on all carry the same penalty, which changes nothing.
        negative = self.ask(tiny_server, allowed_token_ids=allowed, presence_penalty=-100.0)
        assert len(set(negative)) == 1

    def test_presence_penalty_leaves_the_prompt_alone(self, tiny_server):
        ids = tiny_server.tokenize(PROMPT) + [50]
        response = tiny_server.generate(prompt_token_ids={"ids": ids}, max_new_tokens=1, sampling={
            "presence_penalty": 100.0, "logit_bias": {50: 90.0}})
        assert ids_of(response) == [50]

    def test_repetition_penalty_covers_the_prompt(self, tiny_server):
        ids = tiny_server.tokenize(PROMPT) + [50]
        sampling = {"allowed_token_ids": [50, 60], "logit_bias": {50: 20.0, 60: 15.0}}
        plain = tiny_server.generate(prompt_token_ids={"ids": ids}, max_new_tokens=1,
                                     sampling=sampling)
        assert ids_of(plain) == [50]
        penalised = tiny_server.generate(prompt_token_ids={"ids": ids}, max_new_tokens=1,
                                         sampling={**sampling, "repetition_penalty": 100.0})
        assert ids_of(penalised) == [60]

    def test_no_repeated_ngram(self, tiny_server):
        answer = self.ask(tiny_server, 40, no_repeat_ngram_size=2,
                          allowed_token_ids=list(range(50, 60)))
        pairs = list(zip(answer, answer[1:]))
        assert len(pairs) == len(set(pairs))
        once = self.ask(tiny_server, 10, no_repeat_ngram_size=1,
                        allowed_token_ids=list(range(50, 60)))
        assert sorted(once) == list(range(50, 60))

    def test_a_filter_that_leaves_nothing_is_skipped(self, tiny_server):
        # After both have been said, no id is left by the n-gram rule.
        answer = self.ask(tiny_server, 6, no_repeat_ngram_size=1, allowed_token_ids=[50, 60])
        assert set(answer) == {50, 60} and len(answer) == 6
