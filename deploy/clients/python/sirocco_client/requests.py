"""Requests from plain Python values, and the metadata that goes with them."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

from sirocco.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

# A text, token ids, a chat's (role, content), or a whole request.
Prompt = Union[str, Sequence[int], Sequence[tuple[str, str]], pb.GenerateRequest]

ROUTING_HEADER = "sirocco-prefix"
CLIENT_HEADER = "sirocco-client"
_PREFIX_BYTES = 1024
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed", "repetition_penalty",
             "presence_penalty", "frequency_penalty", "min_new_tokens")


class Options(TypedDict, total=False):
    """What is asked often; the names are the API's. For everything else take a GenerateRequest."""

    model: str
    n: int
    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: Sequence[str]
    priority: int
    request_id: str
    cache_salt: str
    answer_prefix: str


def make_request(prompt: Prompt, **options: Unpack[Options]) -> pb.GenerateRequest:
    """The request of a prompt and options; a whole request is copied, and options replace its own.

    Raises:
      TypeError: the prompt is of another kind, or an option has another name or type.
    """
    request = pb.GenerateRequest()
    if isinstance(prompt, pb.GenerateRequest):
        request.CopyFrom(prompt)
    elif isinstance(prompt, str):
        request.prompt = prompt
    else:
        _set_list(request, prompt)
    rest: dict[str, Any] = dict(options)
    sampling = {name: rest.pop(name) for name in _SAMPLING if name in rest}
    if sampling:
        request.sampling.MergeFrom(pb.SamplingParams(**sampling))
    if "stop" in rest:
        del request.stop.strings[:]
        request.stop.strings.extend(rest.pop("stop"))
    for name, value in rest.items():
        if name not in Options.__annotations__:
            raise TypeError(f"there is no option {name!r}; give a GenerateRequest")
        setattr(request, name, value)
    return request


def _set_list(request: pb.GenerateRequest, prompt: Sequence[Any]) -> None:
    if all(isinstance(item, int) for item in prompt):
        request.prompt_token_ids.ids.extend(prompt)
    elif all(isinstance(item, tuple) and len(item) == 2 for item in prompt):
        request.chat.messages.extend(pb.ChatMessage(role=role, content=content)
                                     for role, content in prompt)
    else:
        raise TypeError("a prompt is a text, a list of token ids, a list of (role, content), or a "
                        "GenerateRequest")


def _start(request: pb.GenerateRequest) -> bytes:
    if request.HasField("chat"):
        out = b""
        for message in request.chat.messages:
            out += message.role.encode() + b"\0" + message.content.encode() + b"\0"
            if message.role == "user" or len(out) >= _PREFIX_BYTES:
                break
    elif request.HasField("prompt_token_ids"):
        ids = request.prompt_token_ids.ids[:_PREFIX_BYTES // 4]
        out = b"".join(i.to_bytes(4, "little") for i in ids)
    else:
        out = request.prompt[:_PREFIX_BYTES].encode()
    return out[:_PREFIX_BYTES]


def prefix_key(request: pb.GenerateRequest) -> str:
    """The value of `sirocco-prefix`: the same for prompts that begin alike."""
    return hashlib.sha256(_start(request)).hexdigest()[:16]


Metadata = tuple[tuple[str, str], ...]


def metadata_of(request: pb.GenerateRequest, routing_key: Optional[str],
                name: Optional[str]) -> Metadata:
    """What a generate call carries beside its request."""
    metadata: Metadata = ((ROUTING_HEADER, routing_key or prefix_key(request)),)
    return metadata if name is None else (*metadata, (CLIENT_HEADER, name))
