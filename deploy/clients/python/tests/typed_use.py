"""Read by mypy alone: what callers write has types."""
from __future__ import annotations

from typing import Optional

from sirocco.v1 import inference_pb2 as pb

from sirocco_client import AsyncClient, Client, Error


def use(client: Client) -> Optional[str]:
    try:
        answer: pb.GenerateResponse = client.generate("Hi", max_new_tokens=3, temperature=0.5)
    except Error as error:
        wait: Optional[float] = error.retry_after
        return None if wait is None else error.message
    for event in client.stream([("user", "Hi")], timeout=1.0):
        text: str = event.text
        print(text)
    ids: list[int] = client.tokenize("Hi")
    return client.detokenize(ids) + answer.completions[0].text


async def use_async(client: AsyncClient) -> int:
    async for event in client.stream([1, 2, 3], stop=["."]):
        return len(event.token_ids)
    return (await client.model()).max_length


def misuse(client: Client) -> None:
    client.generate("Hi", max_tokens=3)  # type: ignore[call-arg]
    client.generate(7)  # type: ignore[arg-type]
