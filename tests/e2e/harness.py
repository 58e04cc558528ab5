"""Starts the real server and watches it from outside."""
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from stubs import ROOT, pb, rpc

BINARY = os.environ.get("SIROCCO_BIN", os.path.join(ROOT, "dist/sirocco/bin/sirocco"))
GOLDENS = os.path.join(ROOT, "tests/goldens")
TIMEOUT = 60  # of a call or a start that should take a moment

# A chat with the default model. The steps' margins are above 0.5 in every type that it is computed
# in.
QUESTION = "What is the capital of Japan?"
ANSWER = "The capital of Japan is Tokyo."

# name -> (EOLE_TORCH_COMPILE, EOLE_COMPILE_MODE)
MODES = {
    "eager": ("0", "2"),
    "decoder_graph": ("1", "0"),
    "decoder": ("1", "1"),
    "layer_graph": ("1", "2"),
    "layer": ("1", "3"),
}


def smollm2():
    """The path of the default model."""
    model = os.environ.get("SIROCCO_TEST_MODEL")
    if not model:
        model = subprocess.run([os.path.join(ROOT, "deploy/model")], check=True, text=True,
                               stdout=subprocess.PIPE).stdout.strip()
    return model


def read_jsonl(relative):
    """The lines of a JSON lines file of tests/goldens."""
    with open(os.path.join(GOLDENS, relative), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def environment(mode="decoder_graph", **extra):
    """The environment of a `sirocco` command: nothing of ours but what is given, on the CPU:
    what these tests say of backends and devices is said of that.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SIROCCO_", "EOLE_"))}
    if mode:
        env["EOLE_TORCH_COMPILE"], env["EOLE_COMPILE_MODE"] = MODES[mode]
    env["SIROCCO_BACKEND"] = "cpu"
    env.update(extra)
    return env


def run_cli(*args, stdin="", mode="decoder_graph", env=None, timeout=TIMEOUT):
    """Runs `sirocco ARGS`; returns the finished process, its output as text."""
    return subprocess.run([BINARY, *map(str, args)], input=stdin, text=True, encoding="utf-8",
                          capture_output=True, timeout=timeout,
                          env=environment(mode, **(env or {})))


def eventually(condition, timeout=10, what="the condition"):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true in {timeout} s"
        time.sleep(0.02)


def free_port():
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def http(url):
    """(status, body) of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Metrics:
    """One scrape."""

    def __init__(self, text):
        self.text = text
        self.samples = {}
        self.types = {}
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} stands twice"
                self.samples[key] = sample.value

    def has(self, name, **labels):
        return any(self._matching(name, labels))

    def __call__(self, name, **labels):
        """The sum of the samples of a name that have these labels; there must be one."""
        values = list(self._matching(name, labels))
        assert values, f"no sample {name}{labels}"
        return sum(values)

    def labels(self, name):
        """The label sets of a name."""
        return [dict(labels) for sample, labels in self.samples if sample == name]

    def _matching(self, name, labels):
        wanted = set(labels.items())
        return (value for (sample, have), value in self.samples.items()
                if sample == name and wanted <= have)


class Server:
    """A running `sirocco serve`.

    As a context manager it is stopped at the end, which must succeed. `command`: what runs the
    program.
    """

    def __init__(self, model, *flags, mode="decoder_graph", env=None, wait=True,
                 listen=("127.0.0.1:0", "127.0.0.1:0"), command=(BINARY,)):
        # Appended to: reading moves the place at which the server would write otherwise.
        self.stderr_file = tempfile.TemporaryFile(mode="a+")
        self.process = subprocess.Popen(
            [*command, "serve", "--model", str(model), "--listen", listen[0],
             "--metrics-listen", listen[1], *map(str, flags)],
            stdout=subprocess.PIPE, stderr=self.stderr_file, text=True,
            env=environment(mode, **(env or {})))
        if wait:
            self.wait_ready()

    def wait_ready(self):
        timer = threading.Timer(TIMEOUT, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        match = re.fullmatch(r"ready grpc=(\S+:\d+) metrics=(\S+:\d+)\n", line)
        assert match, f"not ready, but {line!r}; stderr:\n{self.stderr()}"
        self.connect(*match.groups())

    def connect(self, address, metrics_address):
        self.address, self.metrics_address = address, metrics_address
        self.channel = self.new_channel()
        self.stub = rpc.InferenceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def new_channel(self, *options):
        """A connection of its own."""
        return grpc.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1), *options])

    def stderr(self):
        self.stderr_file.seek(0)
        return self.stderr_file.read()

    def log_tail(self, lines=40, width=400):
        """The last lines of its log, long ones cut."""
        size = os.fstat(self.stderr_file.fileno()).st_size
        begin = max(0, size - lines * 1000)
        last = os.pread(self.stderr_file.fileno(), size - begin, begin)
        return "\n".join(line if len(line) <= width else line[:width] + "…"
                         for line in last.decode(errors="replace").splitlines()[-lines:])

    def generate(self, timeout=TIMEOUT, **request):
        return self.stub.Generate(pb.GenerateRequest(**request), timeout=timeout)

    def stream(self, timeout=TIMEOUT, **request):
        """The call: an iterator of events that can be cancelled."""
        return self.stub.GenerateStream(pb.GenerateRequest(**request), timeout=timeout)

    def tokenize(self, text, **options):
        request = pb.TokenizeRequest(text=text, **options)
        return list(self.stub.Tokenize(request, timeout=TIMEOUT).token_ids)

    def detokenize(self, ids, **options):
        request = pb.DetokenizeRequest(token_ids=ids, **options)
        return self.stub.Detokenize(request, timeout=TIMEOUT).text

    def get_model(self):
        return self.stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)

    def check_health(self, service=""):
        request = health_pb2.HealthCheckRequest(service=service)
        reply = self.health.Check(request, timeout=TIMEOUT)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)

    def metrics(self):
        status, body = http(f"http://{self.metrics_address}/metrics")
        assert status == 200
        return Metrics(body)

    def idle(self):
        """Whether nothing runs, nothing waits, and all blocks are free or only cached."""
        metrics = self.metrics()
        return (metrics("vllm:num_requests_running") == 0
                and metrics("vllm:num_requests_waiting") == 0
                and metrics("sirocco_kv_blocks", state="used") == 0)

    def http_status(self, path):
        return http(f"http://{self.metrics_address}{path}")[0]

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not stop; its log ends:\n{self.log_tail()}") from None
        finally:
            if hasattr(self, "channel"):
                self.channel.close()
            self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc, traceback):
        status = self.stop()
        if exc_type is None:
            assert status == 0, f"exit status {status}; its log ends:\n{self.log_tail()}"


class Collected:
    """What a stream's events join to, by index."""

    def __init__(self, events):
        self.events = list(events)
        self.text, self.token_ids, self.logprobs, self.finish, self.stop_reason = {}, {}, {}, {}, {}
        self.cumulative = {}
        for event in self.events:
            index = event.index
            assert index not in self.finish, "an event after the last of its index"
            self.text[index] = self.text.get(index, "") + event.text
            self.token_ids.setdefault(index, []).extend(event.token_ids)
            self.logprobs.setdefault(index, []).extend(event.logprobs)
            if event.finish_reason:
                self.finish[index] = event.finish_reason
                self.stop_reason[index] = event.stop_reason
                self.cumulative[index] = event.cumulative_logprob

    @property
    def last(self):
        return self.events[-1]

    def assert_equals(self, response):
        """Whether the unary answer to the same request says the same."""
        assert sorted(self.finish) == [c.index for c in response.completions]
        for completion in response.completions:
            index = completion.index
            assert self.text[index] == completion.text
            assert self.token_ids[index] == list(completion.token_ids)
            assert self.finish[index] == completion.finish_reason
            assert self.stop_reason[index] == completion.stop_reason
            assert self.logprobs[index] == list(completion.logprobs)
            assert abs(self.cumulative[index] - completion.cumulative_logprob) < 1e-9
        # Which of its blocks were there already depends on what ran before.
        for usage in ("prompt_tokens", "completion_tokens"):
            assert getattr(self.last.usage, usage) == getattr(response.usage, usage)
        assert list(self.events[0].prompt_logprobs) == list(response.prompt_logprobs)


def error_of(call):
    """The RpcError that call() raises."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def details_of(error):
    """The google.rpc details of an RpcError, by message name."""
    messages = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            assert status.message == error.details()
            for any_message in status.details:
                name = any_message.TypeName().rpartition(".")[2]
                message = getattr(error_details_pb2, name)()
                assert any_message.Unpack(message)
                messages[name] = message
    return messages
