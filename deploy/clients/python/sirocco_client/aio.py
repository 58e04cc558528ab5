"""The same client for asyncio."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

import grpc
from sirocco.v1 import inference_pb2 as pb
from sirocco.v1 import inference_pb2_grpc as rpc

from sirocco_client.client import CHANNEL_OPTIONS
from sirocco_client.errors import Error
from sirocco_client.requests import Options, Prompt, make_request, metadata_of
from sirocco_client.retries import RetryPolicy, Tries

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncStream(AsyncIterator[pb.GenerateEvent]):
    """The events of a streaming call. Cancel it, or leave its `async with` block, to end it early."""

    def __init__(self, start: Callable[[Optional[float]], Any], tries: Tries) -> None:
        self._start = start
        self._tries = tries
        self._begun = False
        self._cancelled = False
        self._call = start(tries.remaining())

    async def __anext__(self) -> pb.GenerateEvent:
        while True:
            try:
                event = await self._call.read()
            except grpc.RpcError as failure:
                if self._begun or self._cancelled:
                    raise Error.of(failure) from failure
                await asyncio.sleep(self._tries.pause_after(failure))
                if self._cancelled:
                    raise Error(grpc.StatusCode.CANCELLED, "cancelled between two tries") from failure
                self._call = self._start(self._tries.remaining())
            except asyncio.CancelledError:
                # Also what reading a call raises that we have cancelled ourselves.
                if self._cancelled:
                    raise Error(grpc.StatusCode.CANCELLED, "cancelled by its caller") from None
                self.cancel()
                raise
            else:
                if event is grpc.aio.EOF:
                    raise StopAsyncIteration
                self._begun = True
                answer: pb.GenerateEvent = event
                return answer

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class AsyncClient:
    """Calls of one server, or of the servers behind one name, from one event loop."""

    def __init__(self, address: str, *, credentials: Optional[grpc.ChannelCredentials] = None,
                 retries: RetryPolicy = RetryPolicy(), name: Optional[str] = None) -> None:
        """As Client's."""
        self._retries = retries
        self._name = name
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        self._stub = rpc.InferenceStub(self._channel)  # type: ignore[no-untyped-call]

    async def generate(self, prompt: Prompt, *, timeout: Optional[float] = None,
                       routing_key: Optional[str] = None,
                       **options: Unpack[Options]) -> pb.GenerateResponse:
        """The whole answer. `timeout`: seconds, all tries and pauses included."""
        request = make_request(prompt, **options)
        metadata = metadata_of(request, routing_key, self._name)
        answer: pb.GenerateResponse = await self._call(self._stub.Generate, request, timeout,
                                                       metadata)
        return answer

    def stream(self, prompt: Prompt, *, timeout: Optional[float] = None,
               routing_key: Optional[str] = None, **options: Unpack[Options]) -> AsyncStream:
        """The same answer as it is made."""
        request = make_request(prompt, **options)
        metadata = metadata_of(request, routing_key, self._name)
        return AsyncStream(lambda left: self._stub.GenerateStream(request, timeout=left,
                                                                  metadata=metadata),
                           Tries(self._retries, timeout))

    async def tokenize(self, text: str, *, timeout: Optional[float] = None) -> list[int]:
        request = pb.TokenizeRequest(text=text)
        return list((await self._call(self._stub.Tokenize, request, timeout)).token_ids)

    async def detokenize(self, token_ids: Sequence[int], *,
                         timeout: Optional[float] = None) -> str:
        request = pb.DetokenizeRequest(token_ids=token_ids)
        text: str = (await self._call(self._stub.Detokenize, request, timeout)).text
        return text

    async def model(self, *, timeout: Optional[float] = None) -> pb.Model:
        """What is served, how and on what."""
        answer: pb.Model = await self._call(self._stub.GetModel, pb.GetModelRequest(), timeout)
        return answer

    async def _call(self, method: Callable[..., Any], request: Any, timeout: Optional[float],
                    metadata: Sequence[tuple[str, str]] = ()) -> Any:
        tries = Tries(self._retries, timeout)
        while True:
            try:
                return await method(request, timeout=tries.remaining(), metadata=metadata)
            except grpc.RpcError as failure:
                await asyncio.sleep(tries.pause_after(failure))

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
