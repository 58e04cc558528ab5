"""HTTP/2 abuse, each kind for a bounded time: the server answers others meanwhile, bounds its memory,
and is as before afterwards.
"""
import os
import struct
import threading
import time

import grpc
import pytest

import http2
from harness import Server, eventually
from http2 import Connection, call_headers, frame
from stubs import pb, rpc

# Of each kind of abuse. Memory does not depend on it.
SECONDS = float(os.environ.get("SIROCCO_TEST_ABUSE_SECONDS", "1"))
ATTACKERS = 4  # connections at once
# Bytes that the server may hold more while it is abused, however long: mostly of the calls that it
# holds at most, 4352 by default, with as many fields as a call can bring.
GROWTH = 1 << 30
GENERATE = "/sirocco.v1.Inference/GenerateStream"
ASK = http2.message(pb.GenerateRequest(prompt="Once", max_new_tokens=4000,
                                       stop={"ignore_eos": True}).SerializeToString())


@pytest.fixture(scope="module")
def server(tiny):
    with Server(tiny, "--max-batch-size", 8, "--max-length", 4096) as server:
        yield server


def resident(server):
    with open(f"/proc/{server.process.pid}/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rapid_reset(connection, turn):
    """Calls that are cancelled as soon as they are made: as many as fit."""
    base = 1 + 2 * 200 * turn
    return connection.send(b"".join(
        frame(http2.HEADERS, http2.END_HEADERS, stream, call_headers(GENERATE)) +
        frame(http2.DATA, http2.END_STREAM, stream, ASK) +
        frame(http2.RST_STREAM, 0, stream, struct.pack(">I", http2.CANCEL))
        for stream in range(base, base + 2 * 200, 2)))


def pings(connection, turn):
    return connection.send(frame(http2.PING, payload=struct.pack(">Q", turn)) * 500)


def settings(connection, turn):
    size = struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, 65535 + turn % 2)
    return connection.send(frame(http2.SETTINGS, payload=size) * 500)


def window_updates(connection, _):
    return connection.send(frame(http2.WINDOW_UPDATE, payload=struct.pack(">I", 1)) * 1000)


def priorities(connection, turn):
    return connection.send(b"".join(
        frame(http2.PRIORITY, 0, 1 + 2 * i, struct.pack(">IB", 0, turn % 256))
        for i in range(500)))


def empty_data(connection, turn):
    """A call whose message never begins."""
    head = frame(http2.HEADERS, http2.END_HEADERS, 1, call_headers(GENERATE)) if turn == 0 else b""
    return connection.send(head + frame(http2.DATA, 0, 1) * 1000)


def endless_headers(connection, turn):
    """A header block that never ends, of fields that mean nothing."""
    head = frame(http2.HEADERS, 0, 1, call_headers(GENERATE)) if turn == 0 else b""
    return connection.send(head + frame(http2.CONTINUATION, 0, 1,
                                        http2.field("x-" + "y" * 100, "z" * 4000) * 3) * 8)


def endless_small_fields(connection, turn):
    head = frame(http2.HEADERS, 0, 1, call_headers(GENERATE)) if turn == 0 else b""
    return connection.send(head + frame(http2.CONTINUATION, 0, 1, http2.field("x", "y") * 400) * 8)


def endless_references(connection, turn):
    """A byte for each field."""
    enter = b"\x40" + http2.integer(1, 7) + b"x" + http2.integer(1, 7) + b"y"
    head = frame(http2.HEADERS, 0, 1, call_headers(GENERATE) + enter) if turn == 0 else b""
    return connection.send(head + frame(http2.CONTINUATION, 0, 1, b"\xbe" * 400) * 20)


def endless_field(connection, turn):
    """A field whose value has 2 GiB."""
    if turn == 0:
        name = b"\0" + http2.integer(1, 7) + b"x" + http2.integer(1 << 31, 7)
        return connection.send(frame(http2.HEADERS, 0, 1, call_headers(GENERATE) + name))
    return connection.send(frame(http2.CONTINUATION, 0, 1, b"z" * 16000) * 4)


def empty_continuations(connection, turn):
    head = frame(http2.HEADERS, 0, 1, call_headers(GENERATE)) if turn == 0 else b""
    return connection.send(head + frame(http2.CONTINUATION, 0, 1) * 1000)


def headers_in_pieces(connection, turn):
    """One call after the other with as many fields as can be brought, each a byte."""
    stream = 1 + 2 * turn
    enter = b"\x40" + http2.integer(1, 7) + b"x" + http2.integer(1, 7) + b"y"
    return connection.send(
        frame(http2.HEADERS, http2.END_STREAM, stream,
              call_headers(GENERATE) + enter + b"\xbe" * 460) +
        frame(http2.CONTINUATION, http2.END_HEADERS, stream, b"\xbe" * 115))


def large_headers(connection, turn):
    """One call after the other with more metadata than is taken."""
    stream = 1 + 2 * turn
    more = [(f"x-{i}", "y" * 1000) for i in range(14)]
    return connection.send(frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream,
                                 call_headers(GENERATE, *more)))


def table_bombs(connection, turn):
    """A field enters the table of headers once, and each call repeats it a thousand times."""
    stream = 1 + 2 * turn
    value = b"z" * 3000
    enter = b"\x40" + http2.integer(1, 7) + b"x" + http2.integer(len(value), 7) + value
    return connection.send(frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream,
                                 call_headers(GENERATE) + enter + b"\xbe" * 1000))


def garbage(connection, turn):
    return connection.send(os.urandom(4096))


ABUSES = [rapid_reset, pings, settings, window_updates, priorities, empty_data, endless_headers,
          endless_small_fields, endless_references, endless_field, empty_continuations,
          headers_in_pieces, large_headers, table_bombs, garbage]
# Those for which a connection is closed at once, with nothing kept; by the metric's label.
CLOSED = {abuse: "headers" for abuse in (endless_headers, endless_small_fields, endless_references,
                                         endless_field, empty_continuations)}
CLOSED_GROWTH = 64 << 20


class Attack:
    """The abuse by several connections, each made anew when it is closed, none of which reads what
    comes more than it must."""

    def __init__(self, address, abuse, **options):
        self.rounds, self.connections = 0, 0
        self.end = time.monotonic() + SECONDS
        self.threads = [threading.Thread(target=self._run, args=(address, abuse, options))
                        for _ in range(ATTACKERS)]
        for thread in self.threads:
            thread.start()

    def _run(self, address, abuse, options):
        while time.monotonic() < self.end:
            with Connection(address, **options) as connection:
                self.connections += 1
                turn = 0
                while time.monotonic() < self.end and abuse(connection, turn):
                    turn += 1
                    self.rounds += 1

    def running(self):
        return any(thread.is_alive() for thread in self.threads)

    def join(self):
        for thread in self.threads:
            thread.join()


def answer(server, timeout=20):
    return list(server.generate(prompt="The wind", max_new_tokens=4, sampling={"temperature": 0},
                                timeout=timeout).completions[0].token_ids)


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.__name__)
def test_abuse(server, abuse):
    def closed():
        return server.metrics()("sirocco_abuse_total", what=CLOSED.get(abuse, "resets"))
    expected, before, closed_before = answer(server), resident(server), closed()
    attack = Attack(server.address, abuse)
    times, most = [], before
    while attack.running():
        started = time.monotonic()
        assert answer(server) == expected
        times.append(time.monotonic() - started)
        most = max(most, resident(server))
        assert server.http_status("/healthz") == 200
    attack.join()
    times.sort()
    print(f"{abuse.__name__}: {attack.rounds} rounds, {attack.connections} connections; "
          f"{len(times)} answers meanwhile, p50 {times[len(times) // 2] * 1e3:.0f} ms, p99 "
          f"{times[int(len(times) * 0.99)] * 1e3:.0f} ms; {(most - before) >> 20} MiB more")
    assert attack.rounds > 0 and times
    assert most - before < (CLOSED_GROWTH if abuse in CLOSED else GROWTH)
    if abuse in CLOSED:
        assert attack.connections > ATTACKERS, "each is closed"
        # (One that is made in the last moment, or waits for a busy server, may end by itself.)
        eventually(lambda: closed() >= closed_before + ATTACKERS)
    eventually(server.idle, what="the end of what the abuse began")
    assert server.check_health() == "SERVING"
    assert answer(server) == expected


def test_tiny_windows(server):
    """Readers that let a byte in at a time hold up nobody, and are no burden."""
    expected, before = answer(server), resident(server)
    tiny = [Connection(server.address, settings=[(http2.INITIAL_WINDOW_SIZE, 1)])
            for _ in range(6)]  # fewer than lanes
    for connection in tiny:
        assert connection.send(
            frame(http2.HEADERS, http2.END_HEADERS, 1, call_headers(GENERATE)) +
            frame(http2.DATA, http2.END_STREAM, 1, ASK))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for connection in tiny:
            connection.send(frame(http2.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
        assert answer(server) == expected
    assert resident(server) - before < GROWTH
    got = [sum(len(payload) for kind, _, _, payload in filter(None, connection.frames(0.05))
               if kind == http2.DATA) for connection in tiny]
    assert all(0 < size < 1000 for size in got), got
    for connection in tiny:
        connection.close()
    eventually(server.idle)


class TestRefusals:
    """What is beyond a limit, and how it is refused."""

    def test_too_many_pings(self, server):
        with Connection(server.address) as connection:
            for turn in range(20):
                if not pings(connection, turn):
                    break
            last = [f for f in connection.frames(5) if f is None or f[0] == http2.GOAWAY]
        assert last and last[-1] is None, "the connection is closed"
        goaway = [f for f in last if f is not None]
        assert goaway and b"too_many_pings" in goaway[0][3]

    def test_too_much_metadata(self, server):
        """The call has its status, and if it is not far too much its trailers and its place in the
        metrics. Beyond, gRPC 1.51 refuses it, and may close its connection after it; others stay.
        """
        def counted():
            return server.metrics()("sirocco_too_large_total", what="metadata")
        before = counted()
        for size, status, count in ((7_000, "OK", 0), (9_000, "RESOURCE_EXHAUSTED", 1),
                                    (20_000, "RESOURCE_EXHAUSTED", 1)):
            with server.new_channel(("grpc.max_metadata_size", 1 << 20)) as channel:
                call = rpc.InferenceStub(channel).GetModel.future(
                    pb.GetModelRequest(), timeout=20, metadata=[("x-some", "y" * size)])
                assert call.code().name == status
                trailers = dict(call.trailing_metadata() or ())
                assert ("sirocco-mode" in trailers) == (size < 16384)
            assert counted() == before + count
            assert server.get_model()

    def test_headers_of_old_streams(self, server):
        """They mean nothing, however many, and a call after them is answered."""
        model = "/sirocco.v1.Inference/GetModel"

        def call(stream):
            return (frame(http2.HEADERS, http2.END_HEADERS, stream, call_headers(model)) +
                    frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
        with Connection(server.address) as connection:
            connection.frames(0.2)
            connection.send(frame(http2.SETTINGS, http2.ACK) + call(99))
            connection.send(b"".join(
                frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream,
                      call_headers(model)) for stream in range(1, 41, 2)))
            connection.send(call(101) + call(103))
            got = connection.frames(2)
            assert None not in got, "the connection stays"
            assert {99, 101, 103} == {s for kind, _, s, _ in got if kind == http2.HEADERS}

    def test_too_large_a_message(self, server):
        """As with metadata: from twice as much on it is gRPC's refusal."""
        def counted():
            return server.metrics()("sirocco_too_large_total", what="message")
        before = counted()
        for size, count in ((9 << 20, 1), (17 << 20, 1)):
            call = server.stub.Tokenize.future(pb.TokenizeRequest(text="x" * size), timeout=20)
            assert call.code().name == "RESOURCE_EXHAUSTED"
            trailers = dict(call.trailing_metadata() or ())
            assert ("sirocco-mode" in trailers) == (size < 16 << 20)
            assert counted() == before + count

    def test_compressed_messages(self, server):
        """What they become would be known only when they had become that."""
        before = resident(server)
        send = server.channel.unary_unary("/sirocco.v1.Inference/Tokenize", request_serializer=bytes,
                                          response_deserializer=bytes)
        call = send.future(bytes(64 << 20), timeout=60, compression=grpc.Compression.Gzip)
        assert call.code().name == "UNIMPLEMENTED"
        assert resident(server) - before < 32 << 20
        assert server.get_model()

    def test_streams_of_a_connection(self, tiny):
        """Clients that keep to it let the others wait; who does not loses the connection."""
        ask = pb.GenerateRequest(prompt="Once", max_new_tokens=3500, stop={"ignore_eos": True})
        with Server(tiny, "--max-batch-size", 8, "--max-length", 4096,
                    "--max-streams-per-connection", 3) as server:
            with server.new_channel() as channel:
                stub = rpc.InferenceStub(channel)
                calls = [stub.GenerateStream(ask, timeout=60) for _ in range(5)]
                for call in calls[:3]:
                    next(call)
                running = [server.metrics()("vllm:num_requests_running") for _ in range(20)]
                assert 0 < max(running) <= 3
                assert server.generate(prompt="Once", max_new_tokens=1), "on another connection"
                for call in calls:
                    assert sum(len(event.token_ids) for event in call) > 0
            with Connection(server.address) as greedy:
                greedy.frames(0.2)  # the server's settings
                greedy.send(frame(http2.SETTINGS, http2.ACK))
                greedy.send(b"".join(
                    frame(http2.HEADERS, http2.END_HEADERS, stream, call_headers(GENERATE)) +
                    frame(http2.DATA, http2.END_STREAM, stream, ASK) for stream in range(1, 41, 2)))
                got = greedy.frames(2)
                opened = {stream for kind, _, stream, _ in filter(None, got)
                          if kind == http2.HEADERS}
                assert len(opened) <= 3, "no more were served"
            with Connection(server.address) as deaf:
                # One that never says that it has read the server's settings.
                deaf.send(b"".join(
                    frame(http2.HEADERS, http2.END_HEADERS, stream, call_headers(GENERATE))
                    for stream in range(1, 1 + 2 * 120, 2)))
                assert deaf.frames(5)[-1] is None, "the connection is closed"
            eventually(server.idle)
