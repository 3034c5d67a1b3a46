"""What the chaos sender sends: deliveries of several providers, each item with a mark by which it is found again.

An item is *keyed* (`k`) where its provider names it, so that a resend is recognised, or *keyless* (`f`, free), so that
each attempt which was kept is an event of its own. Forgeries are signed with another app's secret.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tests.signers import SIGNERS
from tests.signers_a import github_pull_request, slack_event, stripe_event
from tests.signers_b import gitlab_push, hubspot_body, hubspot_event, microsoft_body, microsoft_change

MARK = re.compile(rb"chaos\.(\d+)\.(\d+)\.")
NAMES = ("github", "slack", "stripe", "standard-webhooks", "gitlab", "hubspot", "microsoft")


@dataclass(frozen=True, slots=True)
class Mail:
    """One delivery; the same again for each attempt, signed anew each time as providers do."""

    number: int
    name: str  # of the signer
    body: bytes
    items: str  # `k` or `f` for each
    forged: bool

    @property
    def patient(self) -> bool:
        """Whether this provider tries again until it is acknowledged; GitHub and GitLab never do."""
        return self.name not in ("github", "gitlab")

    def request(self, target: str, url: str, now: datetime) -> tuple[dict[str, str], bytes]:
        """Headers and body of an attempt at `now`."""
        signer = SIGNERS[self.name]
        secret = signer.secrets[2 if self.forged else 0]
        body = signer.sealed(self.body, secret, now)
        return signer.headers(body, secret, now, delivery_id=f"chaos-{self.number}", url=url + target), body


def mail(number: int, chance: random.Random) -> Mail:
    """Delivery `number`."""
    name = chance.choice(NAMES)
    body, items = _MAKERS[name](number, chance)
    return Mail(number, name, body, items, forged=chance.random() < 0.03)


def _mark(number: int, index: int = 0) -> str:
    return f"chaos.{number}.{index}."


def _github(number: int, chance: random.Random) -> tuple[bytes, str]:
    return github_pull_request(title=_mark(number), filler="x" * chance.randrange(3000)), "k"


def _slack(number: int, chance: random.Random) -> tuple[bytes, str]:
    body = slack_event(f"Ev{number}", type="message", text=_mark(number), ts="1795435199.000100")
    if chance.random() < 0.5:
        return body, "k"
    return json.dumps({k: v for k, v in json.loads(body).items() if k != "event_id"}).encode(), "f"


def _stripe(number: int, chance: random.Random) -> tuple[bytes, str]:
    return stripe_event(f"evt_{number}", data={"object": {"id": "in_1", "description": _mark(number)}}), "k"


def _standard(number: int, chance: random.Random) -> tuple[bytes, str]:
    return json.dumps({"type": "contact.created", "data": {"name": _mark(number)}}).encode(), "k"


def _gitlab(number: int, chance: random.Random) -> tuple[bytes, str]:
    return gitlab_push(ref=_mark(number)), "k"


def _hubspot(number: int, chance: random.Random) -> tuple[bytes, str]:
    items = "".join(chance.choice("kkkf") for _ in range(chance.randrange(1, 6)))
    return hubspot_body(*(
        hubspot_event(
            portalId=62515 + index % 3, objectId=number, propertyName=_mark(number, index),
            eventId=number * 10 + index if kind == "k" else None,
        )
        for index, kind in enumerate(items)
    )), items  # fmt: skip


def _microsoft(number: int, chance: random.Random) -> tuple[bytes, str]:
    items = "".join(chance.choice("kf") for _ in range(chance.randrange(1, 5)))
    changes = [
        microsoft_change(
            resource=f"me/messages/{_mark(number, index)}", id=f"{number}.{index}" if kind == "k" else None
        )
        for index, kind in enumerate(items)
    ]
    return microsoft_body(*changes), items


_MAKERS: dict[str, Callable[[int, random.Random], tuple[bytes, str]]] = {
    "github": _github, "slack": _slack, "stripe": _stripe, "standard-webhooks": _standard, "gitlab": _gitlab,
    "hubspot": _hubspot, "microsoft": _microsoft,
}  # fmt: skip
