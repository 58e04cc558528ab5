"""Health, reflection, and the endpoints for probes."""
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from harness import error_of, http


@pytest.mark.parametrize("service", ["", "sirocco.v1.Inference", "liveness"])
def test_check(bare_server, service):
    assert bare_server.check_health(service) == "SERVING"


def test_check_of_an_unknown_service(bare_server):
    assert error_of(lambda: bare_server.check_health("nobody")).code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["", "sirocco.v1.Inference", "liveness"])
def test_watch(bare_server, service):
    call = bare_server.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)
    assert next(call).status == health_pb2.HealthCheckResponse.SERVING
    call.cancel()


def test_watch_of_an_unknown_service(bare_server):
    call = bare_server.health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    assert next(call).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    call.cancel()


def reflect(server, **request):
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
    return next(stub.ServerReflectionInfo(requests, timeout=20))


def test_reflection(bare_server):
    reply = reflect(bare_server, list_services="")
    names = {service.name for service in reply.list_services_response.service}
    assert names >= {"sirocco.v1.Inference", "grpc.health.v1.Health",
                     "grpc.reflection.v1alpha.ServerReflection"}
    for symbol in ("sirocco.v1.Inference", "sirocco.v1.GenerateRequest"):
        reply = reflect(bare_server, file_containing_symbol=symbol)
        assert reply.file_descriptor_response.file_descriptor_proto


def test_probes(bare_server):
    assert bare_server.http_status("/healthz") == 200
    assert bare_server.http_status("/readyz") == 200
    assert bare_server.http_status("/metrics") == 200
    assert bare_server.http_status("/nothing") == 404


def test_several_scrapes_at_once(bare_server):
    url = f"http://{bare_server.metrics_address}/metrics"
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _ in pool.map(http, [url] * 32)} == {200}


def test_model(bare_server):
    model = bare_server.get_model()
    assert model.name == "llama_tied"
    assert model.architecture == "llama"
    assert (model.max_length, model.max_batch_size, model.vocab_size) == (512, 4, 384)
    assert (model.backend, model.mode) == ("cpu", "decoder_graph")
    assert list(model.end_token_ids) == [2]
    assert model.device and model.version
    # 384 * 64 embedding, tied; 4 layers of attention, gated feed-forward and two norms; a norm.
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64
    assert model.parameter_count == 384 * 64 + 4 * layer + 64
