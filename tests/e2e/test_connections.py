"""Connections: readers that take nothing, networks that swallow a client, sockets that say nothing,
and more of them than there are files.
"""
import os
import resource
import socket
import threading
import time

import grpc
import pytest

from harness import Server, error_of, eventually
from stubs import pb, rpc

STALL = 2  # seconds: write_stall_timeout


def request(**fields):
    return pb.GenerateRequest(stop={"ignore_eos": True}, **fields)


class Proxy:
    """Passes a connection on to a server until it is frozen: then it is silent, and stays open."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.frozen = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets = []
        threading.Thread(target=self._accept, args=(host, int(port)), daemon=True).start()

    def _accept(self, host, port):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection((host, port))
            self.sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source, sink):
        try:
            while data := source.recv(65536):
                if self.frozen.is_set():
                    return
                sink.sendall(data)
        except OSError:
            pass

    def close(self):
        self.listener.close()
        for one in self.sockets:
            one.close()


@pytest.fixture(scope="module")
def impatient(tiny):
    with Server(tiny, "--max-batch-size", 8, "--max-length", 8192,
                "--write-stall-timeout", f"{STALL}s") as server:
        yield server


def test_half_open_connections_are_let_go(impatient):
    """A running stream and one that waits, behind a network that has swallowed their clients."""
    proxy = Proxy(impatient.address)
    channel = grpc.insecure_channel(proxy.address)
    stub = rpc.InferenceStub(channel)
    # Seven take all lanes but one for as long as this takes: the eighth runs, the ninth waits.
    busy = [impatient.stream(prompt="Busy", max_new_tokens=8000, stop={"ignore_eos": True})
            for _ in range(7)]
    for call in busy:
        next(call)
    running = stub.GenerateStream(request(prompt="Once", max_new_tokens=8000))
    next(running)
    waiting = stub.GenerateStream(request(prompt="Once", max_new_tokens=8000))
    eventually(lambda: impatient.metrics()("vllm:num_requests_waiting") == 1)
    before = impatient.metrics()("vllm:num_requests_running")
    assert before == 8
    proxy.frozen.set()
    frozen = time.monotonic()

    def gone():
        metrics = impatient.metrics()
        return (metrics("vllm:num_requests_running") == 7
                and metrics("vllm:num_requests_waiting") == 0)
    eventually(gone, timeout=4 * STALL, what="the end of the calls of a silent client")
    assert time.monotonic() - frozen < 4 * STALL
    for call in busy:
        call.cancel()
    eventually(impatient.idle)
    proxy.close()
    running.cancel()
    waiting.cancel()
    channel.close()


def test_connections_that_say_nothing(impatient):
    """200 of them hinder nobody, and are closed."""
    host, port = impatient.address.rsplit(":", 1)
    silent = [socket.create_connection((host, int(port))) for _ in range(200)]
    assert impatient.generate(prompt="Hello", max_new_tokens=3).usage.completion_tokens <= 3
    end = time.monotonic() + 4 * STALL
    for one in silent:
        one.settimeout(max(0.1, end - time.monotonic()))
        try:
            while one.recv(4096):
                pass
        except ConnectionResetError:
            pass
        one.close()
    assert time.monotonic() < end


def test_more_connections_than_files(tiny):
    """gRPC stops listening for good where no file is left. Then what runs ends well, and the
    process with a status that has it started again.
    """
    server = Server(tiny, "--max-batch-size", 2, "--max-length", 4096)
    running = server.stream(prompt="Once", max_new_tokens=1500, stop={"ignore_eos": True})
    got = list(next(running).token_ids)
    files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (files + 20, files + 20))
    host, port = server.address.rsplit(":", 1)
    flood = [socket.create_connection((host, int(port))) for _ in range(40)]
    for event in running:
        got += event.token_ids
    assert len(got) == 1500
    server.channel.close()
    assert server.process.wait(20) == 1
    assert "no connection can come in any more" in server.stderr()
    for one in flood:
        one.close()
    server.stop()


def test_readers_that_take_nothing_are_ended(impatient):
    """Their output is merged while they may still come back; others are not slowed."""
    def count():
        return impatient.metrics()("sirocco_requests_total", method="GenerateStream",
                                   code="CANCELLED")
    before = count()
    channels = [impatient.new_channel(("grpc.http2.lookahead_bytes", 1024),
                                      ("grpc.http2.bdp_probe", 0)) for _ in range(4)]
    fields = {"prompt": "The wind", "max_new_tokens": 4000, "logprobs": {"top": 20}}
    calls = [rpc.InferenceStub(channel).GenerateStream(request(**fields)) for channel in channels]
    for call in calls:
        next(call)  # and then nothing is read
    started = time.monotonic()
    for _ in range(5):
        impatient.generate(prompt="Quick", max_new_tokens=16)
    assert time.monotonic() - started < 10
    eventually(lambda: count() == before + 4, timeout=30, what="the end of the stalled calls")
    eventually(impatient.idle)
    for call, channel in zip(calls, channels):
        assert error_of(lambda: list(call)).code() == grpc.StatusCode.CANCELLED
        channel.close()
