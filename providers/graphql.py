"""GraphQL APIs (Shopify's, Linear's): one POST, and errors that come inside an answer of 200 or 400.

Source: https://spec.graphql.org/October2021/#sec-Errors; the codes are those of the modules that use this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from providers.calls import Request, Response, api_refusal, retry_after_s
from providers.errors import GrantEnded, OddAnswer, ProviderError, RateLimited, ScopeLacking, Suspended, Unreachable
from providers.reading import at

# `extensions.code` of an error, for those that say something about the token or the moment.
# https://shopify.dev/docs/api/admin-graphql#status_and_error_codes
# Linear: linear/linear, packages/sdk/src/error.ts; that AUTHENTICATION_ERROR is the code beside status 401: not verified
KINDS: Mapping[str, type[ProviderError]] = {
    "AUTHENTICATION_ERROR": GrantEnded,
    "ACCESS_DENIED": ScopeLacking,
    "FORBIDDEN": ScopeLacking,
    "THROTTLED": RateLimited,
    "RATELIMITED": RateLimited,
    "SHOP_INACTIVE": Suspended,
    "INTERNAL_SERVER_ERROR": Unreachable,
}


def query(url: str, asked: str, headers: Mapping[str, str]) -> Request:
    """The request for `asked`, a query or a mutation without variables; `headers` authenticate it."""
    sent = {"content-type": "application/json", "accept": "application/json", **headers}
    return Request("POST", url, sent, orjson.dumps({"query": asked}))


def data(response: Response) -> dict[str, Any]:
    """What was asked for.    Raises: ProviderError, also where only a part of it came."""
    refused = refusal(response)
    if refused is not None:
        raise refused
    found = response.json().get("data")
    if not isinstance(found, dict):
        raise OddAnswer("no_data", status=response.status)
    return found


def refusal(response: Response) -> ProviderError | None:
    """As `api_refusal`, and by the errors inside, which a status that says enough (401, 429, 5xx …) outweighs."""
    refused = api_refusal(response)
    if refused is not None and not isinstance(refused, OddAnswer):
        return refused
    for code in _codes(response):
        if (kind := KINDS.get(code)) is not None:
            return kind(
                "token_rejected" if kind is GrantEnded else None,
                status=response.status,
                retry_after_s=retry_after_s(response),
            )
        refused = refused or OddAnswer("odd_errors", status=response.status)
    return refused


def _codes(response: Response) -> Iterator[str]:
    """The code of each error; "" where it has none."""
    try:
        errors = response.json().get("errors")
    except OddAnswer:
        return
    if errors is not None and not isinstance(errors, list):
        errors = [errors]
    for error in errors or ():
        code = at(error, "extensions", "code")
        yield code if isinstance(code, str) else ""
