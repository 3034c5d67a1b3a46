"""GitHub: webhooks of GitHub Apps, organizations and repositories. It never retries by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import Malformed
from providers.reading import account, at, document, form, identifier, media_type, text
from providers.signatures import header, hmac_hex, matching, raw, text_secret_complaint

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
    signals=(
        "github_app_authorization.revoked",
        "installation.deleted",
        "installation.suspend",
        "installation.unsuspend",
        "installation.new_permissions_accepted",
    ),
)

FORM = "application/x-www-form-urlencoded"


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
    body = delivery.body
    sent_as = delivery.headers.get("content-type")
    if sent_as != content_type and media_type(sent_as) == FORM:
        content_type = FORM
        body = form(delivery.body).get("payload", "").encode("utf-8", "surrogatepass")
    sent = document(body)
    action = text(sent.get("action"))
    name = event_name(f"{kind}.{action}" if action else kind)
    return [
        Item(
            event=name,
            data=delivery.body,
            content_type=content_type,
            accounts=_accounts(kind, sent),
            dedupe=_dedupe(delivery),
            signal=name in FACTS.signals,
        )
    ]


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
