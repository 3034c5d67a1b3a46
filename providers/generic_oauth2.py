"""Any OAuth 2.0 server, by configuration: what a module says of its provider in code, an integration's settings say here.

Deliveries are taken as Standard Webhooks, by the integration's signing secrets; a server that signs otherwise, or sends
none, needs none: without a secret every delivery is refused. A body that calls itself a security event token is taken as
one, where the settings say whose (providers/secevent.py); it may choose, since either check is a signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from providers import oauth_calls, secevent, secevent_events, standard_items, standard_signatures
from providers.calls import Http, bearer, called
from providers.contract import Answer, Delivery, Facts, Item, KeySource, Trust, Verified
from providers.errors import GrantEnded, Misconfigured, Refused
from providers.jwt import RS256, Algorithm
from providers.oauth import LABEL, PART, App, Identity, OAuthFacts, TokenSet, filled, scopes_of
from providers.signals import Said, Signal
from providers.urls import Endpoint, Fixed

FACTS = Facts(
    name="generic-oauth2",
    title="Generic OAuth 2.0",
    docs_url="https://datatracker.ietf.org/doc/html/rfc6749",
    signature_headers=("webhook-signature",),
    identity_headers=("webhook-id", "webhook-timestamp"),
    timestamp_tolerance_s=standard_signatures.TOLERANCE_S,
    signals=secevent_events.tells(),
    one_service=False,  # each integration has a server of its own
)

# What holds before settings say more; RFC 6749's own words for everything else.
OAUTH = OAuthFacts(
    authorize_url="{authorize_url}",
    token_url="{token_url}",
    grant_kinds=("code", "client_credentials"),
    rotation="strict",  # until told otherwise: whoever takes a token for reusable may lose it
    probe_acquits=False,  # until told otherwise: many servers read access tokens by their signature
)

Parameter = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Value = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,1000}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,1000}$")]
Code = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,100}$")]
Seconds = Annotated[int, Field(gt=0, le=10 * 366 * 24 * 3600)]

# Parameters that are the protocol's own: whoever sets them by configuration would take its protection away.
OURS = frozenset(
    {"client_id", "client_secret", "client_assertion", "redirect_uri", "response_type", "response_mode", "state"}
    | {"scope", "nonce", "code", "code_challenge", "code_challenge_method", "code_verifier", "grant_type"}
    | {"refresh_token", "request", "request_uri"}
)


class Settings(BaseModel):
    """All that can be said of a server."""

    model_config = ConfigDict(extra="forbid")

    grant: Literal["code", "client_credentials"] = Field("code", description="Who gets tokens: people, or the app.")
    authorize_url: Endpoint | None = None
    token_url: Endpoint
    revoke_url: Endpoint | None = Field(None, description="RFC 7009; without it a disconnect revokes nothing.")
    userinfo_url: Endpoint | None = Field(None, description="Says whose token it is; asked with the access token.")
    subject_field: str = Field(
        "sub", pattern=r"^[^.\s]{1,100}(\.[^.\s]{1,100}){0,9}$", description="Where userinfo has it, e.g. data.user.id"
    )
    probe_url: Endpoint | None = Field(None, description="A cheap GET with the access token, if not userinfo_url.")
    probe_acquits: bool = Field(
        False, description="The server looks tokens up with each call, so one that passes there has not been revoked."
    )
    issuer: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,1000}$")] | None = Field(
        None, description="`iss` of authorization responses, RFC 9207."
    )
    issuer_always: bool = Field(False, description="The server promises `iss`: refuse answers without it.")
    user_parts: list[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]] = Field(
        default_factory=list, max_length=5, description="{parts} of the URLs that sessions choose; one DNS label each."
    )
    client_auth: Literal["basic", "post", "none"] = "basic"
    token_encoding: Literal["form", "json"] = "form"
    pkce: bool = True
    scope_separator: Literal[" ", ","] = " "
    authorize_extra: dict[Parameter, Value] = Field(default_factory=dict, max_length=20)
    token_extra: dict[Parameter, Value] = Field(default_factory=dict, max_length=20)
    scopes_merge: bool = False
    incremental: bool = False
    rotation: Literal["none", "strict", "grace"] = "strict"
    reuse_grace_s: Annotated[int, Field(ge=0, le=366 * 24 * 3600)] = 0
    refresh_ends_access: bool = False
    refresh_sends_redirect_uri: bool = False
    refresh_expected: bool = True
    access_ttl_s: Seconds | None = None
    refresh_idle_s: Seconds | None = None
    refresh_life_s: Seconds | None = None
    error_field: Parameter = "error"
    errors_in_200: bool = False
    terminal_errors: list[Code] = Field(default_factory=list, max_length=50, description="Besides invalid_grant.")
    reuse_errors: list[Code] = Field(
        default_factory=list, max_length=50, description="Terminal, and they say that a refresh token was used before."
    )
    configuration_errors: list[Code] = Field(default_factory=list, max_length=50, description="Besides RFC 6749's.")
    transient_errors: list[Code] = Field(default_factory=list, max_length=50)
    revoke_reach: Literal["token", "account"] = "token"
    account_pointer: str | None = Field(
        None,
        max_length=500,
        pattern=standard_items.POINTER,
        description="As of standard-webhooks: whose a delivery is.",
    )
    ssf_issuer: Name | None = Field(
        None, description="Who signs security events (SSF, CAEP): its configuration's issuer."
    )
    ssf_keys_url: Fixed | None = Field(None, description="Its jwks_uri.")
    ssf_audiences: list[Name] = Field(
        default_factory=list, max_length=50, description="`aud` of them: any of these, or the client id."
    )
    ssf_algorithms: list[Algorithm] = Field(["RS256"], min_length=1, description="That it may sign by.")

    @field_validator("authorize_extra", "token_extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, str]) -> dict[str, str]:
        if taken := sorted(OURS & set(extra)):
            raise ValueError(f"may not set {', '.join(taken)}: these are the gateway's own")
        return extra

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.grant == "code" and (self.authorize_url is None or self.userinfo_url is None):
            raise ValueError("grant = code needs authorize_url and userinfo_url (which tells whose account it is)")
        if self.issuer_always and self.issuer is None:
            raise ValueError("issuer_always needs issuer")
        if self.reuse_grace_s and self.rotation != "grace":
            raise ValueError("reuse_grace_s goes with rotation = grace")
        if (self.ssf_issuer is None) != (self.ssf_keys_url is None):
            raise ValueError("ssf_issuer and ssf_keys_url go together")
        urls = (self.authorize_url, self.token_url, self.revoke_url, self.userinfo_url, self.probe_url, self.issuer)
        used = {name for url in urls if url is not None for name in PART.findall(url)}
        if used != set(self.user_parts) or used & set(type(self).model_fields):
            raise ValueError("user_parts must name exactly the {parts} of the URLs, and no setting")
        codes = [*self.terminal_errors, *self.reuse_errors, *self.configuration_errors, *self.transient_errors]
        if len(codes) != len(set(codes)):
            raise ValueError("one error code has two meanings")
        return self


def check_secret(secret: bytes) -> str | None:
    """`whsec_` and 24 to 64 bytes in base64, or `whpk_` and 32."""
    return standard_signatures.complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless one of the signing secrets signed this in the last 300 s, or it is a security event."""
    if secevent.carries(delivery):
        return secevent.verify(delivery, _stream(trust), trust.keys, now)
    by_secret = standard_signatures.verify(delivery, trust, now)
    pointer = trust.settings.get("account_pointer")
    found = standard_items.pointed(delivery.body, pointer) if pointer else None
    return replace(by_secret, accounts=(f"account:{found}",) if found else ())


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: the body, whatever it is; of a security event one for each of its names."""
    if verified.scheme == secevent.SCHEME:
        return secevent.items(delivery, verified, FACTS, "account")
    return [standard_items.item(delivery, "webhook", verified.accounts)]


def interpret(said: Said) -> Sequence[Signal]:
    """What a security event says."""
    return secevent_events.interpret(said)


def redact(data: bytes) -> bytes:
    """Token identifiers of security events."""
    return secevent.redact(data)


def decline(delivery: Delivery, refused: Refused) -> Answer | None:
    """A security event is answered as RFC 8935 has it."""
    return secevent.decline(delivery, refused) if secevent.carries(delivery) else None


def key_source(settings: Mapping[str, Any]) -> KeySource | None:
    """The JWKS of whoever signs security events."""
    url = settings.get("ssf_keys_url")
    return None if url is None else KeySource(FACTS.name, url)


def token_marks(tokens: TokenSet) -> tuple[str, ...]:
    """How `token-revoked` names a refresh token."""
    return secevent_events.token_marks(tokens)


def oauth_facts(settings: Mapping[str, Any]) -> OAuthFacts:
    """The settings, as facts."""
    said = Settings.model_validate(dict(settings))
    people = said.grant == "code"
    # A code that the settings give a meaning loses the one that it has in RFC 6749.
    told = {*said.terminal_errors, *said.reuse_errors, *said.configuration_errors, *said.transient_errors}
    return OAuthFacts(
        authorize_url=said.authorize_url if people else None,
        token_url=said.token_url,
        revoke_url=said.revoke_url,
        api_base=said.userinfo_url,
        api_hosts=() if said.probe_url is None else (said.probe_url.split("/", 3)[2],),
        user_parts=dict.fromkeys(said.user_parts, LABEL),
        issuer=said.issuer,
        issuer_always=said.issuer_always,
        client_auth=said.client_auth,
        token_encoding=said.token_encoding,
        pkce=said.pkce,
        scope_separator=said.scope_separator,
        scopes_merge=said.scopes_merge,
        incremental=said.incremental,
        authorize_extra=said.authorize_extra,
        token_extra=said.token_extra,
        refresh_sends_redirect_uri=said.refresh_sends_redirect_uri,
        grant_kinds=("code",) if people else ("client_credentials",),
        access_ttl_s=said.access_ttl_s,
        refresh_idle_s=said.refresh_idle_s,
        refresh_life_s=said.refresh_life_s,
        rotation=said.rotation,
        reuse_grace_s=said.reuse_grace_s,
        refresh_ends_access=said.refresh_ends_access,
        refresh_expected=said.refresh_expected and people,
        terminal=(OAUTH.terminal - told) | frozenset({*said.terminal_errors, *said.reuse_errors}),
        reuse=frozenset(said.reuse_errors),
        configuration=(OAUTH.configuration - told) | frozenset(said.configuration_errors),
        transient=(OAUTH.transient - told) | frozenset(said.transient_errors),
        error_field=said.error_field,
        errors_in_200=said.errors_in_200,
        revoke_reach=said.revoke_reach,
        probe_acquits=said.probe_acquits,
    )


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """Who userinfo says it is."""
    facts, url = oauth_facts(app.settings), app.settings.get("userinfo_url")
    if url is None:
        raise Misconfigured("userinfo_url_missing")
    path = str(app.settings.get("subject_field", "sub")).split(".")
    who = await oauth_calls.subject(http, filled(url, facts, app), next(iter(tokens.values())), *path)
    subject = f"account:{who}"
    return Identity(subject=subject, accounts=(subject,), reach=subject if facts.revoke_reach == "account" else None)


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """RFC 7009, where the settings say where."""
    facts = oauth_facts(app.settings)
    if facts.revoke_url is not None:
        await oauth_calls.revoke(http, facts, app, tokens)


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """A GET of probe_url, else of userinfo_url; one that answers as RFC 7662 does is believed in that, too.

    Raises: Misconfigured, the settings have neither.
    """
    url = app.settings.get("probe_url") or app.settings.get("userinfo_url")
    if url is None:
        raise Misconfigured("probe_url_missing")
    said = await called(http, bearer("GET", filled(url, oauth_facts(app.settings), app), tokens.access_token))
    if said.get("active") is False:
        raise GrantEnded("token_rejected")
    # Elsewhere `scope` may mean anything: a userinfo answer is the provider's own to shape.
    return scopes_of(said.get("scope"), " ") if said.get("active") is True else None


def _stream(trust: Trust) -> secevent.Stream:
    said = trust.settings
    issuer = said.get("issuer")
    return secevent.Stream(
        issuer=said.get("ssf_issuer"),
        audiences=frozenset(one for one in (trust.client_id, *(said.get("ssf_audiences") or ())) if one),
        algorithms=said.get("ssf_algorithms") or RS256,
        subject_issuers=(issuer,) if isinstance(issuer, str) else (),
    )
