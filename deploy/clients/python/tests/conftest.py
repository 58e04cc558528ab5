"""A server of the API in this process, that answers what a test tells it to."""
from __future__ import annotations

import time
from concurrent import futures

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from sirocco.v1 import inference_pb2 as pb
from sirocco.v1 import inference_pb2_grpc as rpc


class Refusal(Exception):
    def __init__(self, code, retry_after=None, violations=()):
        super().__init__(code)
        self.code = code
        self.retry_after = retry_after
        self.violations = violations

    def end(self, context):
        """Ends the call with it."""
        status = status_pb2.Status(code=self.code.value[0], message="as scripted")
        details = []
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(1000 * self.retry_after))
            details.append(retry)
        if self.violations:
            details.append(error_details_pb2.BadRequest(field_violations=[
                {"field": field, "description": text} for field, text in self.violations]))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, "as scripted")


class Scripted(rpc.InferenceServicer):
    """Each try takes the next of `script`: a Refusal, or a list of texts with which it answers, in
    which a Refusal ends the stream, and "wait" waits for its end."""

    def __init__(self):
        self.script = []
        self.tries = []  # (time, request, metadata)
        self.cancelled = 0

    def _next(self, request, context):
        self.tries.append((time.monotonic(), request, dict(context.invocation_metadata())))
        step = self.script.pop(0)
        if isinstance(step, Refusal):
            step.end(context)
        return step

    def Generate(self, request, context):
        texts = self._next(request, context)
        return pb.GenerateResponse(completions=[{"text": "".join(texts)}])

    def GenerateStream(self, request, context):
        texts = self._next(request, context)
        if "wait" in texts:
            context.add_callback(self._count_end)
        for text in texts:
            if isinstance(text, Refusal):
                text.end(context)
            if text == "wait":
                while context.is_active():
                    time.sleep(0.01)
                return
            yield pb.GenerateEvent(text=text)

    def _count_end(self):
        self.cancelled += 1

    def Tokenize(self, request, context):
        self._next(request, context)
        return pb.TokenizeResponse(token_ids=[len(word) for word in request.text.split()])


@pytest.fixture
def scripted():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    servicer = Scripted()
    rpc.add_InferenceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(None)
