"""Who is served when: deadlines that cannot be met, and fair shares of clients."""
import grpc
import pytest

from harness import Server, details_of, error_of, eventually
from stubs import pb


def request(prompt, max_new_tokens=1, start=100):
    """A prompt of so many tokens; those of different starts have nothing in common."""
    ids = [100 + (start * 7919 + i * 31) % 1800 for i in range(prompt)]
    return {"prompt_token_ids": {"ids": ids}, "max_new_tokens": max_new_tokens,
            "stop": {"ignore_eos": True}}


def test_a_deadline_that_cannot_be_met_is_refused_at_once(smollm2):
    # Small steps: between them the engine looks at what has come.
    with Server(smollm2, "--max-batch-size", 4, "--max-length", 2048,
                "--prefill-chunk-size", 64) as server:
        server.generate(**request(1500, start=1))  # tells how fast prompts are
        waiting = [server.stream(timeout=900, **request(2000, start=2 + i)) for i in range(16)]
        eventually(lambda: server.metrics()("sirocco_queue_tokens") > 0)
        error = error_of(lambda: server.generate(timeout=4, **request(1000, start=50)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the deadline cannot be met" in error.details()
        assert details_of(error)["RetryInfo"].retry_delay.ToNanoseconds() > 0
        assert server.metrics()("sirocco_rejected_total", reason="deadline") == 1
        for call in waiting:
            call.cancel()
        eventually(server.idle, timeout=30)
        assert server.generate(timeout=30, **request(20, start=51)).usage.completion_tokens == 1


def test_a_flood_does_not_keep_another_client_waiting(tiny):
    with Server(tiny, "--max-batch-size", 1, "--max-length", 4096) as server:
        def ask(client, **asked):
            return server.stub.Generate.future(pb.GenerateRequest(**asked), timeout=60,
                                               metadata=[("sirocco-client", client)])

        def ended():
            return sum(call.done() for call in flood)

        # Long enough that a client which is held up for a second still meets most of them.
        flood = [ask("flood", **request(400, 2000, start=i)) for i in range(48)]
        eventually(lambda: server.metrics()("sirocco_queue_requests") >= 20)
        before = ended()
        other = ask("other", **request(100, 20, start=99))
        other.result()
        # One that it met, and what ended while its call and its answer were on their way.
        assert ended() - before < 16
        assert len(flood) - ended() > 5, "the flood was over: nothing kept anybody waiting"
        for call in flood:
            call.result()


def test_weights(tiny):
    with Server(tiny, "--max-batch-size", 1, "--client-weights", "heavy=4",
                "--max-length", 1024) as server:
        order = []

        def ask(client, start):
            call = server.stub.Generate.future(
                pb.GenerateRequest(**request(200, 300, start=start)), timeout=60,
                metadata=[("sirocco-client", client)])
            call.add_done_callback(lambda _: order.append(client))
            return call

        calls = [ask(client, 10 * i + len(client)) for i in range(30)
                 for client in ("heavy", "light")]
        for call in calls:
            call.result()
        # Four to one while both wait, 16 of 20. Who came first began before the others were there.
        assert order[5:25].count("heavy") >= 14, order


def test_the_name_of_a_client_is_bounded(tiny_server):
    def ask(name):
        return tiny_server.stub.Generate(pb.GenerateRequest(**request(5)), timeout=60,
                                         metadata=[("sirocco-client", name)])
    assert ask("x" * 256).usage.completion_tokens == 1
    error = error_of(lambda: ask("x" * 257))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "sirocco-client" in error.details() and "256" in error.details()


@pytest.mark.parametrize("flood", [False, True])
def test_a_long_prompt_beside_a_stream_ends_as_alone(tiny, flood):
    """What is computed does not depend on how many prompt tokens a step takes."""
    with Server(tiny, "--max-batch-size", 4, "--max-length", 4096,
                "--itl-factor", "1" if flood else "1000") as server:
        expected = server.generate(**request(2000, 5, start=7))
        assert expected.usage.cached_prompt_tokens == 0
        stream = server.stream(**request(5, 2000, start=8))
        next(stream)
        answer = server.generate(cache_salt="again", **request(2000, 5, start=7))
        stream.cancel()
        assert answer.completions == expected.completions
