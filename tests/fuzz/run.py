"""The fuzz run: sends cases, holds each answer and, at the end, the whole stream against the oracle."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.flows.house import House
from tests.flows.raw import Answer, Connection, NoAnswer
from tests.fuzz.cases import Case, Maker
from tests.fuzz.oracle import Oracle, elements
from tests.fuzz.wire import Message, Reading, read
from tests.signers import SIGNERS

WORKERS = 16
EARLY_S = 0.05  # for an answer to a request that is not whole: there may be one (413, 404 …), or none
NOT_HTTP = b"Invalid HTTP request received."  # what uvicorn says to it


@dataclass
class Run:
    """What was sent, what came back, and what should not have."""

    house: House
    oracle: Oracle
    faults: list[str] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)  # acknowledged, by signer
    may_be_kept: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by signer: digests of bodies
    elements: set[str] = field(default_factory=set)  # of Graph's: those that carried the secret

    async def all(self, count: int, seed: str) -> None:
        """Send `count` cases over a few connections, then look at the stream."""
        maker, numbers = Maker(self.house, self.oracle, seed), iter(range(count))

        async def work() -> None:
            line = Line(self.house.url)
            for number in numbers:
                case = maker.case(number)
                reading = read(case.data)
                self._judge(case, reading, await line.exchange(case.data, reading))
            line.hang_up()

        await asyncio.gather(*(work() for _ in range(WORKERS)))
        await self._look_at_the_stream()

    def _judge(self, case: Case, reading: Reading, answers: list[Answer | None]) -> None:
        for answer in answers[len(reading.messages) :]:  # to what is not, or not yet, a request
            if answer is not None:
                self.statuses[answer.status] += 1
                if not 400 <= answer.status < 500:
                    self._fault(case, f"{answer.status} to what is no request")
        for number, (message, answer) in enumerate(zip(reading.messages, answers, strict=False)):
            self.statuses[answer.status if answer else "none"] += 1
            name = self._signer(message)
            genuine = name is not None and self.oracle.genuine(name, message)
            if name is not None and genuine:
                self.may_be_kept[name].add("sha256:" + hashlib.sha256(message.body).hexdigest())
                self.elements |= (
                    {_open(element) for element in elements(message.body)} if name.startswith("micro") else set()
                )
            if answer is None:
                # Whoever asks to close and is answered before all of it is read may meet a reset instead.
                if number == 0 and not reading.broken and (b"connection", b"close") not in message.headers:
                    self._fault(case, "no answer")
            elif 200 <= answer.status < 300:
                if name is None or not genuine:
                    self._fault(case, f"a forgery was acknowledged: {answer.status}")
                else:
                    self.taken[name] += 1
            elif not 400 <= answer.status < 500:
                self._fault(case, f"{answer.status} {answer.body!r}")
            if case.what == "as it is" and (answer is None or answer.status >= 300):
                self._fault(case, f"refused as it is: {answer}")

    def _signer(self, message: Message) -> str | None:
        return next((name for name, target in self.house.targets.items() if target.encode() == message.path), None)

    def _fault(self, case: Case, what: str) -> None:
        self.faults.append(f"case {case.number} ({case.name}, {case.what}): {what}\n    {case.data[:3000]!r}")

    async def _look_at_the_stream(self) -> None:
        """Nothing stands there but what was genuine; of Graph's arrays only the elements that carried the secret."""
        names = {self.house.integration(name).id: name for name in self.house.targets}
        for event in await self.house.kept():
            name = names[event.integration]
            if event.delivery["request"]["digest"] not in self.may_be_kept[name]:
                self.faults.append(f"on the stream, and never truly signed: {event}")
            if name.startswith("microsoft") and _open(json.loads(event.data)) not in self.elements:
                self.faults.append(f"an element that carried no secret: {event}")


def _open(element: Any) -> str:
    """An element of Graph's without its authenticator; "" where it carried none of ours."""
    if not isinstance(element, dict) or not isinstance(state := element.get("clientState"), str):
        return ""
    ours = SIGNERS["microsoft"].secrets[0].decode()
    blanked = {**element, "clientState": "*" * len(state)}
    return json.dumps(blanked, sort_keys=True) if state in (ours, "*" * len(ours)) else ""


class Line:
    """A connection that is opened again whenever it has ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    async def exchange(self, data: bytes, reading: Reading) -> list[Answer | None]:
        """Answers to the whole requests in `data`, and behind them whatever the server says to the rest."""
        used = self._connection is not None
        answers = await self._exchange(data, reading)
        if used and reading.messages and answers[0] is None and not reading.broken:
            answers = await self._exchange(
                data, reading
            )  # the connection may have ended before, as any client finds out
        return answers

    async def _exchange(self, data: bytes, reading: Reading) -> list[Answer | None]:
        if self._connection is None:
            self._connection = await Connection.open(self._url)
        self._connection.send(data)
        answers: list[Answer | None] = []
        try:
            for message in reading.messages:
                answer = await self._connection.answer(head=message.method == "HEAD")
                if answer.body == NOT_HTTP:
                    answers += [None] * (len(reading.messages) - len(answers))
                answers.append(answer)
            if reading.broken and len(answers) == len(reading.messages):
                answers.append(await self._connection.answer())
            elif reading.unfinished:
                answers.append(await self._connection.answer(within_s=EARLY_S))
        except NoAnswer:
            answers += [None] * (len(reading.messages) - len(answers))
            self.hang_up()
        if reading.broken or reading.unfinished or any(answer and answer.header("connection") for answer in answers):
            self.hang_up()
        return answers

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.hang_up()
            self._connection = None
