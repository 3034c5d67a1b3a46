"""What platform code imports to work with a Posthouse gateway. It needs aiohttp and nothing else of Posthouse.

    from gateway.client import Client

    async with Client("http://127.0.0.1:8081", api_key) as posthouse:
        async for entry in posthouse.events(consumer="billing"):
            handle(entry.tenants, entry.event.type, entry.event.data)   # asking for the next one says: this one is done

With `consumer=` any number of processes share the work: each gets its part of the connections, in the order of their
events, and what a killed one had not finished goes to another. Without it the iterator follows the whole stream
live and remembers nothing between runs. Either way it reconnects by itself; what cannot be mended is raised.
"""

from gateway.client.api import Client
from gateway.client.entries import CloudEvent, Entry
from gateway.client.errors import (
    ApiError,
    Conflict,
    CursorGone,
    Forbidden,
    Invalid,
    NotFound,
    NotIssued,
    PosthouseError,
    StaleFence,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from gateway.client.iterating import Events
from gateway.client.tokens import Token

__all__ = [
    "ApiError",
    "Client",
    "CloudEvent",
    "Conflict",
    "CursorGone",
    "Entry",
    "Events",
    "Forbidden",
    "Invalid",
    "NotFound",
    "NotIssued",
    "PosthouseError",
    "StaleFence",
    "Token",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]
