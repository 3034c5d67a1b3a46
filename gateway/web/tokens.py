"""Access tokens over HTTP: the way that platform code calls a provider with them, or says that one was refused.

`GET …/token` is the hot route of the private listener: direct (web/routing.py), its answer made without a model.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import orjson
from pydantic import Field, StringConstraints

from gateway import ids
from gateway.service import Gateway
from gateway.tokens import problems
from gateway.tokens.check import Read
from gateway.tokens.reading import Token as Opened
from gateway.web.routing import Answer, Call, Query, Route, Sent, json

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
DAY_S = 24 * 3600


class TokenQuery(Query):
    """Which token, and how long it must still live."""

    access_profile: Annotated[ProfileName | None, Field(description="may be left out where there is just one")] = None
    min_ttl_s: Annotated[
        int,
        Field(ge=0, le=DAY_S, description="refreshed first if it expires sooner; half of a token's life at the most"),
    ] = 60


class Token(Answer):
    """An access token. The refresh token never leaves the vault."""

    connection: str
    access_profile: str
    state: str = Field(description="of the grant: `active` or `suspect`")
    access_token: str
    token_type: str
    expires_at: datetime | None = Field(description="null: it does not expire")
    refresh_after: datetime | None = Field(description="from then on it pays to ask again; null: it does not expire")
    generation: int = Field(description="counts consents")
    token_version: int = Field(description="counts token sets: name it when you report this token as refused")
    scopes: list[str] = Field(description="granted")
    missing_scopes: list[str] = Field(description="asked for and not granted")


async def read(gateway: Gateway, call: Call[None, TokenQuery]) -> Sent:
    """The current access token of a connection, refreshed first where it has expired.

    Do not keep it longer than `refresh_after`, and ask again when the provider refuses it: what was revoked meanwhile
    is never handed out again. Every read is audited.
    """
    assert call.key is not None
    asked = call.query
    connection = call.id("connection_id", ids.CONNECTION)
    token = await gateway.tokens.read(Read(connection, asked.access_profile, asked.min_ttl_s, call.key.id))
    return json(200, _encoded(call.path["connection_id"], token))


def _encoded(connection: str, token: Opened) -> bytes:
    """As `Token`. Written out: a model would cost more than all the rest of the answer."""
    found = token.found
    return orjson.dumps(
        {
            "connection": connection,
            "access_profile": found.access_profile,
            "state": found.state,
            "access_token": token.access_token,
            "token_type": found.token_type,
            "expires_at": found.expires_at,
            "refresh_after": token.refresh_after,
            "generation": found.generation,
            "token_version": found.token_version,
            "scopes": found.granted,
            "missing_scopes": found.lacking,
        },
        option=orjson.OPT_UTC_Z,
    )


ROUTES = [
    Route(
        "GET", "/v1/connections/{connection_id}/token", "tokens:read", read, "An access token",
        query=TokenQuery, answer=Token, errors=(*problems.REFUSALS, problems.SealBroken), direct=True,
    ),
]  # fmt: skip
