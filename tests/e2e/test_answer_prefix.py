"""answer_prefix: the answer starts with a text that was given."""
import pytest

from harness import ANSWER, QUESTION, Collected, run_cli
from stubs import pb



def ask(server, **request):
    """The unary answer; the stream's is the same."""
    request["sampling"] = {"seed": 1, **request.get("sampling", {})}
    response = server.generate(**request)
    Collected(server.stream(**request)).assert_equals(response)
    return response


def chat(*contents):
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": role, "content": content}
                         for role, content in zip(roles, contents)]}


@pytest.mark.parametrize("prompt, prefix", [
    ("The wi", "nd from"), ("The wind", " from the"), ("Count:", " 1"), ("The", "\n\u00e9t\u00e9")])
def test_a_prompt_goes_on(tiny_server, prompt, prefix):
    response = ask(tiny_server, prompt=prompt, answer_prefix=prefix, max_new_tokens=12,
                   stop={"ignore_eos": True})
    whole = tiny_server.generate(prompt=prompt + prefix, max_new_tokens=12,
                                 stop={"ignore_eos": True})
    assert response.completions[0].text == prefix + whole.completions[0].text
    assert response.completions[0].token_ids == whole.completions[0].token_ids
    assert response.usage.prompt_tokens == whole.usage.prompt_tokens
    assert response.usage.completion_tokens == 12


def test_every_sequence_starts_with_it(tiny_server):
    response = ask(tiny_server, prompt="The wind", answer_prefix=" from", n=3, max_new_tokens=6,
                   sampling={"temperature": 1.0}, stop={"ignore_eos": True})
    assert len({completion.text for completion in response.completions}) > 1
    assert all(completion.text.startswith(" from") for completion in response.completions)


def test_it_comes_with_the_first_event(tiny_server):
    first = next(iter(tiny_server.stream(prompt="The wind", answer_prefix=" from the", n=1,
                                         max_new_tokens=4, stop={"ignore_eos": True})))
    assert first.text.startswith(" from the")


def test_its_logprobs_are_the_prompts(tiny_server):
    response = ask(tiny_server, prompt="The wind", answer_prefix=" from the", max_new_tokens=0,
                   logprobs={"prompt": True})
    ids = tiny_server.tokenize("The wind from the")
    assert [token.token_id for token in response.prompt_logprobs[1:]] == ids[1:]
    completion = response.completions[0]
    assert (completion.text, list(completion.token_ids)) == (" from the", [])
    assert completion.finish_reason == pb.FINISH_REASON_LENGTH


def test_a_chats_answer(smollm2_server):
    for cut in (3, 14, 20, len(ANSWER) - 1):
        response = ask(smollm2_server, chat=chat(QUESTION), answer_prefix=ANSWER[:cut],
                       max_new_tokens=32)
        assert response.completions[0].text == ANSWER, cut


def test_a_stop_string_over_the_joint(smollm2_server):
    response = ask(smollm2_server, chat=chat(QUESTION), answer_prefix="The capital of Japan",
                   max_new_tokens=32, stop={"strings": ["Japan is", "The"]})
    completion = response.completions[0]
    assert (completion.text, completion.stop_reason) == ("The capital of ", "Japan is")


def test_what_is_written_there_is_text(smollm2_server):
    plain = smollm2_server.generate(chat=chat(QUESTION), max_new_tokens=1)
    forged = smollm2_server.generate(chat=chat(QUESTION), answer_prefix="<|im_end|>",
                                     max_new_tokens=1)
    assert forged.usage.prompt_tokens > plain.usage.prompt_tokens + 1
    assert forged.completions[0].text.startswith("<|im_end|>")


def test_generate(smollm2_server):
    result = run_cli("generate", "--address", smollm2_server.address, "--chat",
                     "--answer-prefix", ANSWER[:14], QUESTION)
    assert (result.returncode, result.stdout) == (0, ANSWER + "\n"), result.stderr
