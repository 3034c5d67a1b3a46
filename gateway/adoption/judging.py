"""May this line come in, and as what? Pure but for what a process knows of control by heart.

The hardest question is whether a token set can live: one that can never be refreshed will die without a word, so it is
refused, or marked as what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.adoption.lines import Line, LineRefused, TokenLine
from gateway.catalog import Integration
from gateway.connections.rotations import fingerprint
from gateway.connections.scopes import Ledger, compared
from gateway.exchange import facts_of, marks, minted_for
from gateway.regions import account_hash, reach_hash, subject_hash
from gateway.vault.keyring import Keyring
from providers.errors import Misconfigured
from providers.oauth import App, OAuthFacts, TokenSet, filled

UNREFRESHABLE = "unrefreshable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyGrant:
    """A token set that may come in, and what its coming in says to the machine."""

    tokens: TokenLine
    signal: Literal["authorized", "narrowed"]
    reason: str | None
    ledger: Ledger
    reach: UUID | None
    mac: bytes  # of the token set as the line has it
    marks: tuple[UUID, ...]  # of its refresh token: `exchange.marks`
    fingerprint: UUID | None  # likewise: `rotations.fingerprint`


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A line that may come in."""

    line: Line
    integration_id: UUID
    accounts: tuple[UUID, ...] | None  # None: not told
    subject: UUID | None
    grants: Mapping[str, ReadyGrant]

    @property
    def key(self) -> tuple[str, UUID, str]:
        """What makes it the same connection when it comes again."""
        return self.line.tenant, self.integration_id, self.line.external_id


def ready(keyring: Keyring, integration: Integration, line: Line, now: datetime, *, unrefreshable: bool) -> Ready:
    """`line` for `integration`; `now` is the region's. `unrefreshable`: let those in, marked.    Raises: LineRefused."""
    try:
        facts = facts_of(integration)
    except Misconfigured as error:
        raise LineRefused(error.code, "this integration's provider connects no accounts") from None
    if not line.access_profiles:
        raise LineRefused("no_access_profile", "it names no access profile")
    marked = line.marks if line.marks is not None and line.marks.of == mark_of(keyring, integration.id) else None
    accounts: tuple[UUID, ...] | None = None
    if line.accounts is not None:
        accounts = tuple(sorted({account_hash(keyring, integration.id, account) for account in line.accounts}))
    elif marked is not None:
        accounts = tuple(sorted(set(marked.accounts)))
    subject = subject_hash(keyring, integration.id, line.subject) if line.subject is not None else None
    grants = {}
    for name, tokens in line.access_profiles.items():
        reach = reach_hash(keyring, integration.id, line.reach) if line.reach is not None else None
        if reach is None and marked is not None:
            reach = marked.reach.get(name)
        grants[name] = _grant(keyring, integration, facts, name, tokens, now, reach, unrefreshable)
    return Ready(
        line=line, integration_id=integration.id, accounts=accounts, grants=grants,
        subject=subject if subject is not None or marked is None else marked.subject,
    )  # fmt: skip


def mark_of(keyring: Keyring, integration: UUID) -> UUID:
    """For which integration of which deployment keyed hashes hold."""
    return keyring.mac_id("export", integration.bytes)


def _grant(
    keyring: Keyring, integration: Integration, facts: OAuthFacts, name: str, tokens: TokenLine, now: datetime,
    reach: UUID | None, unrefreshable: bool,
) -> ReadyGrant:  # fmt: skip
    profile = integration.access_profiles.get(name)
    if profile is None:
        raise LineRefused("unknown_access_profile", "the integration has no access profile of that name")
    if tokens.kind not in facts.grant_kinds:
        raise LineRefused("unknown_kind", "the provider makes no grants of that kind")
    if (tokens.kind == "installation") != (name in facts.minted):
        raise LineRefused("wrong_kind", "whether its tokens are minted or refreshed is fixed by its access profile")
    if tokens.kind == "installation" and not minted_for(tokens.parameters):
        raise LineRefused("installation_missing", "`parameters` must say which `installation` tokens are minted for")
    _check_parameters(integration, facts, tokens)
    if tokens.kind == "code":
        if tokens.access_token is None and tokens.refresh_token is None:
            raise LineRefused("no_token", "an access token or a refresh token is needed")
        if tokens.access_token is not None and tokens.expires_at is None and facts.access_ttl_s is not None:
            raise LineRefused(
                "expires_at_missing", f"the provider's access tokens live {facts.access_ttl_s} s: say until when"
            )
    dies = tokens.kind == "code" and not _renews(tokens, now)
    if dies and not unrefreshable:
        raise LineRefused(
            UNREFRESHABLE, "its access token expires and nothing can refresh it: have it connected anew, or allow it"
        )
    ledger = compared(profile, tokens.scopes)
    reason = UNREFRESHABLE if dies else ledger.reason
    mac = keyring.mac("import", tokens.encoded())  # as the line has it: what follows is ours
    if tokens.refresh_token is not None and facts.refresh_life_s is not None:  # when it was consented to, nobody says
        ends_at = now + timedelta(seconds=facts.refresh_life_s)
        tokens = replace(tokens, refresh_expires_at=min(tokens.refresh_expires_at or ends_at, ends_at))
    return ReadyGrant(
        tokens=tokens, signal="authorized" if reason is None else "narrowed", reason=reason, ledger=ledger,
        reach=reach, mac=mac,
        marks=marks(
            keyring, integration, TokenSet(access_token=tokens.access_token or "", refresh_token=tokens.refresh_token)
        ),
        fingerprint=fingerprint(keyring, integration.id, tokens.refresh_token),
    )  # fmt: skip


def _renews(tokens: TokenLine, now: datetime) -> bool:
    """Whether it lives on: it does not expire, or a refresh token that is not over can refresh it."""
    if tokens.access_token is not None and tokens.expires_at is None:
        return True
    over = tokens.refresh_expires_at is not None and tokens.refresh_expires_at <= now
    return tokens.refresh_token is not None and not over


def _check_parameters(integration: Integration, facts: OAuthFacts, tokens: TokenLine) -> None:
    for name, pattern in facts.user_parts.items():
        if name in tokens.parameters and not re.fullmatch(pattern, tokens.parameters[name]):
            raise LineRefused("parameter_invalid", f"`{name}` is not what the provider has there")
    fixed = {name: value for name, value in integration.settings.items() if isinstance(value, str)}
    try:
        filled(facts.token_url, facts, App(client_id="", client_secret="", parts={**tokens.parameters, **fixed}))
    except Misconfigured as error:
        raise LineRefused(error.code, "a part of the provider's address is missing in `parameters`") from None
