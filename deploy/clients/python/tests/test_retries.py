"""What is tried again, when, and what is not; from threads and from asyncio alike."""
from __future__ import annotations

import asyncio
import time

import pytest
from conftest import Refusal
from grpc import StatusCode

from sirocco_client import AsyncClient, Client, Error, RetryPolicy

BUSY = StatusCode.RESOURCE_EXHAUSTED
GONE = StatusCode.UNAVAILABLE


class Sync:
    """A call of each kind, its outcome a text."""

    def __init__(self, address, **options):
        self.address, self.options = address, options

    def generate(self, prompt="x", **options):
        with Client(self.address, **self.options) as client:
            return client.generate(prompt, **options).completions[0].text

    def stream(self, prompt="x", take=None, **options):
        with Client(self.address, **self.options) as client, \
                client.stream(prompt, **options) as events:
            texts = []
            for event in events:
                texts.append(event.text)
                if len(texts) == take:
                    break
            return "".join(texts)

    def tokenize(self, text):
        with Client(self.address, **self.options) as client:
            return client.tokenize(text)


class Async(Sync):
    def generate(self, prompt="x", **options):
        async def call():
            async with AsyncClient(self.address, **self.options) as client:
                return (await client.generate(prompt, **options)).completions[0].text
        return asyncio.run(call())

    def stream(self, prompt="x", take=None, **options):
        async def call():
            async with AsyncClient(self.address, **self.options) as client, \
                    client.stream(prompt, **options) as events:
                texts = []
                async for event in events:
                    texts.append(event.text)
                    if len(texts) == take:
                        break
                return "".join(texts)
        return asyncio.run(call())

    def tokenize(self, text):
        async def call():
            async with AsyncClient(self.address, **self.options) as client:
                return await client.tokenize(text)
        return asyncio.run(call())


pytestmark = pytest.mark.parametrize("kind", [Sync, Async])


def pauses(scripted):
    times = [moment for moment, _, _ in scripted.tries]
    return [later - earlier for earlier, later in zip(times, times[1:])]


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_the_server_says_when(kind, scripted, method):
    scripted.script = [Refusal(BUSY, 0.3), Refusal(GONE, 0.1), ["a", "b"]]
    assert getattr(kind(scripted.address), method)() == "ab"
    first, second = pauses(scripted)
    assert 0.3 <= first < 0.3 * 1.25 + 0.2
    assert 0.1 <= second < 0.1 * 1.25 + 0.2


def test_a_server_that_leaves_is_tried_after_growing_pauses(kind, scripted):
    scripted.script = [Refusal(GONE), Refusal(StatusCode.CANCELLED), Refusal(GONE), ["a"]]
    assert kind(scripted.address, retries=RetryPolicy(first_pause=0.1)).generate() == "a"
    for pause, longest in zip(pauses(scripted), (0.1, 0.2, 0.4)):
        assert longest / 2 <= pause < longest + 0.2


@pytest.mark.parametrize("refusal", [
    Refusal(BUSY), Refusal(StatusCode.INVALID_ARGUMENT), Refusal(StatusCode.INTERNAL)])
def test_what_will_not_get_better_is_not_tried_again(kind, scripted, refusal):
    scripted.script = [refusal]
    for method in ("generate", "stream"):
        scripted.script = [refusal]
        with pytest.raises(Error) as raised:
            getattr(kind(scripted.address), method)()
        assert raised.value.code == refusal.code
    assert len(scripted.tries) == 2


def test_no_more_tries_than_allowed(kind, scripted):
    scripted.script = [Refusal(BUSY, 0.01)] * 9
    with pytest.raises(Error) as raised:
        kind(scripted.address, retries=RetryPolicy(attempts=3)).stream()
    assert (raised.value.code, raised.value.retry_after) == (BUSY, 0.01)
    assert len(scripted.tries) == 3


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_no_pause_beyond_the_timeout(kind, scripted, method):
    scripted.script = [Refusal(BUSY, 5.0)] * 2
    started = time.monotonic()
    with pytest.raises(Error) as raised:
        getattr(kind(scripted.address), method)(timeout=1.0)
    assert raised.value.code == BUSY
    assert time.monotonic() - started < 0.9


def test_a_stream_that_has_begun_is_not_tried_again(kind, scripted):
    scripted.script = [["a", Refusal(GONE)], ["never"]]
    with pytest.raises(Error) as raised:
        kind(scripted.address).stream()
    assert raised.value.code == GONE
    assert len(scripted.tries) == 1


def test_leaving_a_stream_cancels_it(kind, scripted):
    scripted.script = [["a", "wait"]]
    assert kind(scripted.address).stream(take=1) == "a"
    deadline = time.monotonic() + 5
    while scripted.cancelled == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scripted.cancelled == 1


def test_a_deadline(kind, scripted):
    scripted.script = [["a", "wait"]]
    with pytest.raises(Error) as raised:
        kind(scripted.address).stream(timeout=0.3)
    assert raised.value.code == StatusCode.DEADLINE_EXCEEDED


def test_violations_are_told(kind, scripted):
    scripted.script = [Refusal(StatusCode.INVALID_ARGUMENT, None, [("n", "at most 8")])]
    with pytest.raises(Error) as raised:
        kind(scripted.address).generate()
    assert raised.value.violations == {"n": "at most 8"}


def test_a_server_that_comes_later(kind):
    """No one listens at first: tried again until somebody does, or time is over."""
    with pytest.raises(Error) as raised:
        kind("127.0.0.1:1", retries=RetryPolicy(attempts=3, first_pause=0.01)).generate(timeout=5)
    assert raised.value.code == GONE


def test_other_methods_are_tried_again_too(kind, scripted):
    scripted.script = [Refusal(GONE, 0.01), []]
    assert kind(scripted.address).tokenize("The wind") == [3, 4]


def test_metadata(kind, scripted):
    scripted.script = [["a"], ["a"], ["a"]]
    kind(scripted.address, name="team-a").generate("The wind")
    kind(scripted.address).stream("The wind")
    kind(scripted.address).generate("The wind", routing_key="mine")
    sent = [metadata for _, _, metadata in scripted.tries]
    assert sent[0]["sirocco-client"] == "team-a" and "sirocco-client" not in sent[1]
    assert sent[0]["sirocco-prefix"] == sent[1]["sirocco-prefix"]
    assert sent[2]["sirocco-prefix"] == "mine"
