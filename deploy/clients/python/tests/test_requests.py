"""Requests from Python values, and the key that brings prompts that begin alike together."""
import hashlib

import pytest
from sirocco.v1 import inference_pb2 as pb

from sirocco_client import make_request, prefix_key


def test_prompts_of_every_kind():
    assert make_request("Hi") == pb.GenerateRequest(prompt="Hi")
    assert make_request([1, 2]) == pb.GenerateRequest(prompt_token_ids={"ids": [1, 2]})
    assert make_request([("user", "Hi")]) == pb.GenerateRequest(
        chat={"messages": [{"role": "user", "content": "Hi"}]})


def test_options_have_their_places():
    request = make_request("Hi", max_new_tokens=3, temperature=0.5, seed=7, n=2, stop=["."],
                           min_new_tokens=1, model="m")
    assert request == pb.GenerateRequest(
        prompt="Hi", max_new_tokens=3, n=2, model="m", stop={"strings": ["."]},
        sampling={"temperature": 0.5, "seed": 7, "min_new_tokens": 1})


def test_a_request_is_copied_and_completed():
    whole = pb.GenerateRequest(prompt="Hi", sampling={"top_k": 5}, stop={"strings": ["a"]})
    assert make_request(whole, temperature=1, stop=["b"]) == pb.GenerateRequest(
        prompt="Hi", sampling={"top_k": 5, "temperature": 1}, stop={"strings": ["b"]})
    assert whole == pb.GenerateRequest(prompt="Hi", sampling={"top_k": 5}, stop={"strings": ["a"]})


@pytest.mark.parametrize("prompt, options", [
    (["a text", "another"], {}), ([("user",)], {}), ("Hi", {"max_tokens": 3}), ("Hi", {"n": "two"})])
def test_what_is_no_request(prompt, options):
    with pytest.raises(TypeError):
        make_request(prompt, **options)


def key(prompt):
    return prefix_key(make_request(prompt))


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def test_the_key_is_of_the_first_1024_bytes():
    assert key("Hi") == digest(b"Hi")
    assert key("a" * 5000) == key("a" * 1024 + "b") == digest(b"a" * 1024)
    assert key("\u00e9" * 5000) == digest("\u00e9".encode() * 512)
    assert key("a" * 1023 + "b") != key("a" * 1023 + "c")
    assert key([1, 2]) == digest(b"\1\0\0\0\2\0\0\0")
    assert key([7] * 256) == key([7] * 256 + [8])


def test_a_conversation_keeps_its_key():
    first = [("system", "Be brief."), ("user", "Hi")]
    later = [*first, ("assistant", "Hello."), ("user", "Why is it windy?")]
    assert key(first) == key(later) == digest(b"system\0Be brief.\0user\0Hi\0")
    assert key(first) != key([("system", "Be brief."), ("user", "Hey")])
    # Long instructions keep all conversations that share them together.
    instructions = ("system", "Be brief. " * 200)
    assert key([instructions, ("user", "Hi")]) == key([instructions, ("user", "Hey")])
