"""What the system fails to do for the server, on a schedule: reading files, giving memory, writing to
sockets; and standard streams that are full or closed. The program is the one that ships, with
tests/faults/preload.cc before its libc. (What its device fails to do: fault_test.cc.)
"""
import itertools
import os
import re
import resource
import signal
import subprocess
import threading
import time
import urllib.error

import grpc
import pytest

from harness import (BINARY, MODES, TIMEOUT, Server, environment, eventually, free_port, http,
                     run_cli)
from stubs import pb, rpc

LIBRARY = os.environ["SIROCCO_TEST_FAULTS"]
# Of each sweep here.
SECONDS = float(os.environ.get("SIROCCO_TEST_FAULT_SECONDS", 2))
ASK = {"prompt": "The wind", "max_new_tokens": 24, "sampling": {"temperature": 0},
       "stop": {"ignore_eos": True}}
# How a call may end whose connection broke.
BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}


class Faults:
    """A schedule that a server follows (tests/faults/schedule.h)."""

    def __init__(self, folder):
        self.path, self.fired_path = str(folder / "schedule"), str(folder / "fired")

    def env(self, **more):
        return {"LD_PRELOAD": LIBRARY, "SIROCCO_FAULTS": self.path,
                "SIROCCO_FAULTS_FIRED": self.fired_path, **more}

    def set(self, rules):
        if os.path.exists(self.fired_path):
            os.remove(self.fired_path)
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(rules)
        os.replace(self.path + ".new", self.path)

    def clear(self):
        """What failed."""
        os.remove(self.path)
        return self.fired()

    def fired(self):
        if not os.path.exists(self.fired_path):
            return []
        with open(self.fired_path, encoding="utf-8") as file:
            return file.read().split()


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path)


def sweep(least, seconds=SECONDS):
    """1, 2, 3, ..., from some time on in larger steps; so many at least, on a slow machine too."""
    end = time.monotonic() + seconds
    number = 1
    while number <= least or time.monotonic() < end:
        yield number
        number += 1 + number // 20


class Try:
    """A server that may not become ready."""

    def __init__(self, *args, **options):
        self.server = Server(*args, wait=False, **options)
        # Its one line; at its end there is none.
        timer = threading.Timer(TIMEOUT, self.server.process.kill)
        timer.start()
        line = self.server.process.stdout.readline()
        timer.cancel()
        self.ready = line.startswith("ready ")
        self.status = None
        if self.ready:
            self.server.connect(*re.fullmatch(r"ready grpc=(\S+) metrics=(\S+)\n", line).groups())
        else:
            self.status = self.server.process.wait(TIMEOUT)
            self.server.process.stdout.close()

    def reason(self):
        """The one line that says why it ended."""
        lines = [line for line in self.server.stderr().splitlines() if line.startswith("sirocco: ")]
        assert len(lines) == 1, self.server.stderr()
        return lines[0]


def answer(server, channel=None):
    stub = server.stub if channel is None else rpc.InferenceStub(channel)
    return list(stub.Generate(pb.GenerateRequest(**ASK), timeout=TIMEOUT).completions[0].token_ids)


class TestFiles:
    def test_requests_reach_no_file_and_no_network(self, tiny, faults, tmp_path):
        """Whatever they name: from when it serves on, each file that it opened and each connection that
        it made would be told here."""
        (tmp_path / "secret").write_text("a secret")
        places = [str(tmp_path / "secret"), "../../etc/passwd", "file:///etc/passwd",
                  "http://127.0.0.1:1/x", "{% include '/etc/passwd' %}", "@/etc/passwd"]
        def ask(server, place):
            chat = {"messages": [{"role": "user", "content": place}]}
            for request in (
                    {"prompt": place}, {"prompt": "x", "model": place}, {"chat": chat},
                    {"prompt": "x", "adapter": place}, {"prompt": "x", "cache_salt": place},
                    {"prompt": "x", "request_id": place}, {"prompt": "x", "answer_prefix": place},
                    {"prompt": "x", "stop": {"strings": [place]}},
                    {"prompt": "x", "constraint": {"regex": place}},
                    {"chat": {**chat, "template_kwargs_json": '{"file": "%s"}' % place}},
                    {"chat": {**chat, "tools_json": '[{"url": "%s"}]' % place}},
                    {"chat": {**chat, "documents_json": '[{"path": "%s"}]' % place}}):
                message = pb.GenerateRequest(max_new_tokens=2, **request)
                metadata = [("traceparent", "file:/etc/passwd"), ("sirocco-client", "http.//x")]
                server.stub.Generate.future(message, timeout=TIMEOUT,
                                            metadata=metadata).exception()
            server.stub.Tokenize(pb.TokenizeRequest(text=place), timeout=TIMEOUT)
        with Server(tiny, env=faults.env()) as server:
            # Libraries read some things when they first need them: the time zone, a CPU's frequency.
            for _ in range(5):
                faults.set("file@1+,socket:connect@1+")
                for place in places:
                    ask(server, place)
                fired = faults.clear()
                if not fired:
                    break
                ask(server, "nothing")
            assert fired == []

    def test_each_read_at_the_start(self, tiny, faults, tmp_path):
        """It starts as it was told to, or ends with one line: never with less than it was told."""
        config, tokens = tmp_path / "sirocco.yaml", tmp_path / "tokens"
        config.write_text("max_batch_size: 3\n")
        tokens.write_text("a-token-of-some-length\n")
        ended = started = 0
        for number in sweep(15, 3 * SECONDS):
            faults.set(f"file@{number}")
            server = Try(tiny, "--config", config, "--auth-token-file", tokens, env=faults.env())
            fired = faults.clear()
            if server.ready:
                started += 1
                with server.server as running:
                    ask = pb.GetModelRequest()
                    with pytest.raises(grpc.RpcError) as refused:
                        running.stub.GetModel(ask, timeout=TIMEOUT)
                    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
                    model = running.stub.GetModel(
                        ask, timeout=TIMEOUT,
                        metadata=[("authorization", "Bearer a-token-of-some-length")])
                    assert model.max_batch_size == 3
            else:
                ended += 1
                assert server.status in (1, 2), server.server.stderr()
                assert server.reason()
                assert fired
            if not fired:
                break
        print(f"{ended} starts ended, {started} did not need what failed")
        assert ended > 5 and started > 0

    def test_pages_that_cannot_be_read(self, tiny, faults):
        for number in itertools.count(1):
            faults.set(f"file:page@{number}")
            server = Try(tiny, env=faults.env())
            if not faults.clear():
                break
            assert (server.ready, server.status) == (False, 1)
            assert "cannot be read" in server.reason()
        assert server.ready and server.server.stop() == 0
        assert number > 2

    def test_tokens_that_cannot_be_read_anew(self, tiny, faults, tmp_path):
        """The former stay, a stream goes on, and when they can be read they hold."""
        tokens = tmp_path / "tokens"
        tokens.write_text("a-token-of-some-length\n")
        allowed = [("authorization", "Bearer a-token-of-some-length")]
        other = [("authorization", "Bearer another-token-of-a-length")]

        def may(metadata):
            try:
                server.stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT, metadata=metadata)
                return True
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED
                return False

        def reloads(result):
            return server.metrics()("sirocco_credential_reloads_total", what="tokens",
                                    result=result)

        with Server(tiny, "--auth-token-file", tokens, "--max-length", 4096,
                    env=faults.env()) as server:
            call = server.stub.GenerateStream(
                pb.GenerateRequest(prompt="Once", max_new_tokens=4000, stop={"ignore_eos": True}),
                metadata=allowed, timeout=TIMEOUT)
            next(call)
            for kind in ("open", "read"):
                failed = reloads("failed")
                faults.set(f"file:{kind}@1+")
                tokens.write_text("another-token-of-a-length\n")
                eventually(lambda: reloads("failed") > failed)  # pylint: disable=W0640
                assert may(allowed) and not may(other)
                faults.clear()
                eventually(lambda: may(other))
                assert not may(allowed)
                tokens.write_text("a-token-of-some-length\n")
                eventually(lambda: may(allowed))
            call.cancel()


@pytest.mark.parametrize("mode", MODES)
def test_memory_at_the_start(tiny, faults, mode):
    """What cannot be had ends the start with one line, of all that is ours. Of the libraries' own,
    regular expressions do without, and Abseil's allocator aborts.
    """
    statuses = []  # None: it started
    while not statuses or fired:
        faults.set(f"alloc:map@{len(statuses) + 1}")
        server = Try(tiny, "--max-batch-size", 4, mode=mode, env=faults.env())
        fired = faults.clear()
        statuses.append(server.status)
        if server.ready:
            with server.server as running:
                assert len(answer(running)) == 24
        elif server.status == -signal.SIGABRT:
            assert "low_level_alloc" in server.server.stderr()
        else:
            assert server.status == 1 and "not enough memory for " in server.reason()
    assert statuses.count(1) > 5, statuses
    # Abseil asks once or twice, as threads meet.
    assert statuses.count(-signal.SIGABRT) <= 3 and statuses.count(None) <= 2, statuses


def test_the_heap(tiny, faults):
    """A large piece of memory that the process itself cannot have ends it at once, or costs a call:
    none hangs, none is answered wrongly.
    """
    text = "The wind blows. " * 20000
    with Server(tiny) as server:
        expected = server.tokenize(text)
    aborted = 0
    for number in sweep(3, 2 * SECONDS):
        server = Try(tiny, env=faults.env())
        assert server.ready
        faults.set(f"alloc:new@{number}")
        try:
            assert server.server.tokenize(text) == expected
        except grpc.RpcError as error:
            assert error.code() in BROKEN | {grpc.StatusCode.UNKNOWN}, error
        fired = faults.clear()
        status = server.server.stop()
        assert status in (0, -signal.SIGABRT), server.server.log_tail()
        aborted += status != 0
        if not fired:
            break
    print(f"{aborted} of {number} ended the process")
    assert number > 2


class Calls:
    """Calls at once, each by a connection of its own."""

    def __init__(self, server, count=3):
        self.server = server
        self.outcomes = [None] * count  # the ids, or a status
        self.threads = [threading.Thread(target=self._run, args=(at,)) for at in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, at):
        ids = []
        with self.server.new_channel() as channel:
            stub = rpc.InferenceStub(channel)
            try:
                for event in stub.GenerateStream(pb.GenerateRequest(**ASK), timeout=TIMEOUT):
                    ids.extend(event.token_ids)
                self.outcomes[at] = ids
            except grpc.RpcError as error:
                self.outcomes[at] = error.code()

    def wait(self):
        for thread in self.threads:
            thread.join(2 * TIMEOUT)
        assert None not in self.outcomes, "a call hangs"
        return self.outcomes


@pytest.mark.parametrize("mode", MODES)
class TestSockets:
    def test_each_write(self, tiny, faults, mode):
        """Costs the calls of its connection, and no others."""
        broken = 0
        with Server(tiny, "--max-batch-size", 4, mode=mode, env=faults.env()) as server:
            expected = answer(server)
            for number in sweep(5):
                faults.set(f"socket:write@{number}")
                outcomes = Calls(server).wait()
                fired = faults.clear()
                lost = [outcome for outcome in outcomes if outcome != expected]
                assert len(lost) <= len(fired) <= 1
                assert all(outcome in BROKEN for outcome in lost), lost
                broken += len(lost)
                with server.new_channel() as channel:
                    assert answer(server, channel) == expected
                eventually(server.idle)
                if not fired:
                    break
            assert server.check_health() == "SERVING"
        print(f"{broken} of {number} calls lost")
        assert broken > 0

    def test_all_writes(self, tiny, faults, mode):
        """A network that is gone: what ran is let go, and all is as before when it is back."""
        with Server(tiny, "--max-batch-size", 4, mode=mode, env=faults.env()) as server:
            expected = answer(server)
            faults.set("socket:write@20+")
            outcomes = Calls(server, 6).wait()
            assert faults.clear()
            assert all(outcome == expected or outcome in BROKEN | {
                grpc.StatusCode.DEADLINE_EXCEEDED} for outcome in outcomes), outcomes
            with server.new_channel() as channel:
                assert answer(server, channel) == expected
            eventually(server.idle)
            assert server.check_health() == "SERVING"


# What a shell puts before the program, "$@".
STREAMS = {
    "stderr full": 'exec "$@" 2>/dev/full',
    "stderr closed": 'exec "$@" 2>&-',
    "stdout full": 'exec "$@" >/dev/full',
    "all closed": 'exec "$@" <&- >&- 2>&-',
}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("streams", STREAMS)
def test_standard_streams(tiny, streams, log_format):
    """None of them stops anything, and no log line goes where a stream was."""
    ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    server = Server(tiny, "--max-batch-size", 4, "--log-format", log_format, wait=False,
                    listen=ports, command=("sh", "-c", STREAMS[streams], "sh", BINARY))

    def ready():
        assert server.process.poll() is None
        try:
            return http(f"http://{ports[1]}/readyz")[0] == 200
        except urllib.error.URLError:
            return False
    eventually(ready, timeout=TIMEOUT)
    server.connect(*ports)
    with server:
        if "closed" in streams:
            assert os.readlink(f"/proc/{server.process.pid}/fd/2") == "/dev/null"
        outcomes = Calls(server).wait()
        assert outcomes[0] and outcomes == 3 * outcomes[:1]
        assert server.http_status("/readyz") == 200


class TestCommands:
    """A command whose output cannot be written has failed, and says so."""

    @pytest.fixture(scope="class")
    def commands(self, tiny, tmp_path_factory):
        lines = tmp_path_factory.mktemp("lines") / "lines.jsonl"
        lines.write_text('{"prompt": "The wind", "maxNewTokens": 4}\n')
        texts = lines.with_name("texts.jsonl")
        texts.write_text('{"text": "The wind"}\n')
        text = lines.with_name("text.txt")
        text.write_text("The wind blows. " * 10)
        return {
            "info": ["info", "--model", tiny, "--plan"],
            "check-config": ["check-config"],
            "tokenize": (["tokenize", "--model", tiny], texts),
            "run": ["run", "--model", tiny, lines],
            "run --output": ["run", "--model", tiny, lines, "--output", "/dev/full"],
            "score": ["score", "--model", tiny, text],
        }

    @pytest.mark.parametrize("command", ["info", "check-config", "tokenize", "run", "run --output",
                                         "score"])
    def test_a_full_disk(self, commands, command):
        args = commands[command]
        args, stdin = args if isinstance(args, tuple) else (args, os.devnull)
        to_file = "--" in command
        with open(stdin, encoding="utf-8") as lines, \
                open(os.devnull if to_file else "/dev/full", "w", encoding="utf-8") as out:
            result = subprocess.run([BINARY, *map(str, args)], stdin=lines, stdout=out,
                                    stderr=subprocess.PIPE, text=True, timeout=TIMEOUT,
                                    env=environment(), check=False)
        assert result.returncode == 1, result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith("sirocco: "), result.stderr
        assert re.search("/dev/full" if to_file else "output", last), last


@pytest.mark.parametrize("command", ["serve", "run", "score", "generate"])
def test_too_few_open_files(tiny, tmp_path, command):
    """However few: one line and status 1, or it works."""
    (tmp_path / "lines").write_text('{"prompt": "The wind", "maxNewTokens": 4}\n')
    (tmp_path / "text").write_text("The wind blows. " * 10)
    args = {"serve": ["--model", tiny, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"],
            "run": ["--model", tiny, tmp_path / "lines"],
            "score": ["--model", tiny, tmp_path / "text"],
            "generate": ["--address", f"127.0.0.1:{free_port()}", "--timeout", 2, "Hello"]}[command]
    failed, worked = 0, False
    for files in range(4, 64):
        process = subprocess.Popen(
            [BINARY, command, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment(),
            preexec_fn=lambda most=files: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
        ready = process.stdout.readline().startswith("ready ") if command == "serve" else False
        if ready:
            process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
        lines = errors.splitlines()
        if process.returncode == 0 or "is a server listening there?" in errors:
            worked = True
            break
        assert process.returncode == 1, (files, lines)
        assert lines[-1].startswith("sirocco: ") and "files" in lines[-1], (files, lines)
        failed += 1
    assert worked and failed > 0


def test_a_schedule_that_is_none(tiny, faults):
    """The tests' own tool: it does not pass for a server that was never failed."""
    result = run_cli("info", "--model", tiny, env=faults.env(SIROCCO_FAULTS="file@0"))
    assert result.returncode == -signal.SIGABRT and "SIROCCO_FAULTS" in result.stderr
    result = run_cli("info", "--model", tiny, env=faults.env(SIROCCO_FAULTS="file:map@1"))
    assert result.returncode == 2 and faults.fired() == ["file:map"], result.stderr
