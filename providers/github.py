"""GitHub: webhooks of GitHub Apps, organizations and repositories. It never retries by itself. Tokens of users and apps.

Without the setting `app_slug`, users authorize an OAuth App or a GitHub App, and that is all. With it, users are sent to
install the GitHub App ("Request user authorization during installation" must be on): one consent then fills the access
profiles `installation`, whose tokens are minted with the app's private key, and `user`. The private key is one of the
integration's client secrets; it is known by its PEM form.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from providers import jwt, oauth, oauth_calls
from providers.calls import Http, Request, Response, api_refusal, bearer
from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import GrantEnded, Malformed, Misconfigured, OddAnswer, ProviderError, ScopeLacking, Suspended
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.reading import account, at, document, form, identifier, iso_instant, media_type, text
from providers.signals import Said, Signal, Tells, known_by
from providers.signatures import header, hmac_hex, matching, raw, text_secret_complaint

PAYLOADS = "https://docs.github.com/en/webhooks/webhook-events-and-payloads"

FACTS = Facts(
    name="github",
    title="GitHub",
    docs_url="https://docs.github.com/en/webhooks/about-webhooks",
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries: the sha1 twin
    # (x-hub-signature) is legacy; it is never looked at, and never stored.
    signature_headers=("x-hub-signature-256", "x-hub-signature"),
    # https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers
    identity_headers=("x-github-delivery", "x-github-event", "x-github-hook-id"),
    kept_headers=(
        "x-github-hook-installation-target-id",
        "x-github-hook-installation-target-type",
    ),
    # https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries: no redelivery by itself
    retries=False,
    # https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks#respond-within-10-seconds
    ack_deadline_s=10.0,
    # https://docs.github.com/en/webhooks/using-webhooks/redelivering-webhooks: for three days, under the same id
    dedupe_window_s=72 * 3600,
    # https://docs.github.com/en/webhooks/webhook-events-and-payloads: no time is signed but what the body holds, and of
    # times that one has only `suspended_at`. An installation never comes back under its number.
    signals=(
        Tells(
            event="github_app_authorization.revoked",
            says=("revoked",),
            knows="nothing",
            source=f"{PAYLOADS}#github_app_authorization",
        ),
        Tells(event="installation.deleted", says=("revoked",), knows="final", source=f"{PAYLOADS}#installation"),
        Tells(event="installation.suspend", says=("suspended",), knows="time", source=f"{PAYLOADS}#installation"),
        Tells(event="installation.unsuspend", says=("resumed",), knows="nothing", source=f"{PAYLOADS}#installation"),
        Tells(
            event="installation.new_permissions_accepted",
            says=("scopes_changed",),
            knows="nothing",
            source=f"{PAYLOADS}#installation",
        ),
    ),
)

# https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-user-access-token-for-a-github-app
# https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/refreshing-user-access-tokens
OAUTH = OAuthFacts(
    authorize_url="https://github.com/login/oauth/authorize",
    token_url="https://github.com/login/oauth/access_token",
    api_base="https://api.github.com",
    client_auth="post",
    pkce=True,  # https://github.blog/changelog/2025-07-14-pkce-support-for-oauth-and-github-app-authentication
    # https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps; answers join them by commas
    scope_separator=" ",
    scopes_merge=True,  # an authorization is one per user and app; a new token has what the new consent asked for
    access_ttl_s=None,  # GitHub Apps: expires_in, 8 hours; OAuth Apps: none, until it was unused for a year
    refresh_idle_s=6 * 30 * 24 * 3600,  # where refresh_token_expires_in does not tell
    rotation="strict",
    refresh_ends_access=True,
    terminal=frozenset({"bad_refresh_token", "bad_verification_code", "unverified_user_email", "invalid_grant"}),
    configuration=frozenset(
        {"incorrect_client_credentials", "redirect_uri_mismatch", "unsupported_grant_type", "application_suspended"}
    ),
    errors_in_200=True,
    revoke_reach="account",  # all tokens of the user at this app
    # They go with the authorization: https://docs.github.com/en/rest/apps/oauth-applications#delete-an-app-authorization
    # What an uninstallation does to tokens minted before: not verified, but it needs no probe, its number is final.
    probe_acquits=True,
)

# A token's scopes are told without those that others imply; on the same page as above.
IMPLIED = {
    "repo": {"repo:status", "repo_deployment", "public_repo", "repo:invite", "security_events"},
    "admin:repo_hook": {"write:repo_hook", "read:repo_hook"},
    "write:repo_hook": {"read:repo_hook"},
    "admin:org": {"write:org", "read:org"},
    "write:org": {"read:org"},
    "admin:public_key": {"write:public_key", "read:public_key"},
    "write:public_key": {"read:public_key"},
    "admin:gpg_key": {"write:gpg_key", "read:gpg_key"},
    "write:gpg_key": {"read:gpg_key"},
    "user": {"read:user", "user:email", "user:follow"},
    "project": {"read:project"},
    "write:discussion": {"read:discussion"},
    "write:packages": {"read:packages"},
}

# Of an installation's permissions, each holding those before it: `permissions` in the answer at
# https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
LEVELS = ("read", "write", "admin")

# https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
JWT_BACKDATED_S = 60
JWT_LIFE_S = 9 * 60  # ten minutes at most, by GitHub's clock
INSTALLATION_TTL_S = 3600

# A 403 that says so in its message only: octokit/octokit.rb, lib/octokit/error.rb
SUSPENDED = re.compile(b"installation has been suspended|suspended your access|account was suspended", re.IGNORECASE)

MOST_PAGES = 20  # of a user's installations, 100 each

FORM = "application/x-www-form-urlencoded"


class Settings(BaseModel):
    """What tells a GitHub App that is installed from one that users only authorize."""

    model_config = ConfigDict(extra="forbid")

    app_slug: str | None = Field(
        None, pattern=r"^[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?$", description="The app's name in github.com/apps/…"
    )
    app_id: int | None = Field(None, gt=0, lt=1 << 53, description="Signs minted tokens instead of the client id.")

    @model_validator(mode="after")
    def _of_an_app(self) -> Self:
        if self.app_id is not None and self.app_slug is None:
            raise ValueError("app_id is of no use without app_slug")
        return self


def check_secret(secret: bytes) -> str | None:
    """The webhook's secret: any text, chosen by whoever made the hook."""
    return text_secret_complaint(secret, shortest=8)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless GitHub signed this exact body. No time is signed, so `now` says nothing."""
    sent = raw(header(delivery, "x-hub-signature-256"))
    index = matching(trust.secrets, lambda secret: b"sha256=" + hmac_hex(secret, delivery.body), [sent])
    return Verified(scheme="sha256", secret=index)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item. The delivery id is not signed: it tells a redelivery, and is no protection against a replay."""
    kind = delivery.headers.get("x-github-event", "")
    if not kind:
        raise Malformed("x-github-event is missing")
    content_type = "application/json"
    sent_as = delivery.headers.get("content-type")
    if sent_as != content_type and media_type(sent_as) == FORM:
        content_type = FORM
    sent = _document(delivery.body, content_type)
    action = text(sent.get("action"))
    name = event_name(f"{kind}.{action}" if action else kind)
    return [
        Item(
            event=name,
            data=delivery.body,
            content_type=content_type,
            accounts=_accounts(kind, sent),
            dedupe=_dedupe(delivery),
            signal=FACTS.is_signal(name),
        )
    ]


def interpret(said: Said) -> Sequence[Signal]:
    """A user's authorization ends the tokens of that user; what happens to an installation, all that came with it."""
    sent = _document(said.data, said.content_type)
    if said.event == "github_app_authorization.revoked":
        user = account("user", at(sent, "sender", "id"))
        return [Signal(says="revoked", reason="authorization_revoked", accounts=user, kinds=("code",))] if user else []
    installation = account("installation", at(sent, "installation", "id"))
    # The name of an event is in a header, which is not signed: whoever has a body of another kind (a comment that was
    # `deleted`, say) could send it again as this one. Those tell of the installation its `id` and `node_id` only.
    if not installation or not account("account", at(sent, "installation", "account", "id")):
        raise Malformed("not an event of an installation")
    match said.event.rpartition(".")[2]:
        case "deleted":
            return [Signal(says="revoked", reason="app_uninstalled", accounts=installation, knows="final")]
        case "suspend":
            since = iso_instant(at(sent, "installation", "suspended_at"))
            known = known_by(since)
            return [Signal(says="suspended", reason="app_suspended", accounts=installation, knows=known, at=since)]
        case "unsuspend":
            return [Signal(says="resumed", reason="app_unsuspended", accounts=installation)]
        case _:
            minted = ("installation",)  # a user's token has the permissions of its app, too, but none of its own
            return [
                Signal(says="scopes_changed", reason="permissions_accepted", accounts=installation, kinds=minted)
            ]  # fmt: skip


def oauth_facts(settings: Mapping[str, Any]) -> OAuthFacts:
    """Of an app that is installed, where `app_slug` names it.

    The state comes back from the installation page, `redirect_uri` and PKCE are not taken there.
    https://docs.github.com/en/apps/sharing-github-apps/sharing-your-github-app
    """
    slug = settings.get("app_slug")
    if not slug:
        return OAUTH
    return replace(
        OAUTH,
        authorize_url=f"https://github.com/apps/{slug}/installations/new",
        pkce=False,
        profiles=("installation", "user"),
        minted=("installation",),
        grant_kinds=("code", "installation"),
        # Whoever is no owner of the organization can only ask for it.
        # https://docs.github.com/en/apps/using-github-apps/requesting-a-github-app-from-your-organization-owner
        # The parameter is not documented, only seen: https://github.com/orgs/community/discussions/42351
        awaits_approval={"setup_action": "request"},
        revoke_reach="installation",
    )


def authorize(asked: Asked, app: App) -> Mapping[str, str]:
    """Of the installation page only `state` is known; permissions are the app's, not the consent's."""
    if app.settings.get("app_slug"):
        return {"state": asked.state}
    return oauth.authorize_parameters(OAUTH, app, asked) | ({"login": asked.login_hint} if asked.login_hint else {})


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """An exchange and a refresh bring a user's token. Where an installation was asked for, that one is `user`."""
    found = oauth.token_set(OAUTH, answer)
    found = replace(found, scopes=_whole(found.scopes))
    return dict.fromkeys(["user"] if "installation" in asked.scopes else asked.scopes, found)


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The user; or the installation that the callback names, once GitHub says that the user may have to do with it.

    Anyone can write an installation_id into a URL.
    https://docs.github.com/en/apps/creating-github-apps/registering-a-github-app/about-the-setup-url
    """
    token = next(iter(tokens.values())).access_token
    user = f"user:{oauth_calls.key_at((await _answer(http, _get('/user', token))).json(), 'id')}"
    if not app.settings.get("app_slug"):
        return Identity(subject=user, accounts=(user,), reach=user)
    named = app.callback.get("installation_id", "")
    async for one in _installations(http, token):
        if identifier(one.get("id")) == named and named:
            subject = f"installation:{named}"
            owner = account("account", at(one, "account", "id"))
            return Identity(subject=subject, accounts=(subject, *owner, user), reach=subject)
    raise OddAnswer("installation_not_the_users")


async def mint(http: Http, app: App, accounts: Sequence[str]) -> TokenSet:
    """A token of the installation that `accounts` name; `parameters` keeps its id for the next time.

    Its scopes are the permissions that the owner has accepted: `contents:read`.

    https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    Raises: GrantEnded (it is uninstalled), Suspended, Misconfigured (the key is not the app's).
    """
    number = _installation(accounts)
    path = f"/app/installations/{number}"
    response = await http.send(_as_app(app, "POST", f"{path}/access_tokens"))
    if response.status == 403:
        said = await _app_call(http, _as_app(app, "GET", path))
        raise Suspended() if said.get("suspended_at") else ScopeLacking(status=403)
    answer = _app_answer(response)
    expires, now = iso_instant(answer.get("expires_at")), _now(app)
    found = oauth.token_set(OAUTH, {"access_token": answer.get("token")})
    life_s = INSTALLATION_TTL_S if expires is None else int((expires - now).total_seconds())
    return replace(
        found, expires_in_s=max(0, min(life_s, INSTALLATION_TTL_S)), parameters={"installation": number},
        scopes=_permitted(answer.get("permissions")),
    )  # fmt: skip


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """Uninstall the app, or end the user's authorization of it, which takes an access token that is still good.

    https://docs.github.com/en/rest/apps/oauth-applications#delete-an-app-authorization
    https://docs.github.com/en/rest/apps/apps#delete-an-installation-for-the-authenticated-app
    """
    if number := tokens.parameters.get("installation"):
        path = f"/app/installations/{_installation([f'installation:{number}'])}"
        await _deleted(http, _as_app(app, "DELETE", path))
    elif not await _deleted(http, _grant(app, tokens.access_token)):
        fresh = await oauth_calls.last_access(http, OAUTH, app, tokens)
        if fresh is not None:
            await _deleted(http, _grant(app, fresh))


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """An installation token cannot read /user; both can read their rate limit, which costs nothing of it.

    Tokens of OAuth Apps have scopes, told in a header of every answer; those of GitHub Apps have none.
    https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
    """
    response = await _answer(http, _get("/rate_limit", tokens.access_token))
    response.json()  # a page in its place says nothing.    Raises: OddAnswer
    return _whole(oauth.scopes_of(response.headers.get("x-oauth-scopes"), ",")) or None


def _permitted(said: Any) -> frozenset[str] | None:
    """`{"contents": "write"}` as scopes, with the levels that a level holds; None where the answer does not tell."""
    if not isinstance(said, dict):
        return None
    held = {name: LEVELS[: LEVELS.index(level) + 1] for name, level in said.items() if level in LEVELS}
    return frozenset(f"{name}:{level}" for name, levels in held.items() for level in levels)


def _whole(scopes: frozenset[str] | None) -> frozenset[str] | None:
    """Scopes as they are told, with those that they imply."""
    return None if scopes is None else scopes | {more for one in scopes for more in IMPLIED.get(one, ())}


# https://docs.github.com/en/rest/about-the-rest-api/api-versions
_HEADERS = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28", "user-agent": "posthouse"}


def _get(path: str, token: str) -> Request:
    return bearer("GET", f"{OAUTH.api_base}{path}", token, _HEADERS)


async def _answer(http: Http, request: Request) -> Response:
    """What a call with somebody's token brings.    Raises: ProviderError; Suspended, the installation or the user is."""
    response = await http.send(request)
    refused = api_refusal(response)
    if isinstance(refused, ScopeLacking) and SUSPENDED.search(response.body):
        raise Suspended(status=response.status)
    if refused is not None:
        raise refused
    return response


def _grant(app: App, token: str) -> Request:
    url = f"{OAUTH.api_base}/applications/{quote(app.client_id, safe='')}/grant"
    headers = {**_HEADERS, "authorization": oauth.basic(app), "content-type": "application/json"}
    return Request("DELETE", url, headers, orjson.dumps({"access_token": token}), carries_client_secret=True)


async def _deleted(http: Http, request: Request) -> bool:
    """False: there was nothing to delete (404), or the token in it is over (422).    Raises: ProviderError."""
    response = await http.send(request)
    if response.status in (404, 422):
        return False
    refused = api_refusal(response)
    if isinstance(refused, GrantEnded):  # it is our own credentials that are not taken
        raise Misconfigured("app_rejected", status=response.status)
    if refused is not None:
        raise refused
    return True


async def _installations(http: Http, token: str) -> AsyncIterator[dict[str, Any]]:
    """https://docs.github.com/en/rest/apps/installations#list-app-installations-accessible-to-the-user-access-token"""
    for page in range(1, MOST_PAGES + 1):
        response = await _answer(http, _get(f"/user/installations?per_page=100&page={page}", token))
        found = response.json().get("installations")
        if not isinstance(found, list) or not found:
            return
        for one in found:
            if isinstance(one, dict):
                yield one


def _installation(accounts: Iterable[str]) -> str:
    """The number in `installation:42`.    Raises: Misconfigured, no account is one."""
    for one in accounts:
        kind, _, number = one.partition(":")
        if kind == "installation" and number.isascii() and number.isdigit():
            return number
    raise Misconfigured("installation_missing")


def _as_app(app: App, method: str, path: str) -> Request:
    """A call that the app itself makes, for a few minutes.    Raises: Misconfigured, the private key is none."""
    if not app.private_key:
        raise Misconfigured("private_key_missing")
    now = int(_now(app).timestamp())
    issuer = str(app.settings.get("app_id") or app.client_id)
    claims = {"iat": now - JWT_BACKDATED_S, "exp": now + JWT_LIFE_S, "iss": issuer}
    return bearer(method, f"{OAUTH.api_base}{path}", jwt.signed(claims, app.private_key), _HEADERS)


def _now(app: App) -> datetime:
    assert app.now is not None, "minting needs App.now"
    return app.now.astimezone(UTC)


async def _app_call(http: Http, request: Request) -> dict[str, Any]:
    return _app_answer(await http.send(request))


def _app_answer(response: Response) -> dict[str, Any]:
    """An answer to the app itself: 401 means its key, 404 an installation that is gone."""
    if response.status == 404:
        raise GrantEnded("installation_gone", status=404)
    refused: ProviderError | None = api_refusal(response)
    if isinstance(refused, GrantEnded):
        raise Misconfigured("app_rejected", status=response.status)
    if refused is not None:
        raise refused
    return response.json()


def _document(body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object that a hook sends as it is, or in a form.    Raises: Malformed."""
    if content_type == FORM:
        body = form(body).get("payload", "").encode("utf-8", "surrogatepass")
    return document(body)


def _dedupe(delivery: Delivery) -> str | None:
    """The delivery id and the hook: all hooks that an event goes to get it under one id, with bodies of their own.

    `guid` at https://docs.github.com/en/rest/repos/webhooks#list-deliveries-for-a-repository-webhook: "shared with
    all deliveries for all webhooks that subscribe to this event". A redelivery repeats both.
    """
    name, hook = delivery.headers.get("x-github-delivery"), delivery.headers.get("x-github-hook-id")
    return f"{name}/{(hook and identifier(hook)) or ''}" if name and identifier(name) else None


def _accounts(kind: str, sent: dict[str, Any]) -> tuple[str, ...]:
    """Whose it is: the installation, the organization, the owning account, the repository.

    The sender is only who acted, with one exception: a revoked user authorization names nothing else.
    https://docs.github.com/en/webhooks/webhook-events-and-payloads#github_app_authorization
    """
    if kind == "github_app_authorization":
        return account("user", at(sent, "sender", "id"))
    installation, organization, repository = sent.get("installation"), sent.get("organization"), sent.get("repository")
    found: tuple[str, ...] = ()
    owner = None
    if installation:
        found = account("installation", at(installation, "id"))
        owner = at(installation, "account", "id")
    if organization:
        found += account("org", at(organization, "id"))
        owner = owner or at(organization, "id")
    if repository:
        owner = owner or at(repository, "owner", "id")
    if owner:
        found += account("account", owner)
    return found + account("repo", at(repository, "id")) if repository else found
