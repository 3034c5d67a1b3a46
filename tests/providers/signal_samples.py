"""What providers send when a grant is over, paused or changed: bodies of the documented shape, one table for all.

Every `Tells` of `FACTS.signals` needs a sample here (test_signals.py looks). A new provider adds its own by a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from providers.contract import Delivery, Item
from providers.registry import Provider, all_providers
from providers.signals import Said, Signal
from tests.signers import SIGNERS
from tests.signers_a import github_pull_request, slack_event, stripe_event, stripe_thin_event
from tests.signers_b import microsoft_body, microsoft_lifecycle, sandbox_event
from tests.signers_c import linear_revocation, shopify_shop, zoom_deauthorization
from tests.signers_d import CAEP, OAUTH, RISC, by_token, google_event, ssf_event
from tests.signing import NOW, Signer, signed, trusting


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One delivery whose item is `event`."""

    provider: str
    event: str  # as in `Tells.event`
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # over those that the signer makes
    signer: str | None = None  # of tests.signers.SIGNERS, where it is not named after the provider

    @property
    def of(self) -> Provider:
        return all_providers()[self.provider]

    @property
    def signs(self) -> Signer:
        return SIGNERS[self.signer or self.provider]

    def delivery(self, body: bytes | None = None) -> Delivery:
        """As it comes, or with another body in its place."""
        return signed(self.signs, self.body if body is None else body, headers=self.headers)


def heard(sample: Sample, body: bytes | None = None) -> list[tuple[Item, Sequence[Signal]]]:
    """The whole way: delivery, verify, items, what is stored of them, interpret.    Raises: Refused."""
    of, signer, delivery = sample.of, sample.signs, sample.delivery(body)
    assert of.interpret is not None
    found = of.items(delivery, of.verify(delivery, trusting(signer), NOW))
    kept = {name: value for name, value in delivery.headers.items() if name in of.kept_headers}
    told = []
    for item in found:
        if item.signal:
            data = of.redact(item.data) if of.redact else item.data
            said = Said(
                event=item.event,
                data=data,
                content_type=item.content_type,
                headers=kept,
                settings=signer.settings,
                client_id=signer.client_id,
            )
            told.append((item, of.interpret(said)))
    return told


def signals(sample: Sample) -> list[Signal]:
    """What the one signalling item of a sample says."""
    ((item, found),) = heard(sample)
    assert item.event == sample.event
    return list(found)


def slack(event: Mapping[str, Any], **envelope: Any) -> Sample:
    """https://docs.slack.dev/reference/events/tokens_revoked and its neighbours."""
    body = {**json.loads(slack_event("Ev1", **event)), **envelope}
    return Sample(provider="slack", event=str(event["type"]), body=json.dumps(body).encode())


# octokit/webhooks, payload-examples/api.github.com/installation: the whole installation, unlike in other events.
INSTALLATION = {
    "id": 957387,
    "account": {"id": 21031067, "login": "Codertocat", "type": "User"},
    "app_id": 29310,
    "target_id": 21031067,
    "permissions": {"issues": "read", "metadata": "read"},
    "created_at": "2026-05-15T15:20:02Z",
    "updated_at": "2026-11-23T11:58:00Z",
    "suspended_at": None,
    "suspended_by": None,
}


def github(kind: str, *, as_form: bool = False, **members: Any) -> Sample:
    """https://docs.github.com/en/webhooks/webhook-events-and-payloads; a hook sends JSON or a form, as it is set up."""
    body = json.dumps({"sender": {"id": 21031067, "login": "Codertocat"}, **members}).encode()
    return Sample(
        provider="github",
        event=f"{kind}.{members['action']}",
        body=urlencode({"payload": body.decode()}).encode() if as_form else body,
        headers={"x-github-event": kind},
    )


def github_installation(action: str, *, as_form: bool = False, **changed: Any) -> Sample:
    installation = {**INSTALLATION, **changed}
    return github("installation", as_form=as_form, action=action, installation=installation)


SUSPENDED = {"suspended_at": "2026-11-23T11:58:00Z", "suspended_by": {"id": 21031067}}
APPLICATION = {"object": {"id": "ca_1", "object": "application", "name": "Ours"}}  # of Stripe: never the account


def stripe(**members: Any) -> Sample:
    kind = "account.application.deauthorized"
    return Sample(
        provider="stripe",
        event=kind,
        body=stripe_event("evt_1", **{"type": kind, "livemode": True, "data": APPLICATION} | members),
    )


def stripe_thin(**members: Any) -> Sample:
    kind = "v1.account.application.deauthorized"
    return Sample(provider="stripe", event=kind, body=stripe_thin_event("evt_2", **{"type": kind} | members))


def microsoft(event: str, **changed: Any) -> Sample:
    """https://learn.microsoft.com/en-us/graph/change-notifications-lifecycle-events"""
    body = microsoft_body(microsoft_lifecycle(event, **changed))
    return Sample(provider="microsoft", event=f"lifecycle.{event.lower()}", body=body)


def shopify(topic: str, body: bytes, *, events: bool = False) -> Sample:
    """https://shopify.dev/docs/api/webhooks/latest, in the headers of either family."""
    return Sample(
        provider="shopify",
        signer="shopify/events" if events else None,
        event=topic.replace("/", "."),
        body=body,
        headers={"shopify-topic" if events else "x-shopify-topic": topic},
    )


SCOPES_UPDATE = json.dumps(
    {"id": 1, "previous": ["read_products"], "current": ["read_orders"], "updated_at": "2026-11-23T07:00:00-05:00"}
).encode()


def linear(kind: str, **members: Any) -> Sample:
    """linear/linear, packages/sdk/src/schema.graphql: OAuthAppWebhookPayload, OAuthAuthorizationWebhookPayload"""
    return Sample(
        provider="linear", event=f"{kind.lower()}.revoked", body=linear_revocation(**{"type": kind} | members)
    )


def security(signer: str, name: str, uri: str, make: Callable[..., bytes], **said: Any) -> Sample:
    """A security event token, as tests.signers_d has the bodies of; RISC, OAuth and CAEP have one shape."""
    return Sample(
        provider=SIGNERS[signer].provider, event=f"security.{name}", body=make(uri=uri + name, **said), signer=signer
    )


RISC_EVENTS = ("sessions-revoked", "account-disabled", "account-enabled", "account-credential-change-required")
MORE_RISC_EVENTS = ("credential-compromise", "account-purged")
CAEP_EVENTS = ("session-revoked", "credential-change", "token-claims-change", "device-compliance-change")

SAMPLES: list[Sample] = [
    *(security("google/secevent", name, RISC, google_event) for name in RISC_EVENTS),
    security("google/secevent", "account-disabled", RISC, google_event, reason="hijacking"),
    security("google/secevent", "tokens-revoked", OAUTH, google_event),
    security("google/secevent", "token-revoked", OAUTH, google_event, subject=by_token()),
    *(
        security(signer, name, uri, ssf_event)
        for signer in ("ssf", "generic-oauth2/secevent")
        for uri, names in ((RISC, RISC_EVENTS + MORE_RISC_EVENTS), (CAEP, CAEP_EVENTS), (OAUTH, ("tokens-revoked",)))
        for name in names
    ),
    *(
        security(signer, "token-revoked", OAUTH, ssf_event, subject=by_token())
        for signer in ("ssf", "generic-oauth2/secevent")
    ),
    slack({"type": "tokens_revoked", "tokens": {"oauth": ["U1"], "bot": ["U2BOT"]}}),
    slack({"type": "app_uninstalled"}),
    slack({"type": "team_access_revoked", "team_ids": ["T1XX3", "TXX34"]}, team_id=None, enterprise_id="E1"),
    github("github_app_authorization", action="revoked"),
    github("github_app_authorization", action="revoked", as_form=True),
    github_installation("deleted"),
    github_installation("deleted", as_form=True),
    github_installation("suspend", **SUSPENDED),
    github_installation("suspend", as_form=True, **SUSPENDED),
    github_installation("unsuspend"),
    github_installation("unsuspend", as_form=True),
    github_installation("new_permissions_accepted"),
    github_installation("new_permissions_accepted", as_form=True),
    stripe(),
    stripe_thin(),
    microsoft("reauthorizationRequired"),
    microsoft("subscriptionRemoved"),
    microsoft("missed"),
    *(shopify("app/uninstalled", shopify_shop(), events=events) for events in (False, True)),
    *(shopify("app/scopes_update", SCOPES_UPDATE, events=events) for events in (False, True)),
    Sample(provider="zoom", event="app_deauthorized", body=zoom_deauthorization()),
    linear("OAuthApp"),
    linear("OAuthApp", oauthClientId="c1c2c3c4-0000-4000-8000-000000000001"),
    *(linear("OAuthAuthorization", userId="u-1", activeTokensForUser=left) for left in (0, 1)),
    Sample(
        provider="sandbox",
        event="grant.revoked",
        body=sandbox_event(type="grant.revoked", data={"grant_id": "grant_1", "user": "user-1"}),
    ),
]

# A body of GitHub's that any app with the right permissions gets: signed, and no news of an installation.
COMMENT_DELETED = github_pull_request(action="deleted")
