"""deploy/envoy before three real servers: balance, health, retries, one killed and one drained in
mid-load, and prompts that begin alike."""
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from harness import ROOT, TIMEOUT, Server, eventually, free_port, http
from prometheus_server import load_yaml
from stubs import pb, rpc

ENVOY = os.path.join(os.path.dirname(sys.executable), "envoy")
CONFIG = os.path.join(ROOT, "deploy/envoy/envoy.yaml")
REPLICAS = 3
CLUSTERS = ("sirocco", "sirocco_by_prefix")


class Envoy:
    """deploy/envoy/envoy.yaml with these replicas, and what `change` does to each cluster."""

    def __init__(self, addresses, folder, change=lambda cluster: None):
        config = load_yaml(CONFIG)
        self.port, admin = free_port(), free_port()
        self.admin = f"http://127.0.0.1:{admin}"
        config["admin"]["address"]["socket_address"]["port_value"] = admin
        resources = config["static_resources"]
        resources["listeners"][0]["address"]["socket_address"] = {
            "address": "127.0.0.1", "port_value": self.port}
        for cluster in resources["clusters"]:
            assert cluster["name"] in CLUSTERS
            cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {
                    "address": address.split(":")[0], "port_value": int(address.split(":")[1])}}}}
                for address in addresses]}]
            change(cluster)
        file = os.path.join(folder, "envoy.yaml")
        with open(file, "w", encoding="utf-8") as out:
            json.dump(config, out)
        self.log = tempfile.TemporaryFile(mode="a+")
        self.process = subprocess.Popen(
            [ENVOY, "-c", file, "--log-level", "warning", "--concurrency", "1",
             "--use-dynamic-base-id"],
            stdout=self.log, stderr=subprocess.STDOUT)
        eventually(self._ready, timeout=30, what="Envoy's start")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = rpc.InferenceStub(self.channel)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def _ready(self):
        assert self.process.poll() is None, self.text()
        try:
            return http(f"{self.admin}/ready")[0] == 200
        except OSError:
            return False

    def stat(self, name, cluster="sirocco"):
        full = f"cluster.{cluster}.{name}"
        found = json.loads(http(f"{self.admin}/stats?format=json&filter=^{full}$")[1])["stats"]
        return next((stat["value"] for stat in found if stat.get("name") == full), 0)

    def healthy(self, cluster="sirocco"):
        return self.stat("membership_healthy", cluster)

    def wait_healthy(self, count):
        """Waits until both clusters have so many replicas that serve."""
        for cluster in CLUSTERS:
            eventually(lambda: self.healthy(cluster) == count, timeout=TIMEOUT,
                       what=f"{count} healthy replicas")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class Replicas:
    """Three servers on ports that stay theirs."""

    def __init__(self, model, *flags):
        self.model, self.flags = model, flags
        self.places = [(f"127.0.0.1:{free_port()}", "127.0.0.1:0") for _ in range(REPLICAS)]
        self.servers = [None] * REPLICAS
        for i in range(REPLICAS):
            self.start(i)

    def start(self, i):
        self.servers[i] = Server(self.model, "--threads", 1, *self.flags, listen=self.places[i])

    @property
    def addresses(self):
        return [place[0] for place in self.places]

    def answered_by(self, i):
        """Generate calls that ended well."""
        metrics = self.servers[i].metrics()
        return sum(metrics("sirocco_requests_total", method=method, code="OK")
                   for method in ("Generate", "GenerateStream"))

    def answered(self):
        return [self.answered_by(i) for i in range(REPLICAS)]

    def stop(self):
        for server in self.servers:
            if server.process.poll() is None:
                server.stop()


@pytest.fixture(scope="module")
def replicas(smollm2):
    out = Replicas(smollm2, "--max-batch-size", 8, "--max-length", 1024)
    yield out
    out.stop()


@pytest.fixture(scope="module")
def envoy(replicas, tmp_path_factory):
    with Envoy(replicas.addresses, str(tmp_path_factory.mktemp("envoy"))) as envoy:
        envoy.wait_healthy(REPLICAS)
        yield envoy


def request(**fields):
    return pb.GenerateRequest(**{"prompt": "Once upon a time", "max_new_tokens": 16,
                                 "stop": {"ignore_eos": True}, **fields})


def test_the_configuration_has_no_warnings():
    result = subprocess.run([ENVOY, "--mode", "validate", "-c", CONFIG, "--log-level", "warning",
                             "--use-dynamic-base-id"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "[warning]" not in result.stderr, result.stderr


def test_it_goes_where_the_fewest_calls_are(replicas, envoy):
    # Each has a connection, and so is known to have nothing to do.
    eventually(lambda: envoy.stub.Generate(request(max_new_tokens=1), timeout=TIMEOUT)
               and min(replicas.answered()) > 0, timeout=TIMEOUT, what="a call of each replica")
    before = replicas.answered()
    calls = [envoy.stub.Generate.future(request(), timeout=TIMEOUT) for _ in range(24)]
    answers = {tuple(call.result().completions[0].token_ids) for call in calls}
    assert len(answers) == 1
    taken = [now - then for now, then in zip(replicas.answered(), before)]
    # Of two replicas drawn the less busy one: all have about as much to do.
    assert sum(taken) == 24 and min(taken) >= 3, taken


def test_deadlines_and_cancels_reach_the_replica(replicas, envoy):
    call = envoy.stub.GenerateStream(request(max_new_tokens=900), timeout=1.5)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = envoy.stub.GenerateStream(request(max_new_tokens=900), timeout=TIMEOUT)
    next(call)
    call.cancel()
    for server in replicas.servers:
        eventually(server.idle)


def test_a_full_queue_is_another_replicas_call(smollm2, replicas, tmp_path):
    """The first replica is full and refuses; Envoy cannot know, and tries another one."""
    with Server(smollm2, "--max-batch-size", 1, "--max-queue-size", 1, "--threads", 1) as narrow, \
            Envoy([narrow.address, *replicas.addresses[1:]], str(tmp_path)) as other:
        other.wait_healthy(REPLICAS)
        long = {"prompt": "Once upon a time", "max_new_tokens": 8000, "stop": {"ignore_eos": True}}
        busy = [narrow.stream(**long)]
        next(busy[0])
        busy.append(narrow.stream(**long))
        eventually(lambda: narrow.metrics()("sirocco_queue_requests") == 1)

        # For its queue, or since what is before a call takes longer than its deadline. Envoy calls
        # it again when it has answered a health check, which may take it a while.
        def refused():
            calls = [other.stub.Generate.future(request(), timeout=TIMEOUT) for _ in range(4)]
            assert all(call.result().completions for call in calls)
            return narrow.metrics()("sirocco_rejected_total")

        refused = eventually(refused, timeout=TIMEOUT, what="a call that the full replica refused")
        assert other.stat("upstream_rq_retry") >= refused
        assert other.stat("outlier_detection.ejections_active") == 0
        for call in busy:
            call.cancel()


class TestPrefixes:
    def replica_of(self, envoy, key, **fields):
        call = envoy.stub.GenerateStream(request(max_new_tokens=1, **fields), timeout=TIMEOUT,
                                         metadata=(("sirocco-prefix", key),))
        events = list(call)
        return dict(call.initial_metadata())["sirocco-replica"], events[-1].usage

    def test_what_begins_alike_goes_to_one_replica(self, replicas, envoy):
        prompt = "The same instructions for all of them, which are long. " * 20
        seen = [self.replica_of(envoy, "one prefix", prompt=prompt + f"Question {i}?")
                for i in range(8)]
        assert len({replica for replica, _ in seen}) == 1
        assert all(usage.cached_prompt_tokens > usage.prompt_tokens / 2 for _, usage in seen[1:])

    def test_others_are_spread(self, envoy, replicas):
        used = Counter(self.replica_of(envoy, f"prefix {i}")[0] for i in range(30))
        assert set(used) == set(replicas.addresses)
        assert [self.replica_of(envoy, f"prefix {i}")[0] for i in range(10)] \
            == [self.replica_of(envoy, f"prefix {i}")[0] for i in range(10)]


def test_a_drain_that_envoy_has_not_seen(replicas, tmp_path):
    """Health checks come seconds apart, and who drains refuses at once, so that it has the fewest calls:
    each call goes on to the other replica all the same, whatever its key."""
    drained = replicas.servers[1]

    def blind(cluster):
        cluster.pop("outlier_detection")
        [check] = cluster["health_checks"]
        check.update(interval="3600s", no_traffic_interval="3600s")

    with Envoy(replicas.addresses[1:], str(tmp_path), blind) as envoy, \
            ThreadPoolExecutor(16) as clients:
        envoy.wait_healthy(2)
        running = drained.stream(prompt="Once upon a time", max_new_tokens=1000,
                                 stop={"ignore_eos": True})
        next(running)
        drained.terminate()
        eventually(lambda: drained.check_health() == "NOT_SERVING")

        def ask(i):
            metadata = (("sirocco-prefix", f"prefix {i}"),) if i % 4 else ()
            return envoy.stub.Generate(request(max_new_tokens=1), timeout=TIMEOUT, metadata=metadata)

        calls = [clients.submit(ask, i) for i in range(400)]
        failed = [error.details() for error in (call.exception() for call in calls) if error]
        refused = drained.metrics()("sirocco_rejected_total", reason="draining")
        running.cancel()
    assert not failed, f"{len(failed)} of {len(calls)}: {set(failed)}"
    assert refused > 100
    assert drained.process.wait(30) == 0
    replicas.start(1)


class Load:
    """Clients that always ask through Envoy, every other one for streams, every other pair by prefix."""

    CLIENTS = 8

    def __init__(self, envoy):
        self.envoy = envoy
        self.over = threading.Event()
        self.failed = []  # (client, code, details) of calls that had not begun to stream
        self.done = 0
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(self.CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _ask(self, client):
        metadata = (("sirocco-prefix", str(client)),) if client % 4 >= 2 else ()
        while not self.over.is_set():
            try:
                if client % 2 == 0:
                    self.envoy.stub.Generate(request(), timeout=TIMEOUT, metadata=metadata)
                else:
                    call = self.envoy.stub.GenerateStream(request(max_new_tokens=4),
                                                          timeout=TIMEOUT, metadata=metadata)
                    list(call)
            except grpc.RpcError as error:
                # Of a stream that has begun, there is at least its initial metadata.
                if client % 2 == 0 or not call.initial_metadata():
                    self.failed.append((client, error.code(), error.details()))
            self.done += 1

    def goes_on(self):
        """Waits until every client has asked again."""
        done = self.done
        eventually(lambda: self.done > done + 2 * self.CLIENTS, timeout=TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


class LongStream:
    """A stream that goes on for a while, on a thread of its own, and how it ended."""

    def __init__(self, envoy, tokens):
        self.call = envoy.stub.GenerateStream(request(max_new_tokens=tokens), timeout=TIMEOUT)
        self.tokens = len(next(self.call).token_ids)  # it has begun
        self.replica = dict(self.call.initial_metadata())["sirocco-replica"]
        self.code, self.details = grpc.StatusCode.OK, ""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        try:
            for event in self.call:
                self.tokens += len(event.token_ids)
        except grpc.RpcError as error:
            self.code, self.details = error.code(), error.details()


def test_one_killed_and_one_drained_in_mid_load(replicas, envoy):
    """Last: it ends replicas."""
    envoy.wait_healthy(REPLICAS)
    with Load(envoy) as load:
        load.goes_on()
        streams = [LongStream(envoy, 200) for _ in range(9)]
        assert set(stream.replica for stream in streams) == set(replicas.addresses)

        replicas.servers[0].process.kill()
        load.goes_on()
        assert sum(envoy.stat(f"outlier_detection.ejections_enforced_consecutive_{kind}", cluster)
                   for cluster in CLUSTERS
                   for kind in ("local_origin_failure", "gateway_failure")) > 0
        envoy.wait_healthy(2)

        drained = replicas.servers[1]
        drained.terminate()
        assert drained.process.wait(30) == 0
        load.goes_on()
        envoy.wait_healthy(1)

        # Who comes back is given calls again.
        replicas.start(0)
        envoy.wait_healthy(2)
        eventually(lambda: replicas.answered_by(0) > 0, timeout=TIMEOUT, what="its first call")
    assert not load.failed
    for stream in streams:
        stream.thread.join()
        if stream.replica == replicas.addresses[0]:
            # The client has seen some of it: it is told, by the status that gRPC makes of a reset.
            assert stream.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)
            assert stream.details and 0 < stream.tokens < 200
        else:
            assert (stream.code, stream.tokens) == (grpc.StatusCode.OK, 200)
