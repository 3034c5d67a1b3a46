"""GitLab, gitlab.com and self-managed: signing tokens (Standard Webhooks), else the secret token in clear.

No downgrade, in either direction that an attacker could push: a `webhook-signature` that came must verify, whatever
else came; and where a signing token (`whsec_…`) is configured, a delivery without a signature is refused, even with
the right `X-Gitlab-Token`. The plain token counts only where it is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from providers import oauth_calls, signatures, standard_signatures
from providers.calls import Http, bearer, called
from providers.contract import Delivery, Facts, Item, Sequence, Trust, Verified, event_name
from providers.errors import OddAnswer
from providers.oauth import App, Identity, OAuthFacts, TokenSet, filled, scopes_of
from providers.reading import account, at, document, identifier, text
from providers.urls import Base

FACTS = Facts(
    name="gitlab",
    title="GitLab",
    docs_url="https://docs.gitlab.com/user/project/integrations/webhooks/",
    # https://gitlab.com/gitlab-org/gitlab/-/merge_requests/230944
    signature_headers=("webhook-signature", "x-gitlab-token"),
    identity_headers=("webhook-id", "webhook-timestamp", "idempotency-key"),
    kept_headers=("x-gitlab-event", "x-gitlab-event-uuid", "x-gitlab-instance", "x-gitlab-webhook-uuid"),
    timestamp_tolerance_s=standard_signatures.TOLERANCE_S,  # of signing tokens; the plain token signs no time
    ack_deadline_s=10.0,
    # A failed delivery is not sent again by itself, only by hand (Resend Request) or by API: the outage is a gap.
    # Four failures in a row disable the hook for a minute and more (5xx), or until somebody enables it (4xx).
    retries=False,
    one_service=False,  # self-managed instances: one being down says nothing of gitlab.com
)

# https://docs.gitlab.com/api/oauth2/, also where no other page is named; the paths are the same at every instance.
OAUTH = OAuthFacts(
    authorize_url="{base_url}/oauth/authorize",
    token_url="{base_url}/oauth/token",
    revoke_url="{base_url}/oauth/revoke",  # client_id, client_secret and token in the body
    api_base="{base_url}",
    default_parts={"base_url": "https://gitlab.com"},
    client_auth="post",
    pkce=True,
    access_ttl_s=7200,
    # "invalidates the existing access_token and refresh_token"; and the redirect URI has to be sent again
    rotation="strict",
    refresh_ends_access=True,
    refresh_sends_redirect_uri=True,
    # Doorkeeper's, of which GitLab's server is made: doorkeeper-gem/doorkeeper, config/locales/en.yml (not verified)
    configuration=frozenset(
        {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request"}
        | {"invalid_redirect_uri"}
    ),
    revoke_reach="token",
    # Doorkeeper looks the token up with each call, and a user who takes an application's authorization back ends all of
    # its tokens: doorkeeper-gem/doorkeeper, Application.revoke_tokens_and_grants_for (not verified at GitLab)
    probe_acquits=True,
)


class Settings(BaseModel):
    """Where the instance is."""

    model_config = ConfigDict(extra="forbid")

    base_url: Base = Field(
        "https://gitlab.com",
        description="A self-managed instance, e.g. https://gitlab.example.com, no slash at its end.",
    )


PREFIX = b"whsec_"  # of a signing token; GitLab makes them with 32 bytes


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless GitLab signed this in the last 300 s, or (no signing token) knows the secret token."""
    if "webhook-signature" in delivery.headers or any(secret.startswith(PREFIX) for secret in trust.secrets):
        return standard_signatures.verify(delivery, trust, now)
    token = signatures.raw(signatures.header(delivery, "x-gitlab-token"))
    return Verified("token", secret=signatures.matching(trust.secrets, lambda secret: secret, [token]))


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: GitLab sends one event a request."""
    payload = document(delivery.body)
    return [
        Item(
            event=_event(payload, delivery.headers.get("x-gitlab-event", "")),
            data=delivery.body,
            accounts=_accounts(payload),
            # The same id under two names, kept over a resend (17.4 on). Not X-Gitlab-Event-UUID: all deliveries
            # of a chain of hooks share that one, and all but the first would be swallowed.
            dedupe=identifier(delivery.headers.get("webhook-id") or delivery.headers.get("idempotency-key")),
        )
    ]


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a signing token or a secret token."""
    if not secret.startswith(PREFIX):
        return signatures.text_secret_complaint(secret)
    return standard_signatures.complaint(secret)


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The user whose token it is, as the token's own data tell with whatever scope (`/api/v4/user` wants `read_user`).

    They also tell the application: a token of another one is refused.
    """
    said = await _token_info(http, app, next(iter(tokens.values())))
    if at(said, "application", "uid") != app.client_id:
        raise OddAnswer("other_client")
    user = f"user:{oauth_calls.key_at(said, 'resource_owner_id')}"
    return Identity(subject=user, accounts=(user,))


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """RFC 7009."""
    await oauth_calls.revoke(http, OAUTH, app, tokens)


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """401 once it is over; `scope` is a list there. https://docs.gitlab.com/api/oauth2/#retrieve-the-token-information"""
    return scopes_of((await _token_info(http, app, tokens)).get("scope"), OAUTH.scope_separator)


async def _token_info(http: Http, app: App, tokens: TokenSet) -> dict[str, Any]:
    return await called(http, bearer("GET", filled("{base_url}/oauth/token/info", OAUTH, app), tokens.access_token))


def _event(payload: dict[str, Any], header: str) -> str:
    """The body's own name first, since that is signed; the header (`Push Hook`) for bodies made by a template."""
    named = text(payload.get("object_kind")) or text(payload.get("event_name"))
    return event_name(named or header.removesuffix(" Hook").replace(" ", "_"))


def _accounts(payload: dict[str, Any]) -> tuple[str, ...]:
    project = at(payload, "project", "id") or payload.get("project_id")
    group = at(payload, "group", "id") or at(payload, "group", "group_id") or payload.get("group_id")
    return account("project", project) + account("group", group)
