"""Calls that several providers share: ending a grant by RFC 7009, asking whose token it is by a userinfo endpoint."""

from __future__ import annotations

from typing import Any

from providers.calls import Http, bearer, called
from providers.errors import GrantEnded, OddAnswer
from providers.oauth import (
    App,
    OAuthFacts,
    TokenSet,
    refresh_fields,
    refusal,
    revoke_request,
    token_request,
    token_set,
)
from providers.reading import at, identifier

GONE = frozenset({"invalid_token", "invalid_grant", "token_not_found"})


async def revoke(http: Http, facts: OAuthFacts, app: App, tokens: TokenSet) -> None:
    """Revoke the refresh token, then the access token: servers need not end the one with the other (section 2.1).

    Invalid tokens are answered with 200 (section 2.2), or by some with an error that says so; both are fine.
    Raises: ProviderError.
    """
    for token, hint in ((tokens.refresh_token, "refresh_token"), (tokens.access_token, "access_token")):
        if token is None:
            continue
        response = await http.send(revoke_request(facts, app, token, hint))
        refused = refusal(facts, response)
        if refused is not None and not isinstance(refused, GrantEnded) and refused.code not in GONE:
            raise refused


async def last_access(http: Http, facts: OAuthFacts, app: App, tokens: TokenSet) -> str | None:
    """A fresh access token for the one call that ends a grant, where the old one is over; None: so is the grant.

    Its refresh token is dropped: should that one call fail too, nobody holds a token of this grant any more.
    Raises: ProviderError.
    """
    if tokens.refresh_token is None:
        return None
    response = await http.send(token_request(facts, app, refresh_fields(facts, app, tokens.refresh_token)))
    refused = refusal(facts, response)
    if isinstance(refused, GrantEnded):
        return None
    if refused is not None:
        raise refused
    return token_set(facts, response.json()).access_token


async def subject(http: Http, url: str, tokens: TokenSet, *path: str | int) -> str:
    """What the JSON at `url` has at `path`, as (a part of) an account key.    Raises: ProviderError."""
    return key_at(await called(http, bearer("GET", url, tokens.access_token)), *path)


def key_at(said: dict[str, Any], *path: str | int) -> str:
    """An identifier inside an answer.    Raises: OddAnswer, there is none."""
    found = identifier(at(said, *path))
    if found is None:
        raise OddAnswer("no_subject")
    return found
