"""Access tokens over HTTP: the way that platform code calls a provider with them, or says that one was refused.

`GET …/token` is the hot route of the private listener: direct (web/routing.py), its answer made without a model.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import orjson
from pydantic import Field

from gateway import ids
from gateway.checking.reports import Outcome, Report
from gateway.connections.states import State
from gateway.service import Gateway
from gateway.tokens import problems
from gateway.tokens.check import Read
from gateway.tokens.reading import Token as Opened
from gateway.web import connections
from gateway.web.fields import ProfileName
from gateway.web.routing import Answer, Body, Call, NoQuery, Query, Route, Sent, json

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
    state: State = Field(description="of the grant: `active` or `suspect`")
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
            "scopes": orjson.Fragment(found.granted),
            "missing_scopes": orjson.Fragment(found.lacking),
        },
        option=orjson.OPT_UTC_Z,
    )


class TokenRejected(Body):
    """A provider refused an access token."""

    type: Literal["token_rejected"]
    access_profile: Annotated[ProfileName | None, Field(description="may be left out where there is just one")] = None
    token_version: Annotated[int, Field(ge=1, le=2**31 - 1, description="of the token that was refused")]
    status: Annotated[int | None, Field(ge=100, le=599, description="what the provider answered")] = None


class Checked(Answer):
    """What a report led to, and how the grant stands now."""

    outcome: Outcome
    access_profile: str
    state: State
    generation: int
    token_version: int = Field(description="the current one: where it is another, read the token again")


async def report(gateway: Gateway, call: Call[TokenRejected, NoQuery]) -> Checked:
    """Say that a provider refused an access token. It is checked at once; a report about an older token changes nothing.

    `stale`, `refreshed`: read the token again. `works`: the provider takes it, and refused just that call. `too_new`,
    `unchecked`: nothing could be found out now. `suspect`, `not_issued`: the next read of the token says what to do.
    """
    assert call.key is not None
    asked = call.body
    region, found = await connections.locate(gateway, call.id("connection_id", ids.CONNECTION))
    told = await gateway.reports.take(
        region,
        Report(
            connection=found.id, access_profile=asked.access_profile, token_version=asked.token_version,
            status=asked.status, actor=call.key.id,
        ),
    )  # fmt: skip
    grant = told.grant
    return Checked(
        outcome=told.outcome, access_profile=grant.access_profile, state=grant.state, generation=grant.generation,
        token_version=grant.token_version,
    )  # fmt: skip


ROUTES = [
    Route(
        "GET", "/v1/connections/{connection_id}/token", "tokens:read", read, "An access token",
        query=TokenQuery, answer=Token, errors=(*problems.REFUSALS, problems.SealBroken), direct=True,
    ),
    Route(
        "POST", "/v1/connections/{connection_id}/signals", "signals:write", report, "Report a refused access token",
        body=TokenRejected, answer=Checked,
        errors=(problems.AccessProfileNeeded, problems.NoGrant, problems.ConnectionClosed),
    ),
]  # fmt: skip
