"""The client for threads."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

import grpc
from sirocco.v1 import inference_pb2 as pb
from sirocco.v1 import inference_pb2_grpc as rpc

from sirocco_client.errors import Error
from sirocco_client.requests import Options, Prompt, make_request, metadata_of
from sirocco_client.retries import RetryPolicy, Tries

if TYPE_CHECKING:
    from typing_extensions import Unpack

# A server that is started again is found within seconds; several addresses of a name take turns.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
)


class Stream(Iterator[pb.GenerateEvent]):
    """The events of a streaming call. Cancel it, or leave its `with` block, to end it early."""

    def __init__(self, start: Callable[[Optional[float]], Any], tries: Tries) -> None:
        self._start = start
        self._tries = tries
        self._begun = False
        self._cancelled = threading.Event()
        self._call = start(tries.remaining())

    def __next__(self) -> pb.GenerateEvent:
        while True:
            try:
                event: pb.GenerateEvent = next(self._call)
            except grpc.RpcError as failure:
                if self._begun or self._cancelled.is_set():
                    raise Error.of(failure) from failure
                if self._cancelled.wait(self._tries.pause_after(failure)):
                    raise Error(grpc.StatusCode.CANCELLED, "cancelled between two tries") from failure
                self._call = self._start(self._tries.remaining())
            else:
                self._begun = True
                return event

    def cancel(self) -> None:
        self._cancelled.set()
        self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class Client:
    """Calls of one server, or of the servers behind one name. May be shared by threads."""

    def __init__(self, address: str, *, credentials: Optional[grpc.ChannelCredentials] = None,
                 retries: RetryPolicy = RetryPolicy(), name: Optional[str] = None) -> None:
        """`credentials`: of TLS; none: plain text. `name`: whose share of the server this is."""
        self._retries = retries
        self._name = name
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        self._stub = rpc.InferenceStub(self._channel)  # type: ignore[no-untyped-call]

    def generate(self, prompt: Prompt, *, timeout: Optional[float] = None,
                 routing_key: Optional[str] = None,
                 **options: Unpack[Options]) -> pb.GenerateResponse:
        """The whole answer. `timeout`: seconds, all tries and pauses included."""
        request = make_request(prompt, **options)
        metadata = metadata_of(request, routing_key, self._name)
        answer: pb.GenerateResponse = self._call(self._stub.Generate, request, timeout, metadata)
        return answer

    def stream(self, prompt: Prompt, *, timeout: Optional[float] = None,
               routing_key: Optional[str] = None, **options: Unpack[Options]) -> Stream:
        """The same answer as it is made."""
        request = make_request(prompt, **options)
        metadata = metadata_of(request, routing_key, self._name)
        return Stream(lambda left: self._stub.GenerateStream(request, timeout=left,
                                                             metadata=metadata),
                      Tries(self._retries, timeout))

    def tokenize(self, text: str, *, timeout: Optional[float] = None) -> list[int]:
        request = pb.TokenizeRequest(text=text)
        return list(self._call(self._stub.Tokenize, request, timeout).token_ids)

    def detokenize(self, token_ids: Sequence[int], *, timeout: Optional[float] = None) -> str:
        request = pb.DetokenizeRequest(token_ids=token_ids)
        text: str = self._call(self._stub.Detokenize, request, timeout).text
        return text

    def model(self, *, timeout: Optional[float] = None) -> pb.Model:
        """What is served, how and on what."""
        answer: pb.Model = self._call(self._stub.GetModel, pb.GetModelRequest(), timeout)
        return answer

    def _call(self, method: Callable[..., Any], request: Any, timeout: Optional[float],
              metadata: Sequence[tuple[str, str]] = ()) -> Any:
        tries = Tries(self._retries, timeout)
        while True:
            try:
                return method(request, timeout=tries.remaining(), metadata=metadata)
            except grpc.RpcError as failure:
                time.sleep(tries.pause_after(failure))

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
