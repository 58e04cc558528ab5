"""Cancelling, deadlines, overload, draining: what a call's end frees and what a client is told."""
import signal
import socket
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2

from harness import Server, details_of, error_of, eventually, free_port
from stubs import pb, rpc

# A stream that goes on for longer than any test here: the real model takes its time.
LONG = {"prompt": "Once upon a time", "max_new_tokens": 1900, "stop": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def server(smollm2):
    """One sequence at a time, and one that waits."""
    with Server(smollm2, "--max-batch-size", 1, "--max-queue-size", 1,
                "--max-length", 2048) as server:
        yield server


def assert_free(server):
    eventually(server.idle, what="the end of all sequences")


def started_stream(server, **changes):
    """A long stream whose first token has come."""
    call = server.stream(**{**LONG, **changes})
    next(call)
    return call


class TestCancel:
    def test_a_running_stream(self, server):
        before = server.metrics()
        call = started_stream(server)
        assert server.metrics()("sirocco_kv_blocks", state="used") > 0
        assert server.metrics()("vllm:num_requests_running") == 1
        call.cancel()
        assert_free(server)
        eventually(lambda: server.metrics()("sirocco_cancel_to_free_seconds_count")
                   == before("sirocco_cancel_to_free_seconds_count") + 1)

        def cancelled(metrics):
            labels = {"method": "GenerateStream", "code": "CANCELLED"}
            name = "sirocco_requests_total"
            return metrics(name, **labels) if metrics.has(name, **labels) else 0
        eventually(lambda: cancelled(server.metrics()) == cancelled(before) + 1)

    def test_a_unary_call(self, server):
        call = server.stub.Generate.future(pb.GenerateRequest(**LONG))
        eventually(lambda: server.metrics()("vllm:num_requests_running") == 1)
        call.cancel()
        assert_free(server)

    def test_one_that_waits(self, server):
        running = started_stream(server)
        waiting = server.stream(**LONG)
        eventually(lambda: server.metrics()("vllm:num_requests_waiting") == 1)
        waiting.cancel()
        eventually(lambda: server.metrics()("vllm:num_requests_waiting") == 0)
        assert next(running).token_ids  # the other goes on
        running.cancel()
        assert_free(server)

    def test_a_connection_that_breaks(self, server):
        channel = server.new_channel()
        call = rpc.InferenceStub(channel).GenerateStream(pb.GenerateRequest(**LONG))
        next(call)
        channel.close()
        assert_free(server)


class TestDeadline:
    def test_while_it_runs(self, server):
        def exceeded(metrics):
            return metrics("sirocco_deadline_exceeded_total")
        before = exceeded(server.metrics())
        error = error_of(lambda: list(server.stream(**LONG, timeout=1.0)))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert_free(server)
        eventually(lambda: exceeded(server.metrics()) == before + 1)

    def test_while_it_waits(self, server):
        running = started_stream(server)
        error = error_of(lambda: server.generate(**LONG, timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: server.metrics()("vllm:num_requests_waiting") == 0)
        running.cancel()
        assert_free(server)

    def test_one_that_is_met(self, server):
        response = server.generate(prompt="Hello", max_new_tokens=2, timeout=30)
        assert response.completions[0].token_ids


class TestOverload:
    def test_a_full_queue_refuses_at_once(self, server):
        def rejected():
            return server.metrics()("sirocco_rejected_total", reason="queue_full")
        before = rejected()
        running = started_stream(server)
        waiting = server.stream(**LONG)
        eventually(lambda: server.metrics()("sirocco_queue_requests") == 1)
        started = time.monotonic()
        for call in (lambda: server.generate(**LONG), lambda: list(server.stream(**LONG))):
            error = error_of(call)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error)["RetryInfo"].retry_delay.ToNanoseconds() > 0
        assert time.monotonic() - started < 2
        assert rejected() == before + 2
        # Those that were let in are not disturbed.
        assert next(running).token_ids
        running.cancel()
        assert next(waiting).token_ids
        waiting.cancel()
        assert_free(server)

    def test_queued_tokens_are_bounded_too(self, smollm2):
        with Server(smollm2, "--max-batch-size", 1, "--max-queue-tokens", 20,
                    "--max-length", 2048) as server:
            running = started_stream(server)
            waiting = server.stream(prompt_token_ids={"ids": [50] * 15}, max_new_tokens=4)
            eventually(lambda: server.metrics()("sirocco_queue_tokens") == 15)
            error = error_of(lambda: server.generate(prompt_token_ids={"ids": [50] * 10},
                                                     max_new_tokens=4))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "RetryInfo" in details_of(error)
            assert server.metrics()("sirocco_rejected_total", reason="queue_tokens") == 1
            running.cancel()
            assert sum(len(event.token_ids) for event in waiting) <= 4

    def test_n_is_one_request_in_the_queue(self, smollm2):
        with Server(smollm2, "--max-batch-size", 2, "--max-queue-size", 1,
                    "--max-length", 512) as server:
            response = server.generate(prompt="Hello", n=2, max_new_tokens=4)
            assert len(response.completions) == 2


class TestDrain:
    def watched(self, smollm2):
        server = Server(smollm2, "--max-batch-size", 2, "--max-length", 1024)
        watch = server.health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        return server, watch

    def test_sigterm_lets_streams_finish(self, smollm2):
        server, watch = self.watched(smollm2)
        other = rpc.InferenceStub(server.new_channel())
        other.GetModel(pb.GetModelRequest())  # connected
        call = server.stream(prompt="Once upon a time", max_new_tokens=120,
                             stop={"ignore_eos": True})
        got = list(next(call).token_ids)
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        error = error_of(lambda: other.Generate(pb.GenerateRequest(prompt="x", max_new_tokens=1),
                                                timeout=10))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert server.check_health("liveness") == "SERVING"
        assert server.check_health("sirocco.v1.Inference") == "NOT_SERVING"
        assert server.http_status("/readyz") == 503
        assert server.http_status("/healthz") == 200
        assert server.metrics()("sirocco_rejected_total", reason="draining") >= 1
        watch.cancel()
        for event in call:
            got += event.token_ids
        assert len(got) == 120
        assert server.process.wait(30) == 0

    def test_sigint_drains_too(self, smollm2):
        server, watch = self.watched(smollm2)
        watch.cancel()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0

    def test_drain_timeout_ends_what_is_left(self, smollm2):
        server = Server(smollm2, "--max-batch-size", 2, "--max-length", 2048,
                        "--drain-timeout", "1s")
        call = server.stream(**LONG)
        next(call)
        started = time.monotonic()
        server.terminate()
        error = error_of(lambda: list(call))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(30) == 0
        assert 0.9 < time.monotonic() - started < 15

    def test_idle_server_stops_at_once(self, bare):
        server = Server(bare, "--max-batch-size", 1)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5

    def test_an_idle_client_does_not_hold_up_the_end(self, bare):
        server = Server(bare, "--max-batch-size", 1)
        server.generate(prompt_token_ids={"ids": [5]}, max_new_tokens=1)
        time.sleep(0.5)  # the client does not look at its connection any more
        started = time.monotonic()
        server.terminate()
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 1  # 0.13 s; two, where the connection was waited for


def accepts(address):
    try:
        socket.create_connection(address.split(":")).close()
        return True
    except OSError:
        return False


def test_it_listens_before_it_loads(smollm2):
    """While loading: alive, not ready, calls UNAVAILABLE."""
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    server = Server(smollm2, "--max-length", 2048, listen=addresses, wait=False)
    for address in addresses:
        eventually(lambda: accepts(address), what=f"listening on {address}")
    server.connect(*addresses)
    assert server.check_health("liveness") == "SERVING"
    assert server.check_health("") == "NOT_SERVING"
    error = error_of(lambda: server.generate(prompt="x", max_new_tokens=1))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error_of(server.get_model).code() == grpc.StatusCode.UNAVAILABLE
    assert (server.http_status("/readyz"), server.http_status("/healthz")) == (503, 200)
    server.wait_ready()
    assert (server.check_health(""), server.http_status("/readyz")) == ("SERVING", 200)
    assert server.stop() == 0


def test_sigterm_while_loading(smollm2):
    server = Server(smollm2, wait=False)
    eventually(lambda: server.stderr() != "")
    assert server.stop() == 0
