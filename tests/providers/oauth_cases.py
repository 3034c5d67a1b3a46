"""One case for each way in which a provider gives tokens: an integration, what is asked, and a good answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.oauth import App, Asked, OAuthFacts
from providers.registry import Provider, all_providers
from tests.signing import NOW

SECRET = "sk_client-secret:with/odd characters+&=ü"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636 appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
REDIRECT = "https://hooks.example.com/oauth/callback/mine"


@dataclass(frozen=True, kw_only=True)
class Case:
    """`answer` is what the token endpoint says to a consent that grants all that `scopes` ask for."""

    provider: str
    answer: Mapping[str, Any]
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"reader": ("read", "write")})
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    told: bool = True  # the answer tells scopes
    fills: tuple[str, ...] | None = None  # access profiles that the answer fills, where not those that were asked for
    plain_authorize: bool = True  # the authorization request is RFC 6749's

    @property
    def of(self) -> Provider:
        return all_providers()[self.provider]

    @property
    def facts(self) -> OAuthFacts:
        facts = self.of.oauth_for(self.settings)
        assert facts is not None
        return facts

    @property
    def people(self) -> bool:
        return self.facts.authorize_url is not None

    def app(self, **changed: Any) -> App:
        said: dict[str, Any] = {
            "client_id": "client.id/1",
            "client_secret": SECRET,
            "settings": self.settings,
            "parts": self.parts,
            "redirect_uri": REDIRECT,
            "now": NOW,
        }
        return App(**{**said, **changed})

    def asked(self, **more: Any) -> Asked:
        return Asked(scopes=self.scopes, state="st-1", code_challenge=CHALLENGE if self.facts.pkce else None, **more)


BOTH = {"access_token": "at-1", "token_type": "bearer", "expires_in": 3600, "refresh_token": "rt-1"}
GENERIC = {
    "authorize_url": "https://auth.example.com/authorize?prompt=login",
    "token_url": "https://auth.example.com/token",
    "revoke_url": "https://auth.example.com/revoke",
    "userinfo_url": "https://api.example.com/me",
}
GRAPH = "https://graph.microsoft.com/"

CASES: dict[str, Case] = {
    "google": Case(
        provider="google",
        scopes={"reader": ("email", "https://www.googleapis.com/auth/gmail.readonly")},
        answer={
            **BOTH,
            "scope": "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/gmail.readonly",
        },
    ),
    "slack": Case(
        provider="slack",
        scopes={"bot": ("chat:write", "commands"), "user": ("search:read",)},
        answer={
            "ok": True,
            "access_token": "xoxe.xoxb-1",
            "token_type": "bot",
            "scope": "chat:write,commands",
            "bot_user_id": "U0",
            "expires_in": 43200,
            "refresh_token": "xoxe-1-b",
            "team": {"id": "T1", "name": "Team"},
            "enterprise": None,
            "authed_user": {
                "id": "U2",
                "scope": "search:read",
                "access_token": "xoxe.xoxp-1",
                "expires_in": 43200,
                "refresh_token": "xoxe-1-u",
                "token_type": "user",
            },
        },
        plain_authorize=False,
    ),
    "github": Case(
        provider="github",
        scopes={"reader": ("repo", "user:email")},
        answer={**BOTH, "scope": "repo,user", "expires_in": 28800, "refresh_token_expires_in": 15897600},
    ),
    "github/app": Case(
        provider="github",
        settings={"app_slug": "posthouse-test"},
        scopes={"installation": (), "user": ()},
        answer={**BOTH, "scope": "", "expires_in": 28800, "refresh_token_expires_in": 15897600},
        fills=("user",),
        plain_authorize=False,
    ),
    "gitlab": Case(provider="gitlab", answer={**BOTH, "scope": "read write", "created_at": 1607635748}),
    "gitlab/own": Case(
        provider="gitlab",
        settings={"base_url": "https://git.example.com/gitlab"},
        answer={**BOTH, "scope": "read write"},
    ),
    "microsoft": Case(
        provider="microsoft",
        scopes={"reader": ("Mail.Read", GRAPH + "Calendars.Read", "offline_access")},
        answer={**BOTH, "scope": f"openid profile {GRAPH}Mail.Read calendars.read"},
    ),
    "microsoft/tenant": Case(
        provider="microsoft",
        parts={"tenant": "84bd8158-6d4d-4958-8b9f-9d6445542f95"},
        scopes={"reader": ("Mail.Read",)},
        answer={**BOTH, "scope": "Mail.Read"},
    ),
    "hubspot": Case(
        provider="hubspot",
        answer={**BOTH, "expires_in": 1800, "hub_id": 62515, "user_id": 7, "scopes": ["read", "write"]},
    ),
    "stripe": Case(
        provider="stripe",
        scopes={"reader": ("read_write",)},
        answer={
            "access_token": "sk_live_1",
            "livemode": True,
            "refresh_token": "rt_1",
            "token_type": "bearer",
            "stripe_publishable_key": "pk_live_1",
            "stripe_user_id": "acct_1",
            "scope": "read_write",
        },
    ),
    "shopify": Case(
        provider="shopify",
        parts={"shop": "shop-1"},
        scopes={"reader": ("read_products", "write_orders", "read_orders")},
        answer={
            "access_token": "shpat_1",
            "scope": "read_products,write_orders",
            "expires_in": 3600,
            "refresh_token": "shprt_1",
            "refresh_token_expires_in": 7776000,
        },
    ),
    "zoom": Case(provider="zoom", answer={**BOTH, "scope": "read write", "api_url": "https://api.zoom.us"}),
    "zoom/admin": Case(provider="zoom", settings={"managed": "admin"}, answer={**BOTH, "scope": "read write"}),
    "linear": Case(provider="linear", answer={**BOTH, "expires_in": 86399, "scope": "read write"}),
    "linear/app": Case(
        provider="linear",
        settings={"actor": "app", "oauth_client_id": "c1c2c3c4-0000-4000-8000-000000000001"},
        answer={**BOTH, "expires_in": 86399, "scope": ["read", "write"]},
    ),
    "sandbox": Case(
        provider="sandbox",
        settings={"base_url": "http://127.0.0.1:8090"},
        answer={**BOTH, "scope": "read write"},
    ),
    "generic-oauth2": Case(provider="generic-oauth2", settings=GENERIC, answer={**BOTH, "scope": "read write"}),
    "generic-oauth2/odd": Case(
        provider="generic-oauth2",
        settings={
            **GENERIC,
            "authorize_url": "https://{shop}.example.com/oauth/authorize",
            "token_url": "https://{shop}.example.com/oauth/token",
            "user_parts": ["shop"],
            "client_auth": "post",
            "token_encoding": "json",
            "scope_separator": ",",
            "pkce": False,
            "refresh_sends_redirect_uri": True,
            "authorize_extra": {"access": "offline"},
            "token_extra": {"expiring": "1"},
            "errors_in_200": True,
            "terminal_errors": ["access_denied", "unauthorized_client"],
            "transient_errors": ["try_later"],
            "access_ttl_s": 600,
            "rotation": "grace",
            "reuse_grace_s": 60,
        },
        parts={"shop": "shop-1"},
        answer=BOTH,
        told=False,
    ),
    "generic-oauth2/public": Case(
        provider="generic-oauth2",
        settings={**GENERIC, "client_auth": "none"},
        answer={**BOTH, "scope": ["read", "write"]},
    ),
    "generic-oauth2/machine": Case(
        provider="generic-oauth2",
        settings={"grant": "client_credentials", "token_url": "https://auth.example.com/token"},
        answer={"access_token": "at-1", "token_type": "bearer", "expires_in": 3600},
        told=False,
    ),
}
