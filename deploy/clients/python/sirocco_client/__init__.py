"""A client of the Sirocco inference server: typed, small, with retries that the server times."""
from sirocco_client.aio import AsyncClient, AsyncStream
from sirocco_client.client import Client, Stream
from sirocco_client.errors import Error
from sirocco_client.requests import ROUTING_HEADER, Prompt, make_request, prefix_key
from sirocco_client.retries import RetryPolicy

__all__ = [
    "ROUTING_HEADER", "AsyncClient", "AsyncStream", "Client", "Error", "Prompt", "RetryPolicy",
    "Stream", "make_request", "prefix_key",
]
