"""What an answer of a GraphQL API says about the token: by its status, and by the errors inside."""

from __future__ import annotations

import json

import pytest

from providers import graphql
from providers.calls import Response
from providers.errors import GrantEnded, OddAnswer, ProviderError, RateLimited, ScopeLacking, Suspended, Unreachable
from tests.providers.script import answer


def failed(*codes: object, status: int = 200, **headers: str) -> Response:
    """An answer with these error codes."""
    return answer({"errors": [{"message": "at-1", "extensions": {"code": code}} for code in codes]}, status, **headers)


OUTCOMES: list[tuple[Response, type[ProviderError]]] = [
    (failed("THROTTLED", retry_after="2"), RateLimited),
    (failed("RATELIMITED", status=400), RateLimited),
    (failed("AUTHENTICATION_ERROR", status=400), GrantEnded),
    (failed("AUTHENTICATION_ERROR", status=401), GrantEnded),
    (failed("AUTHENTICATION_ERROR", status=500), Unreachable),  # an outage says nothing about a grant
    (failed("AUTHENTICATION_ERROR", status=429), RateLimited),
    (failed("ACCESS_DENIED"), ScopeLacking),
    (failed("SHOP_INACTIVE"), Suspended),
    (failed("INTERNAL_SERVER_ERROR"), Unreachable),
    (failed("SOMETHING_NEW"), OddAnswer),
    (failed("SOMETHING_NEW", "THROTTLED"), RateLimited),
    (failed(None, 5, ["x"]), OddAnswer),
    (answer({"errors": "[API] Invalid API key or access token"}, 401), GrantEnded),
    (answer({"errors": "Not Found"}, 404), OddAnswer),
    (answer({"errors": {"a": 1}}), OddAnswer),
    (answer({"data": {"a": 1}, "errors": [{"message": "half of it"}]}), OddAnswer),
    (answer({"data": None}), OddAnswer),
    (answer({}), OddAnswer),
    (answer(b"<html>"), OddAnswer),
    (answer(b"<html>", 502), Unreachable),
]


@pytest.mark.parametrize(("response", "kind"), OUTCOMES)
def test_every_answer_has_a_defined_outcome(response: Response, kind: type[ProviderError]) -> None:
    """And none that quotes the provider."""
    with pytest.raises(ProviderError) as caught:
        graphql.data(response)
    assert type(caught.value) is kind
    assert "at-1" not in repr(caught.value)
    assert kind is not GrantEnded or caught.value.code == "token_rejected"
    assert caught.value.retry_after_s == (2.0 if "retry-after" in response.headers else None)


def test_what_was_asked_for_is_the_data() -> None:
    assert graphql.data(answer({"data": {"a": 1}})) == {"a": 1}
    assert graphql.data(answer({"data": {"a": 1}, "errors": []})) == {"a": 1}
    request = graphql.query("https://api.example.com/graphql", "{ a }", {"authorization": "Bearer at-1"})
    assert (request.method, json.loads(request.body)) == ("POST", {"query": "{ a }"})
    assert not request.carries_client_secret
    assert "at-1" not in repr(request)
