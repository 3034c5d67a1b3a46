"""RFC 9700 and RFC 9207, the client's side, and PROTOCOLS 7: what a stranger, a liar or a mistaken mail can try."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from providers.registry import all_providers
from tests.connect.browser import Browser, heading, query_of
from tests.connect.conftest import BACK, Town, declare
from tests.web.conftest import lines  # noqa: F401 - a fixture

Change = Callable[[dict[str, str]], dict[str, str]]


def changed(url: str, change: Change) -> str:
    """A callback with other parameters."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode(change(dict(parse_qsl(parts.query))))).geturl()


async def refused(town: Town, answer: httpx.Response, made: object, title: str) -> None:
    """A page says so, nothing was exchanged, and the session stands where it stood."""
    assert heading(answer) == title
    assert answer.status_code >= 400
    assert town.provider.calls["token"] == 0
    assert (await town.session(made))["state"] == "opened"
    assert await town.count("staged_tokens") == 0


async def test_the_authorization_request(town: Town) -> None:
    """Code flow with PKCE S256, an exact redirect URI, a fresh state each time; none of ours is in the URL in plain."""
    made, mine = await town.ask(), town.browser()
    seen = []
    for _ in range(2):
        url = await town.press(made, mine)
        asked = dict(parse_qsl(urlsplit(url).query))
        assert url.startswith(town.provider.base_url + "/oauth/authorize?")
        assert {
            name: asked[name] for name in ("response_type", "client_id", "redirect_uri", "code_challenge_method")
        } == {
            "response_type": "code",
            "client_id": town.provider.client.id,
            "redirect_uri": town.gateway.settings.public_url + "/oauth/callback/sandbox",
            "code_challenge_method": "S256",
        }
        assert made["url"].rpartition("/")[2] not in url
        seen += [asked["state"], asked["code_challenge"], *mine.http.cookies.values()]
    assert len({len(one) for one in seen}) == 1
    assert len(set(seen)) == 5  # the cookie is the same


async def test_looking_at_a_link_changes_nothing(town: Town) -> None:
    """Mail programs and chats fetch links: the link is as fresh as before, and binds no browser."""
    made = await town.ask()
    for method in ("GET", "HEAD", "GET"):
        answer = await town.browser().http.request(method, made["url"])
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
    assert (await town.session(made))["state"] == "created"
    await town.press(made, town.browser())


async def test_a_link_works_in_one_browser(town: Town) -> None:
    """The first that presses the button. That one may begin again, which ends what it had begun before."""
    made, mine = await town.ask(), town.browser()
    page = await mine.get(made["url"])
    by_id = f"{town.gateway.settings.public_url}/connect/{made['id']}"
    assert (await town.browser().http.post(by_id)).status_code == 410  # an id is no link
    first = await town.press(made, mine)
    assert (await town.browser().http.post(by_id)).status_code == 410
    other = await town.browser().press(page)
    assert (other.status_code, heading(other)) == (410, "This link was already used")
    second = await town.press(made, mine)
    late = await mine.get(await town.provider.consent(first))
    await refused(town, late, made, "This step cannot be taken")
    assert query_of(await town.decide(second, mine))["code"]
    gone = await mine.get(made["url"])
    assert (gone.status_code, heading(gone)) == (410, "This link was already used")


async def test_a_callback_belongs_to_the_browser_that_began(town: Town) -> None:
    """CSRF and login CSRF: without the cookie, or with another browser's, no code is exchanged; ours still may."""
    made, mine, theirs = await town.ask(), town.browser(), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    await town.press(await town.ask(), theirs)
    for stranger in (town.browser(), theirs):
        await refused(town, await stranger.get(callback), made, "Started in another browser")
    assert query_of(await mine.get(callback))["code"]


async def test_a_callback_counts_once(town: Town) -> None:
    """A replay, later or at the same moment: one exchange, and one code for the platform."""
    for exchanged, at_once in ((1, False), (2, True)):
        made, mine = await town.ask(), town.browser()
        callback = await town.provider.consent(await town.press(made, mine))
        if at_once:
            answers = await asyncio.gather(*(mine.get(callback) for _ in range(5)))
        else:
            answers = [await mine.get(callback) for _ in range(3)]
        assert sorted(answer.status_code for answer in answers) == [303] + [400] * (len(answers) - 1)
        assert town.provider.calls["authorization_code"] == exchanged


UNKNOWN: dict[str, Change] = {
    "another state": lambda said: {**said, "state": "A" * 43},
    "a state that is none": lambda said: {**said, "state": "x'; DROP TABLE"},
    "no state": lambda said: {name: value for name, value in said.items() if name != "state"},
    "an installation from the provider's side": lambda said: {
        "installation_id": "42",
        "setup_action": "install",
        "code": said["code"],
    },
    "nothing": lambda said: {},
}


async def test_a_callback_without_our_state_is_refused(town: Town) -> None:
    """Whatever else it brings."""
    made, mine = await town.ask(), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    for change in UNKNOWN.values():
        await refused(town, await mine.get(changed(callback, change)), made, "This step cannot be taken")
    doubled = callback + "&state=" + "A" * 43  # RFC 6749 section 3.1
    await refused(town, await mine.get(doubled), made, "This step cannot be taken")


async def test_a_state_lives_for_ten_minutes(town: Town) -> None:
    """By the region's clock; so does the link before it."""
    made, mine, late = await town.ask(), town.browser(), await town.ask()
    callback = await town.provider.consent(await town.press(made, mine))
    await town.pass_s(601)
    answer = await mine.get(callback)
    assert (answer.status_code, heading(answer)) == (410, "This link has expired")
    assert town.provider.calls["token"] == 0
    assert (await town.session(made))["state"] == "expired"
    answer = await mine.get(late["url"])
    assert (answer.status_code, heading(answer)) == (410, "This link has expired")


MIXED_UP: dict[str, Change] = {
    "another server's name": lambda said: {**said, "iss": "https://evil.example.com"},
    "nearly its name": lambda said: {**said, "iss": said["iss"] + "/"},
    "no name, though the server always gives it": lambda said: {name: value for name, value in said.items() if name != "iss"},
}  # fmt: skip


async def test_an_answer_of_another_server_is_refused(town: Town) -> None:
    """RFC 9207: `iss` is compared exactly before anything is sent to the token endpoint."""
    made, mine = await town.ask(), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    denied = changed(callback, lambda said: {**said, "error": "access_denied"})
    for url in (changed(url, change) for change in MIXED_UP.values() for url in (callback, denied)):
        await refused(town, await mine.get(url), made, "This step cannot be taken")
    assert query_of(await mine.get(callback))["code"]


async def test_an_issuer_that_nobody_can_tell_is_none(town: Town) -> None:
    """A part of it is missing in the set-up: then no `iss` is the right one, and the code is not exchanged."""
    sandbox = all_providers()["sandbox"]
    assert sandbox.oauth is not None
    lacking = replace(sandbox.oauth, issuer="https://{nowhere}.example.com", issuer_always=False)
    all_providers()["nameless"] = replace(sandbox, facts=replace(sandbox.facts, name="nameless"), oauth=lacking)
    try:
        await declare(town, "other", provider="nameless")
        made, mine = await town.ask(integration="other"), town.browser()
        answer = await town.decide(await town.press(made, mine), mine)
    finally:
        del all_providers()["nameless"]
    assert not answer.is_redirect
    assert (await town.session(made))["reason"] == "nowhere_missing"
    assert town.provider.calls["authorization_code"] == 0


async def test_an_answer_at_another_integrations_address_is_refused(town: Town) -> None:
    """The mix-up defence of RFC 9700 section 4.4.2: a redirect URI for each integration."""
    await declare(town, "other")
    made, mine = await town.ask(), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    for name in ("other", "no-such-integration"):
        elsewhere = callback.replace("/oauth/callback/sandbox", f"/oauth/callback/{name}")
        await refused(town, await mine.get(elsewhere), made, "This step cannot be taken")
    assert query_of(await mine.get(callback))["code"]


async def test_codes_of_two_sessions_cannot_be_swapped(town: Town) -> None:
    """Code injection: each code is bound to its own session's PKCE challenge, whoever's browser brings it."""
    mine, theirs = town.browser(), town.browser()
    a, b = await town.ask(), await town.ask()
    ours = await town.provider.consent(await town.press(a, mine))
    stolen = await town.provider.consent(await town.press(b, theirs), user="user-2")
    code = dict(parse_qsl(urlsplit(stolen).query))["code"]
    answer = await mine.get(changed(ours, lambda said: {**said, "code": code}))
    assert heading(answer) == "Sandbox did not answer as it should"
    shown = await town.session(a)
    assert (shown["state"], shown["outcome"], shown["reason"]) == ("opened", "provider_error", "invalid_grant")
    assert await town.count("staged_tokens") == 0


async def test_a_mailed_link_gives_its_sender_nothing(town: Town) -> None:
    """A victim consents by a stranger's link. The code goes to the platform in the victim's own browser.

    The stranger's platform session never sees it, so the connection stays pending, unread, and ends by itself.
    """
    made, victim = await town.ask(), town.browser()
    code = query_of(await town.consent(made, victim))["code"]
    for guess in ("", "A" * 43, made["url"].rpartition("/")[2], "short"):
        if guess:
            said = await town.complete(made, guess, status=422)
            assert said["type"].endswith("/wrong_code")
    shown = await town.session(made)
    assert (shown["state"], shown["connection_state"], code in str(shown)) == ("returned", "pending", False)
    assert await town.count("tokens") == 0
    read = await town.api("GET", f"/v1/connections/{shown['connection']}/token")
    assert (read.status_code, read.json()["do"]) == (409, "complete")
    for _ in range(2):
        await town.complete(made, "B" * 43, status=422)
    shown = await town.session(made)
    assert (shown["state"], shown["outcome"], shown["connection"]) == ("failed", "wrong_code", None)
    assert await town.count("staged_tokens") + await town.count("connections") == 0
    await town.complete(made, code, status=409)


async def test_only_our_own_button_is_pressed(town: Town) -> None:
    """A form on another site, submitted by itself, does not begin anything in its visitor's browser."""
    made, victim = await town.ask(), town.browser()
    page = await victim.get(made["url"])
    for headers in (
        {"origin": "https://evil.example.com"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = await victim.press(page, **headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (400, False)
    assert (await town.session(made))["state"] == "created"


ELSEWHERE = [
    "https://evil.example.com/connected", BACK + "/more", BACK + "#fragment", BACK.replace("https", "http"), "//evil.example.com",
    BACK + "@evil.example.com", "https://app.example.com.evil.example.com/connected", BACK.upper(), BACK + "\\",
    "javascript:alert(1)", BACK + "\n", "",
]  # fmt: skip


async def test_a_session_returns_to_listed_urls_only(town: Town) -> None:
    """No open redirector; a query of the platform's own is kept."""
    for url in ELSEWHERE:
        assert (await town.ask(return_url=url, status=422))["type"].endswith("/invalid")
    made = await town.ask(return_url=BACK + "?tab=2")
    assert (await town.consent(made)).headers["location"].startswith(f"{BACK}?tab=2&session={made['id']}&code=")


async def test_a_return_url_that_was_taken_off_the_list_is_not_used(town: Town) -> None:
    """The code then stands on our own page."""
    made = await town.ask()
    await town.api("PATCH", "/v1/integrations/sandbox", {"return_urls": ["https://new.example.com/"]})
    answer = await town.consent(made)
    assert (answer.status_code, BACK in answer.text) == (200, False)
    assert heading(answer) == "Your Sandbox account gave its permission"


async def test_pages_carry_their_protection_and_reflect_nothing(town: Town) -> None:
    """Each answer of the pages; with a script where text could be."""
    made, mine = await town.ask(), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    script = "<script>alert(1)</script>"
    bad = [
        made["url"], made["url"] + "<script>", callback + "&more=" + script, changed(callback, lambda s: {**s, "state": script}),
        changed(callback, lambda s: {**s, "error": script, "error_description": script}),
    ]  # fmt: skip
    for url in bad:
        answer = await mine.get(url)
        headers = answer.headers
        assert "script" not in answer.text
        assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
        if not answer.is_redirect:
            assert headers["x-content-type-options"] == "nosniff"
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'nonce-")
            assert "frame-ancestors 'none'" in policy
            assert answer.text.count(f'nonce="{policy.split("nonce-")[1].split(chr(39))[0]}"') == 1
    assert (await mine.http.put(made["url"])).status_code == 405
    assert (await mine.http.post(callback)).status_code == 405
    assert (await mine.get(town.gateway.settings.public_url + "/elsewhere")).status_code == 404


async def test_nothing_secret_is_logged(town: Town, lines: io.BytesIO) -> None:  # noqa: F811
    """Links, states, codes and tokens: paths and queries stand in no line, not even when something fails."""
    made, mine = await town.ask(), town.browser()
    url = await town.press(made, mine)
    callback = await town.provider.consent(url)
    town.provider.misbehave("authorization_code", "invalid_grant")
    await mine.get(callback)
    done = await town.connect(mine)
    asked, answered = dict(parse_qsl(urlsplit(url).query)), dict(parse_qsl(urlsplit(callback).query))
    grant = (await town.grants(done))["reader"]
    secrets = [
        made["url"].rpartition("/")[2], asked["state"], asked["code_challenge"], answered["code"],
        *(await asyncio.gather(town.token(grant), town.token(grant, "refresh"))), *mine.http.cookies.values(), "hunter2",
    ]  # fmt: skip
    written = lines.getvalue().decode()
    assert '"/oauth/callback/{integration}"' in written
    assert [secret for secret in secrets if secret in written] == []
    dumped = str(await town.gateway.regions.home.database.fetch("SELECT * FROM gateway.connect_sessions"))
    assert [secret for secret in secrets if secret in dumped] == []


async def test_over_https_the_cookie_is_this_hosts_alone(town: Town) -> None:
    """`__Host-`: Secure, for every path, of no domain; not for scripts; and it comes along from the provider."""
    from gateway.web.connect_pages import Pages

    town.gateway.settings = town.gateway.settings.model_copy(update={"public_url": "https://hooks.example.com"})
    made = await town.ask()
    path = urlsplit(made["url"]).path.encode()
    answer = await Pages(town.gateway).answer("POST", path, b"", [])
    assert answer.status == 303
    cookie = dict(answer.headers)["set-cookie"]
    name, _, rest = cookie.partition("=")
    assert name == "__Host-posthouse-connect"
    assert set(rest.split("; ")[1:]) == {"Max-Age=86400", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


def test_the_browser_of_these_tests_is_strict() -> None:
    """It follows no redirect by itself, so each test sees each step."""
    assert Browser().http.follow_redirects is False
