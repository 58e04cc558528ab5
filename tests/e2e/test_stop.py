"""What ends an answer, and what of it is shown."""
import pytest

from harness import Collected
from stubs import pb
from tiny_model import END_ID

STOP = pb.FINISH_REASON_STOP
LENGTH = pb.FINISH_REASON_LENGTH


@pytest.fixture(scope="module")
def story(smollm2_server):
    """A greedy answer that the stop strings here are cut out of."""
    request = {"prompt": "Once upon a time", "max_new_tokens": 40, "stop": {"ignore_eos": True}}
    completion = smollm2_server.generate(**request).completions[0]
    assert len(completion.text) > 60
    return request, completion.text, list(completion.token_ids)


def ask(server, request, **changes):
    """The answer, which is the same streamed."""
    request = {**request, **changes}
    response = server.generate(**request)
    Collected(server.stream(**request)).assert_equals(response)
    return response.completions[0]


def assert_stopped_before(server, completion, text, stop_string):
    """`text` is cut right before stop_string, and the ids end with the one that completed it."""
    assert completion.text == text[:text.index(stop_string)]
    assert (completion.finish_reason, completion.stop_reason) == (STOP, stop_string)
    whole = server.detokenize(completion.token_ids)
    assert stop_string in whole
    assert stop_string not in server.detokenize(completion.token_ids[:-1])


@pytest.mark.parametrize("cut", [slice(20, 24), slice(11, 13), slice(30, 45), slice(25, 26)])
def test_stop_string(smollm2_server, story, cut):
    request, text, _ = story
    stop_string = text[cut]
    completion = ask(smollm2_server, request, stop={"strings": [stop_string], "ignore_eos": True})
    assert_stopped_before(smollm2_server, completion, text, stop_string)


def test_first_of_several_stop_strings(smollm2_server, story):
    request, text, _ = story
    early, late = text[15:20], text[40:46]
    completion = ask(smollm2_server, request,
                     stop={"strings": [late, "never said", early], "ignore_eos": True})
    first = min((early, late), key=text.index)
    assert_stopped_before(smollm2_server, completion, text, first)


def test_stop_string_may_be_shown(smollm2_server, story):
    request, text, _ = story
    stop_string = text[20:26]
    completion = ask(smollm2_server, request, stop={
        "strings": [stop_string], "ignore_eos": True, "include_stop_in_output": True})
    assert completion.text == text[:text.index(stop_string) + len(stop_string)]
    assert completion.stop_reason == stop_string


def test_unfinished_stop_string_is_given_in_the_end(smollm2_server, story):
    request, text, _ = story
    completion = ask(smollm2_server, request,
                     stop={"strings": [text[-5:] + "\x01"], "ignore_eos": True})
    assert completion.text == text
    assert (completion.finish_reason, completion.stop_reason) == (LENGTH, "")


def test_stop_string_never_leaks(smollm2_server, story):
    request, text, _ = story
    stop_string = text[25:40]
    request = {**request, "stop": {"strings": [stop_string], "ignore_eos": True}}
    shown = ""
    for event in smollm2_server.stream(**request):
        shown += event.text
        assert text[:text.index(stop_string)].startswith(shown)


def test_stop_token(smollm2_server, story):
    request, text, ids = story
    stop_id = ids[9]
    first = ids.index(stop_id)
    completion = ask(smollm2_server, request, stop={"token_ids": [stop_id], "ignore_eos": True})
    assert list(completion.token_ids) == ids[:first + 1]
    assert completion.text == smollm2_server.detokenize(ids[:first])
    assert (completion.finish_reason, completion.stop_reason) == (STOP, str(stop_id))
    shown = ask(smollm2_server, request, stop={"token_ids": [stop_id], "ignore_eos": True,
                                               "include_stop_in_output": True})
    assert list(shown.token_ids) == ids[:first + 1]


def test_stop_strings_are_looked_for_after_min_new_tokens(smollm2_server, story):
    request, text, ids = story
    stop_string = text[4:7]
    completion = ask(smollm2_server, request, sampling={"min_new_tokens": 20},
                     stop={"strings": [stop_string], "ignore_eos": True})
    assert len(completion.token_ids) >= 20


def test_end_token(smollm2_server):
    question = {"role": "user", "content": "What is the capital of Japan?"}
    request = {"chat": {"messages": [question]}, "max_new_tokens": 64}
    completion = ask(smollm2_server, request)
    assert completion.token_ids[-1] == 2
    assert completion.text == "The capital of Japan is Tokyo."
    assert (completion.finish_reason, completion.stop_reason) == (STOP, "")
    on = ask(smollm2_server, request, stop={"ignore_eos": True})
    assert list(on.token_ids[:len(completion.token_ids)]) == list(completion.token_ids)
    assert (len(on.token_ids), on.finish_reason) == (64, LENGTH)


class TestMinNewTokens:
    PROMPT = {"prompt": "The wind", "max_new_tokens": 12}

    def test_it_bars_the_end_token(self, tiny_server):
        bias = {END_ID: 100.0}
        at_once = ask(tiny_server, self.PROMPT, sampling={"logit_bias": bias})
        assert (list(at_once.token_ids), at_once.text) == ([END_ID], "")
        assert at_once.finish_reason == STOP
        later = ask(tiny_server, self.PROMPT,
                    sampling={"logit_bias": bias, "min_new_tokens": 5})
        assert len(later.token_ids) == 6
        assert END_ID not in later.token_ids[:5] and later.token_ids[5] == END_ID

    def test_it_bars_stop_tokens(self, tiny_server):
        completion = ask(tiny_server, self.PROMPT, stop={"token_ids": [50]}, sampling={
            "logit_bias": {50: 100.0}, "min_new_tokens": 3})
        assert len(completion.token_ids) == 4
        assert 50 not in completion.token_ids[:3]
        assert completion.stop_reason == "50"

    def test_it_gives_way_where_no_id_would_be_left(self, tiny_server):
        completion = ask(tiny_server, self.PROMPT, sampling={
            "allowed_token_ids": [END_ID], "min_new_tokens": 3})
        assert END_ID in completion.token_ids


def test_special_tokens_are_not_shown(tiny_server):
    # Id 3 is marked special; it ends nothing.
    completion = ask(tiny_server, {"prompt": "The wind", "max_new_tokens": 3},
                     sampling={"allowed_token_ids": [3]})
    assert (list(completion.token_ids), completion.text) == ([3, 3, 3], "")
