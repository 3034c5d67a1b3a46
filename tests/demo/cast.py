"""Who plays: five providers, each with an integration, the accounts it speaks of, and what it sends."""

from __future__ import annotations

import base64
import json
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.demo.ledger import Fate, Item
from tests.signers import SIGNERS
from tests.signers_a import github_pull_request, slack_event, stripe_event
from tests.signers_b import hubspot_body, hubspot_event

TENANTS = ("acme", "globex")
Made = tuple[bytes, tuple[Item, ...]]  # a body, and what it says


@dataclass(frozen=True, slots=True)
class Player:
    """A provider with one integration of ours."""

    integration: str
    title: str
    provider: str
    account: str  # the kind of account key
    accounts: tuple[str, ...]  # one for each tenant, and one that nobody has connected
    make: Callable[[Player, str, random.Random], Made]  # a delivery with this id
    secret: bytes = field(repr=False)
    old_secret: bytes = field(repr=False)  # still good: secrets rotate
    signs_time: bool = True
    purpose: str = "signing_secrets"
    settings: str = ""  # lines of posthouse.toml

    @property
    def forged(self) -> bytes:
        """Another app's secret."""
        return SIGNERS[self.provider].secrets[2]

    def headers(self, body: bytes, secret: bytes, now: datetime, delivery_id: str, gateway: str) -> dict[str, str]:
        """Of a delivery to the gateway at that public URL, which some providers sign too."""
        url = f"{gateway}/hooks/{self.integration}"
        return SIGNERS[self.provider].headers(body, secret, now, delivery_id=delivery_id, url=url)

    def variable(self, name: str) -> str:
        """The environment variable that holds a secret."""
        return f"DEMO_{self.integration.upper().replace('-', '_')}_{name}"

    def declaration(self) -> str:
        """Its table of posthouse.toml: secrets by name, never the secrets."""
        sources = ", ".join(f'{{env = "{self.variable(name)}"}}' for name in ("SECRET", "OLD_SECRET"))
        table = f'[integrations.{self.integration}]\nprovider = "{self.provider}"\n{self.purpose} = [{sources}]\n'
        return table + (f"[integrations.{self.integration}.settings]\n{self.settings}\n" if self.settings else "")

    def environment(self) -> dict[str, str]:
        return {self.variable("SECRET"): self.secret.decode(), self.variable("OLD_SECRET"): self.old_secret.decode()}


def _one(player: Player, marker: str, account: str, body: bytes) -> Made:
    return body, (Item(marker, body, f"{player.account}:{account}"),)


def _slack(player: Player, id: str, chance: random.Random) -> Made:
    team = chance.choice(player.accounts)
    kind = chance.choice(("message", "app_mention", "reaction_added"))
    body: dict[str, Any] = json.loads(slack_event(id, team_id=team, type=kind, channel="C1", user="U9", text=f"{id}-0"))
    del body["token"]  # the gateway would blank it; here the bytes are to come through as they are
    return _one(player, f"{id}-0", team, json.dumps(body, separators=(",", ":")).encode())


def _github(player: Player, id: str, chance: random.Random) -> Made:
    installation = chance.choice(player.accounts)
    action = chance.choice(("opened", "synchronize", "closed"))
    body = github_pull_request(
        action=action, installation={"id": int(installation)}, pull_request={"title": f"{id}-0 — ünïcode"}
    )
    return _one(player, f"{id}-0", installation, body)


def _stripe(player: Player, id: str, chance: random.Random) -> Made:
    account = chance.choice(player.accounts)
    kind = chance.choice(("invoice.paid", "customer.updated", "charge.refunded"))
    about = {"object": {"id": f"{id}-0", "object": kind.partition(".")[0]}}
    return _one(player, f"{id}-0", account, stripe_event(f"evt_{id}", account=account, type=kind, data=about))


def _hubspot(player: Player, id: str, chance: random.Random) -> Made:
    """One request with events of several portals: each is to become an event of its own."""
    items: list[Item] = []
    events = []
    for n in range(chance.randint(1, 5)):
        portal = chance.choice(player.accounts)
        kind = chance.choice(("contact.creation", "deal.propertyChange"))
        event = hubspot_event(
            portalId=int(portal), eventId=chance.getrandbits(40), subscriptionType=kind, propertyValue=f"{id}-{n}"
        )
        events.append(event)
        items.append(Item(f"{id}-{n}", hubspot_body(event)[1:-1], f"{player.account}:{portal}"))
    return hubspot_body(*events), tuple(items)


def _standard(player: Player, id: str, chance: random.Random) -> Made:
    account = chance.choice(player.accounts)
    kind = chance.choice(("contact.created", "invoice.voided"))
    body = json.dumps({"type": kind, "data": {"account": account, "name": f"Zoë {id}-0"}}, ensure_ascii=False).encode()
    return _one(player, f"{id}-0", account, body)


def players() -> list[Player]:
    """The cast, with secrets of this one run."""

    def text(prefix: str = "") -> bytes:
        return f"{prefix}{secrets.token_hex(16)}".encode()

    def whsec() -> bytes:
        return b"whsec_" + base64.b64encode(secrets.token_bytes(32))

    return [
        Player("my-slack", "Slack", "slack", "team", ("T0ACME", "T0GLOBEX", "T0NOBODY"), _slack, text(), text()),
        Player("my-github", "GitHub", "github", "installation", ("1001", "1002", "1999"), _github, text(), text(),
               signs_time=False),
        Player("billing", "Stripe", "stripe", "account", ("acct_acme", "acct_globex", "acct_nobody"), _stripe,
               text("whsec_"), text("whsec_")),
        Player("crm", "HubSpot", "hubspot", "portal", ("62515", "62516", "62999"), _hubspot, text(), text(),
               purpose="client_secrets"),
        Player("contacts", "Std Webhooks", "standard-webhooks", "account", ("a-1", "g-1", "n-1"), _standard,
               whsec(), whsec(), settings='account_pointer = "/data/account"'),
    ]  # fmt: skip


def fates(player: Player, chance: random.Random) -> Fate:
    """What the next delivery is sent for: mostly in earnest."""
    drawn = chance.random()
    for share, fate in ((0.10, Fate.REPEATED), (0.04, Fate.FORGED), (0.03, Fate.ALTERED), (0.03, Fate.STALE),
                        (0.02, Fate.UNSIGNED), (0.01, Fate.STRANGER)):  # fmt: skip
        drawn -= share
        if drawn < 0:
            return Fate.FORGED if fate is Fate.STALE and not player.signs_time else fate
    return Fate.GENUINE
