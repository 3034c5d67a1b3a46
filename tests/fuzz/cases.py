"""One case of the fuzz run, made from a seed and a number alone: run it again and it is the same."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from tests.flows.house import House
from tests.fuzz.bodies import odd
from tests.fuzz.mutations import MUTATIONS, raw
from tests.fuzz.oracle import Oracle
from tests.fuzz.wire import Request, read
from tests.signers import SIGNERS
from tests.signers_b import CLIENT_STATE, microsoft_body, microsoft_change
from tests.signing import fresh

NAMES = tuple(SIGNERS)


@dataclass(frozen=True, slots=True)
class Case:
    """What goes over the wire."""

    number: int
    name: str  # of the signer that it began with
    what: str  # what was done to it
    data: bytes


class Maker:
    """Makes cases; whatever it signs truly, it tells the oracle."""

    def __init__(self, house: House, oracle: Oracle, seed: str) -> None:
        self._house, self._oracle, self._seed = house, oracle, seed

    def case(self, number: int) -> Case:
        """Case `number`. Every signer has its turn."""
        chance = random.Random(f"{self._seed}/{number}")
        name = NAMES[number % len(NAMES)]
        kind = chance.choices(
            ("as it is", "forged", "stale", "odd body", "spliced", "raw", "pipelined", "mutated"),
            (4, 4, 3, 22, 8, 12, 4, 43),
        )[0]
        if kind == "as it is":
            return self._made(number, name, kind, self._signed(name, number, chance))
        if kind == "forged":
            return self._made(number, name, kind, self._signed(name, number, chance, secret=2))
        if kind == "stale":
            late_s = chance.choice((-1, 1)) * chance.choice(
                (4000, 10**6, 10**8) if name == "google" else (310, 4000, 10**6, 10**8)
            )
            return self._made(number, name, kind, self._signed(name, number, chance, late_s=late_s))
        if kind == "odd body":
            body = odd(self._body(name, number, chance), chance)
            if chance.random() < 0.2:  # where the secret is in the body: one of its elements is another app's
                body = body.replace(
                    CLIENT_STATE, CLIENT_STATE.replace(b"to be sealed", SIGNERS["microsoft"].secrets[2]), 1
                )
            return self._made(number, name, kind, self._signed(name, number, chance, body=body))
        if kind == "spliced":
            one, other = self._signed(name, number, chance), self._signed(chance.choice(NAMES), number, chance)
            part = chance.choice(("body", "headers", "target"))
            return self._made(number, name, kind, one.put(**{part: getattr(other, part)}))
        if kind == "raw":
            return Case(number, name, kind, raw(self._signed(name, number, chance).written(), chance))
        if kind == "pipelined":
            several = [self._signed(name, number, chance, secret=chance.choice((0, 2))) for _ in range(3)]
            return Case(number, name, kind, b"".join(one.written() for one in several))
        request, done = self._signed(name, number, chance), []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            mutation = chance.choice(MUTATIONS)
            request = mutation(request, chance) if request.headers and len(request.target) > 1 else request
            done.append(mutation.__name__)
        return self._made(number, name, " + ".join(done), request)

    def _made(self, number: int, name: str, what: str, request: Request) -> Case:
        return Case(number, name, what, request.written())

    def _body(self, name: str, number: int, chance: random.Random) -> bytes:
        if SIGNERS[name].provider == "microsoft" and chance.random() < 0.5:
            return microsoft_body(*(microsoft_change(id=f"fuzz-{number}-{index}") for index in range(3)))
        return fresh(SIGNERS[name], f"fuzz-{number}") if chance.random() < 0.6 else chance.choice(SIGNERS[name].bodies)

    def _signed(
        self,
        name: str,
        number: int,
        chance: random.Random,
        *,
        secret: int = 0,
        late_s: int = 0,
        body: bytes | None = None,
    ) -> Request:
        signer = SIGNERS[name]
        target, headers, sealed = self._house.signed(
            name, self._body(name, number, chance) if body is None else body, delivery_id=f"fuzz-{number}",
            secret=signer.secrets[secret], at=self._house.gateway.clock.now() - timedelta(seconds=late_s),
        )  # fmt: skip
        encoded = tuple((key.encode(), value.encode("latin-1")) for key, value in headers.items())
        request = Request(b"POST", target.encode(), encoded, sealed)
        if secret == 0 and (late_s == 0 or not signer.signs_time):
            [message] = read(request.written()).messages
            self._oracle.signed(name, message)
        return request
