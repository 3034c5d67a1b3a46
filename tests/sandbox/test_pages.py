"""What people see at the sandbox, and where an authorization request that is not right leads."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import pytest

from tests.clock import FakeClock
from tests.fakes import CALLBACK, FakeProvider
from tests.fakes.browser import Forms, PageError

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636, appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


def asking(provider: FakeProvider, **changes: str | None) -> str:
    """A URL of the authorization endpoint; None leaves a parameter out."""
    asked: dict[str, str | None] = {
        "response_type": "code", "client_id": provider.client.id, "redirect_uri": CALLBACK, "state": "st-1&x=ü",
        "scope": "profile messages.read", "code_challenge": CHALLENGE, "code_challenge_method": "S256", **changes,
    }  # fmt: skip
    sent = urlencode({name: value for name, value in asked.items() if value is not None})
    return f"{provider.base_url}/oauth/authorize?{sent}"


async def connect(provider: FakeProvider, http: aiohttp.ClientSession, **how: Any) -> dict[str, Any]:
    """Tokens, by the plainest way there is."""
    told = dict(parse_qsl(urlsplit(await provider.consent(asking(provider), **how)).query))
    fields = {
        "grant_type": "authorization_code", "code": told["code"], "redirect_uri": CALLBACK, "code_verifier": VERIFIER,
        "client_id": provider.client.id, "client_secret": provider.client.secret,
    }  # fmt: skip
    async with http.post("/oauth/token", data=fields) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["cache-control"] == "no-store"
        return dict(await answer.json())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"), ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"), ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"), ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "profile root"}, "invalid_scope"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_told_to_the_client(
    provider: FakeProvider, changes: dict[str, str | None], error: str
) -> None:
    """By redirect, with its state and our name; nobody is asked for consent."""
    url = urlsplit(await provider.consent(asking(provider, **changes)))
    told = dict(parse_qsl(url.query))
    assert url._replace(query="").geturl() == CALLBACK
    assert (told["error"], told["state"], told["iss"]) == (error, "st-1&x=ü", provider.base_url)
    assert provider.calls["consent"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"}, {"client_id": None}, {"redirect_uri": None}, {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?x=1"}, {"redirect_uri": CALLBACK.upper()}, {"redirect_uri": "https://evil.example/"},
    ],
)  # fmt: skip
async def test_a_stranger_is_not_sent_anywhere(provider: FakeProvider, changes: dict[str, str | None]) -> None:
    """Without a client and exactly one of its URIs there is only a page."""
    with pytest.raises(PageError, match=r"(?s)^400: .*(not one that the app|No app with)"):
        await provider.consent(asking(provider, **changes))


async def test_a_doubled_parameter_is_refused(provider: FakeProvider) -> None:
    """Two readers would take different ones. A doubled redirect URI leads nowhere at all."""
    told = dict(parse_qsl(urlsplit(await provider.consent(asking(provider) + "&scope=profile")).query))
    assert told["error"] == "invalid_request"
    with pytest.raises(PageError, match="came twice"):
        await provider.consent(asking(provider) + "&redirect_uri=https://evil.example/")


async def test_the_page_is_plain_and_what_it_shows_is_escaped(
    provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    """No script, no foreign markup, no referrer; the hinted user is picked."""
    provider.client.name = '<script>alert(1)</script>"&'
    async with http.get(asking(provider, login_hint="user-2").removeprefix(provider.base_url)) as answer:
        html = await answer.text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    form = Forms(html).found[0]
    assert ("user", "user-2") in form.fields
    assert form.choices["scope"] == ["profile", "messages.read"]


async def test_a_consent_page_is_for_once_and_for_ten_minutes(
    provider: FakeProvider, http: aiohttp.ClientSession, clock: FakeClock
) -> None:
    """Sent twice, sent late, for a user that there is not, never shown: no code. More ticks than asked give no more."""

    async def shown() -> str:
        async with http.get(asking(provider).removeprefix(provider.base_url)) as answer:
            return dict(Forms(await answer.text()).found[0].fields)["consent"]

    async def sent(consent: str, **more: str) -> tuple[int, str]:
        fields = [("consent", consent), ("user", "user-1"), ("decision", "allow"), *more.items()]
        async with http.post("/oauth/authorize", data=fields, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("location", "")

    used = await shown()
    assert (await sent(used, scope="contacts.read"))[0] == 303
    assert next(iter(provider.sandbox.codes.values())).scopes == frozenset()
    assert await sent(used) == (400, "")
    late = await shown()
    clock.move(600)
    assert await sent(late) == (400, "")
    assert await sent(await shown(), user="user-9") == (400, "")
    assert await sent("consent_x") == (400, "")
    assert len(provider.sandbox.codes) == 1


async def test_a_user_ends_an_app_on_the_account_page(provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """The button's POST; the tokens are dead at once, the other user's are not."""
    ada = await connect(provider, http, user="user-1")
    ben = await connect(provider, http, user="user-2")
    async with http.get("/account?user=user-1") as answer:
        forms = Forms(await answer.text()).found
    assert [dict(form.fields)["grant"] for form in forms] == [ada["grant_id"]]
    async with http.post(forms[0].action, data=dict(forms[0].fields)) as answer:
        assert "No app is connected" in await answer.text()
    for token, status in ((ada, 401), (ben, 200)):
        async with http.get("/api/me", headers={"authorization": f"Bearer {token['access_token']}"}) as answer:
            assert answer.status == status
    for path in ("/account?user=nobody", "/account?user=%ff"):
        async with http.get(path) as answer:
            assert answer.status in (400, 404)
    async with http.get("/") as answer:
        assert provider.base_url in await answer.text()


async def test_the_metadata_is_of_this_server(provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """RFC 8414: the issuer is the URL it was asked at, and everything it names is there."""
    async with http.get("/.well-known/oauth-authorization-server") as answer:
        told = await answer.json()
    assert told["issuer"] == provider.base_url
    assert told["authorization_response_iss_parameter_supported"] is True
    for name, url in told.items():
        if name.endswith("_endpoint"):
            async with http.get(url.removeprefix(provider.base_url)) as answer:
                assert answer.status in (400, 405), name
