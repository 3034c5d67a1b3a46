"""OAuth 2.0 as providers really do it: the facts, and the plain way through, which a module overrides where it differs.

A module that connects accounts defines `OAUTH: OAuthFacts`, and may define

- `oauth_facts(settings) -> OAuthFacts`: the facts of an integration with these settings, where they depend on them
  (default: `OAUTH`); ask for them by `Provider.oauth_for(settings)`, which also puts the operator's URL parts in,
- `authorize(asked, app) -> Mapping[str, str]`: parameters of the authorization URL (default: `authorize_parameters`),
- `check_callback(parameters, app) -> None`: where the provider signs what its callback brings: raise `errors.Refused` unless
  it signed all of these `parameters` (state and code too), for this session; asked before the code is exchanged,
- `token_sets(answer, asked) -> Mapping[profile, TokenSet]`: what a token answer holds, of an exchange and of a refresh
  alike (default: `token_set` for the profile that was asked for),
- `classify(response) -> ProviderError | None`: what an answer of the token endpoint means (default: `refusal`),
- `identify(http, app, tokens) -> Identity`: whose account these tokens (by access profile) are of; always there where
  a person consents,
- `mint(http, app, accounts) -> TokenSet`: a token that is made anew instead of refreshed, for account keys such as
  `installation:42` (GitHub); what has to be known to mint again is in `TokenSet.parameters`:
  `{"installation": "42"}`,
- `revoke(http, app, tokens) -> None`: end the grant at the provider; one that is gone already is no error,
- `probe(http, app, tokens) -> frozenset[str] | None`: a cheap call with the access token; raises what it shows, tells the
  scopes that the token has where the answer does (in the spelling of `TokenSet.scopes`), else None,
- `token_marks(tokens) -> tuple[str, ...]`: account keys by which a security event names one of these tokens, as in
  `Item.accounts`; as good as the token to whoever guesses, so kept as keyed hashes only,
- `stream_set_up(http, app, url)`, `stream_verify(http, app, state)`: have security events delivered to `url`, and have
  one sent that repeats `state`.

Source: RFC 6749, RFC 6750, RFC 7009, RFC 7636, RFC 9207, RFC 9700.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode

import orjson

from providers.calls import FORM, Request, Response, retry_after_s
from providers.errors import (
    GrantEnded,
    Misconfigured,
    OddAnswer,
    ProviderError,
    RateLimited,
    ReuseReported,
    Unreachable,
)

Reach = Literal["token", "account", "installation"]
Rotation = Literal["none", "strict", "grace"]
LONGEST_TOKEN = 16 * 1024  # Microsoft's run to a few KiB
SHORT_S = 300  # the life of a token of which it cannot be told


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthFacts:
    """What the gateway must know of a provider to connect accounts there. Every fact has its source in the module."""

    # URLs may hold {parts}: of the integration's settings (fixed by the operator), or of `user_parts`.
    authorize_url: str | None  # None: nobody consents (client credentials only)
    token_url: str
    revoke_url: str | None = None
    api_hosts: tuple[str, ...] = ()  # further hosts that this module's calls go to
    # URL parts that an end user or the platform chooses for a session, each with the whole pattern it must match.
    user_parts: Mapping[str, str] = field(default_factory=dict)
    default_parts: Mapping[str, str] = field(default_factory=dict)  # where neither settings nor session name one
    # What `iss` of the authorization response must be, where it is sent (RFC 9207); may hold {parts}.
    issuer: str | None = None
    issuer_always: bool = False  # the server announces it: an answer without `iss` is refused
    client_auth: Literal["basic", "post", "none"] = "post"
    token_encoding: Literal["form", "json"] = "form"
    pkce: bool = True  # S256
    scope_separator: str = " "
    scopes_merge: bool = False  # one grant per account and app: a narrower consent is folded into the wider one
    incremental: bool = False  # may ask for just the missing scopes, and gets the union
    profiles: tuple[str, ...] = ()  # fixed access profiles, all filled by one consent (Slack's bot and user)
    minted: tuple[str, ...] = ()  # those of `profiles` whose tokens `mint` makes for the accounts of the identity
    # What the callback says where somebody else has to approve first: then no code in it counts.
    awaits_approval: Mapping[str, str] = field(default_factory=dict)
    authorize_extra: Mapping[str, str] = field(default_factory=dict)
    token_extra: Mapping[str, str] = field(default_factory=dict)  # of the code exchange
    refresh_sends_redirect_uri: bool = False
    grant_kinds: tuple[Literal["code", "client_credentials", "installation"], ...] = ("code",)
    access_ttl_s: int | None = None  # where the answer has no expires_in; None: it does not expire
    refresh_idle_s: int | None = None  # a refresh token that is not used for so long dies
    refresh_life_s: int | None = None  # from the consent, whatever is done
    rotation: Rotation = "none"  # of refresh tokens: strict = the old one is dead at once, and may end the family
    reuse_grace_s: int = 0  # how long the old one still works where there is a grace
    refresh_ends_access: bool = False  # a refresh kills the old access token too
    refresh_expected: bool = True  # a consent that brings no refresh token though its access token expires is a fault
    # Error codes of the token endpoint, as data. What is in none of them: 4xx terminal codes of RFC 6749 below, else transient.
    terminal: frozenset[str] = frozenset({"invalid_grant"})
    # Those of `terminal` by which the provider says that the refresh token was used before, by whomever.
    reuse: frozenset[str] = frozenset()
    configuration: frozenset[str] = frozenset(
        {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request"}
    )
    transient: frozenset[str] = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
    error_field: str = "error"
    errors_in_200: bool = False
    revoke_reach: Reach = "token"
    # Does a call that its access token still passes say that the grant lives? Not where access tokens are read without
    # asking whoever could revoke them: they go on until they expire.
    probe_acquits: bool = True
    api_base: str | None = None  # of the provider's API, for probe and identify; may hold {parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One integration as its provider module sees it in a call."""

    client_id: str
    client_secret: str = field(repr=False)
    # Client secrets that are still listed beside it, newest first: a provider may go on signing with one of them.
    older_secrets: tuple[str, ...] = field(repr=False, default=())
    settings: Mapping[str, Any] = field(repr=False, default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)  # URL parts: the settings' and the session's
    redirect_uri: str = ""
    keys: Mapping[str, Any] = field(repr=False, default_factory=dict)  # the provider's published keys, by kid
    private_key: str = field(repr=False, default="")  # PEM, of a GitHub App
    now: datetime | None = None  # when this call is made, UTC: `mint` needs it; id tokens are judged by it if given
    # Of the consent that `identify` is asked about: all parameters that the callback brought but `code` and `state`,
    # and the nonce that went out.
    callback: Mapping[str, str] = field(repr=False, default_factory=dict)
    nonce: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a consent asks for."""

    scopes: Mapping[str, tuple[str, ...]]  # by access profile: required and optional ones together, in their order
    optional: frozenset[str] = frozenset()  # those of them that the connection works without
    state: str = field(repr=False, default="")
    code_challenge: str | None = None
    nonce: str | None = field(repr=False, default=None)
    login_hint: str | None = None
    again: bool = False  # a reconnect: the consent screen must be shown, so that a refresh token comes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """What a token answer brought for one access profile. Its repr shows no token."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False, default=None)
    token_type: str = "Bearer"
    expires_in_s: int | None = None  # None: does not expire
    refresh_expires_in_s: int | None = None
    scopes: frozenset[str] | None = None  # None: not told, so those that were asked for (RFC 6749 section 5.1)
    id_token: str | None = field(repr=False, default=None)
    parameters: Mapping[str, str] = field(default_factory=dict)  # what calls need beside it, no secret: instance_url …


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose account it is. Kept as keyed hashes only."""

    subject: str  # one text for the account, e.g. "user:110169484474386276334": the same at every reconnect
    accounts: tuple[str, ...] = ()  # keys by which its deliveries are known, as in Item.accounts
    reach: str | None = (
        None  # what a revocation would reach, where that is more than this token: two that agree share it
    )


def authorize_parameters(facts: OAuthFacts, app: App, asked: Asked) -> dict[str, str]:
    """Parameters of the authorization request (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""
    scopes = list(dict.fromkeys(scope for of in asked.scopes.values() for scope in of))
    sent = {"response_type": "code", "client_id": app.client_id, "redirect_uri": app.redirect_uri, "state": asked.state}
    if scopes:
        sent["scope"] = facts.scope_separator.join(scopes)
    if facts.pkce and asked.code_challenge is not None:
        sent |= {"code_challenge": asked.code_challenge, "code_challenge_method": "S256"}
    return {**sent, **facts.authorize_extra}


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """`url` with parameters behind those it has."""
    return url + ("&" if "?" in url else "?") + urlencode(parameters, quote_via=quote)


PART = re.compile(r"\{([a-z_]+)\}")
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # one DNS label: the pattern of a part that stands in a host name


def filled(url: str, facts: OAuthFacts, app: App) -> str:
    """`url` with its {parts}: the operator's where the settings name one, else the session's, else the default.

    Raises: Misconfigured: one is missing, or what a user may choose does not match its whole pattern."""

    def part(found: re.Match[str]) -> str:
        name = found[1]
        value = app.settings.get(name)
        if not value and (name in facts.user_parts or name not in facts.default_parts):
            value = app.parts.get(name)
        value = value or facts.default_parts.get(name)
        if not isinstance(value, str) or not value:
            raise Misconfigured(f"{name}_missing")
        pattern = facts.user_parts.get(name)
        if pattern is not None and not re.fullmatch(pattern, value):
            raise Misconfigured(f"{name}_invalid")
        return value

    return PART.sub(part, url)


def settled(facts: OAuthFacts, settings: Mapping[str, Any]) -> OAuthFacts:
    """`facts` with the operator's URL parts put in; what a session may still choose stays a {part}."""

    def part(found: re.Match[str]) -> str:
        value = settings.get(found[1]) or (None if found[1] in facts.user_parts else facts.default_parts.get(found[1]))
        return value if isinstance(value, str) else found[0]

    def put_in(url: str | None) -> str | None:
        return None if url is None else PART.sub(part, url)

    return replace(
        facts,
        authorize_url=put_in(facts.authorize_url),
        token_url=PART.sub(part, facts.token_url),
        revoke_url=put_in(facts.revoke_url),
        issuer=put_in(facts.issuer),
        api_base=put_in(facts.api_base),
    )


def told_apart(secrets: Sequence[bytes]) -> tuple[tuple[str, ...], str]:
    """An integration's client secrets, newest first, as (those that are texts, private key): a PEM text is the key."""
    texts = [secret.decode("utf-8", "replace") for secret in secrets]
    keys = [text for text in texts if text.lstrip().startswith("-----BEGIN ")]
    return tuple(text for text in texts if text not in keys), (keys[0] if keys else "")


def token_request(facts: OAuthFacts, app: App, fields: Mapping[str, str]) -> Request:
    """A call of the token endpoint, the client authenticated the provider's way (RFC 6749 sections 2.3, 4.1.3, 6)."""
    return _authenticated(filled(facts.token_url, facts, app), facts, app, fields)


def code_fields(facts: OAuthFacts, app: App, code: str, verifier: str | None) -> dict[str, str]:
    """Fields of the code exchange."""
    sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": app.redirect_uri}
    if facts.pkce and verifier is not None:
        sent["code_verifier"] = verifier
    return {**sent, **facts.token_extra}


def refresh_fields(facts: OAuthFacts, app: App, refresh_token: str) -> dict[str, str]:
    """Fields of a refresh."""
    sent = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return sent | ({"redirect_uri": app.redirect_uri} if facts.refresh_sends_redirect_uri else {})


def credentials_fields(facts: OAuthFacts, scopes: Collection[str]) -> dict[str, str]:
    """Fields of a client-credentials grant (RFC 6749 section 4.4)."""
    sent = {"grant_type": "client_credentials"}
    return sent | ({"scope": facts.scope_separator.join(scopes)} if scopes else {})


def revoke_request(facts: OAuthFacts, app: App, token: str, hint: str) -> Request:
    """RFC 7009."""
    assert facts.revoke_url is not None
    url = filled(facts.revoke_url, facts, app)
    return _authenticated(url, facts, app, {"token": token, "token_type_hint": hint})


def basic(app: App) -> str:
    """The client's HTTP Basic authentication; both halves form-encoded first (RFC 6749 section 2.3.1)."""
    pair = f"{quote(app.client_id, safe='')}:{quote(app.client_secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _authenticated(url: str, facts: OAuthFacts, app: App, fields: Mapping[str, str]) -> Request:
    sent, headers = dict(fields), {"accept": "application/json"}
    if facts.client_auth == "basic":
        headers["authorization"] = basic(app)
    else:
        sent["client_id"] = app.client_id
        if facts.client_auth == "post":
            sent["client_secret"] = app.client_secret
    if facts.token_encoding == "json":
        headers["content-type"], body = "application/json", orjson.dumps(sent)
    else:
        headers["content-type"], body = FORM, urlencode(sent).encode()
    return Request("POST", url, headers, body, carries_client_secret=facts.client_auth != "none")


def refusal(facts: OAuthFacts, response: Response) -> ProviderError | None:
    """What an answer of the token endpoint means when it is no success; None: it is one."""
    if response.status == 429:
        return RateLimited(status=429, retry_after_s=retry_after_s(response))
    code = _error_code(facts, response)
    if 200 <= response.status < 300 and (code is None or not facts.errors_in_200):
        return None
    if response.status >= 500 or code in facts.transient:
        return Unreachable(code, status=response.status, retry_after_s=retry_after_s(response))
    if code in facts.reuse:
        return ReuseReported(code, status=response.status)
    if code in facts.terminal:
        return GrantEnded(code, status=response.status)
    if code in facts.configuration:
        return Misconfigured(code, status=response.status)
    # Nothing that the provider documents: never proof that a grant is dead (a proxy's page, a new code).
    return OddAnswer(code, status=response.status, retry_after_s=retry_after_s(response))


def _error_code(facts: OAuthFacts, response: Response) -> str | None:
    try:
        code = response.json().get(facts.error_field)
    except OddAnswer:
        return None
    return code if isinstance(code, str) and code else None


def token_set(facts: OAuthFacts, answer: Mapping[str, Any]) -> TokenSet:
    """A successful answer (RFC 6749 section 5.1).    Raises: OddAnswer, it is not one."""
    access = answer.get("access_token")
    if not _is_token(access):
        raise OddAnswer("no_access_token")
    refresh = answer.get("refresh_token")
    if refresh is not None and not _is_token(refresh):
        raise OddAnswer("odd_refresh_token")
    kind = answer.get("token_type", "Bearer")
    return TokenSet(
        access_token=str(access),
        refresh_token=refresh,
        token_type="Bearer" if not isinstance(kind, str) or kind.lower() == "bearer" else kind[:50],
        expires_in_s=seconds(answer.get("expires_in"), facts.access_ttl_s),
        refresh_expires_in_s=seconds(answer.get("refresh_token_expires_in"), facts.refresh_idle_s),
        scopes=scopes_of(answer.get("scope"), facts.scope_separator),
        id_token=answer["id_token"] if isinstance(answer.get("id_token"), str) else None,
    )


def seconds(value: object, otherwise: int | None) -> int | None:
    """A lifetime: a number, or a text that is one (several providers send texts).    Raises: OddAnswer."""
    if value is None:
        return otherwise
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**10:
        raise OddAnswer("odd_expires_in")
    return int(value)


def with_lifetimes(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A refresh's answer with lifetimes that can be read: an odd one counts as short, or as the facts have it.

    Refusing the answer would lose the refresh token in it, which may be the only one that still works.
    """
    mended = dict(answer)
    for name, otherwise in (("expires_in", SHORT_S), ("refresh_token_expires_in", None)):
        try:
            seconds(answer.get(name), None)
        except OddAnswer:
            mended[name] = otherwise
    return mended


def scopes_of(value: object, separator: str) -> frozenset[str] | None:
    """Granted scopes: a text with any of the usual separators, or a list; None where the answer does not tell."""
    if isinstance(value, list):
        return frozenset(scope for scope in value if isinstance(scope, str) and scope)
    if not isinstance(value, str):
        return None
    return frozenset(re.split(r"[ ,]+", value.strip())) - {""}


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TOKEN and value.isprintable()
