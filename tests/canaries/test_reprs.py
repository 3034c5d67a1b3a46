"""What holds a secret shows none in its repr: whoever logs it, or stops at it in a debugger, sees no more than its kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from starlette.datastructures import Headers

from gateway.connect.secrets import Proof
from gateway.web.adoption import Import
from gateway.web.connect_sessions import Code
from gateway.web.routing import Call
from providers.calls import Request, Response
from providers.contract import Delivery, Trust
from providers.oauth import TokenSet

SECRET = "a-secret-in-some-object"
SENT = {"authorization": f"Bearer {SECRET}"}
HOLDERS = [
    Call(SECRET, SECRET, {}, None, datetime.now(UTC), "req_1", Headers(SENT), lambda: UUID(int=0)),
    Code(code=SECRET),
    Delivery("POST", f"https://x/hooks/y?token={SECRET}", "/hooks/y", f"token={SECRET}", SENT, SECRET.encode()),
    Import.model_validate({"connections": [{"access_profiles": {"reader": {"access_token": SECRET}}}]}),
    Proof(SECRET, SECRET),
    Request("POST", "https://x/token", SENT, SECRET.encode()),
    Response(200, SENT, SECRET.encode()),
    TokenSet(access_token=SECRET, refresh_token=SECRET),
    Trust(secrets=(SECRET.encode(),), endpoint=False),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_no_repr_shows_a_secret(holder: Any) -> None:
    """Nor its text."""
    assert SECRET not in f"{holder!r} {holder}"
