"""Opening an export where it has arrived: offline, with the private key. Pure but for the lines that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from gateway.errors import Invalid
from gateway.vault.jwe import NotForUs, PrivateKey


class Opening:
    """The import lines of an export, in order; once they have all come, `unopened` is known.

    Iterating raises Invalid, naming the line: it does not open, is missing or doubled, is of another export, or the end
    is missing.
    """

    def __init__(self, key: PrivateKey, sealed: Iterable[str]) -> None:
        self._key, self._sealed = key, sealed
        self.unopened = 0  # connections that could not be opened where the export was made

    def __iter__(self) -> Iterator[str]:
        export, ended, number = None, False, 0
        for number, message in enumerate(self._sealed, 1):
            if ended:
                raise Invalid(f"line {number}: nothing may follow the last line of an export")
            try:
                plain = self._key.open(message)
            except NotForUs as error:
                raise Invalid(f"line {number}: {error}") from None
            told = orjson.loads(plain)
            place = told.get("end") or told["posthouse"]
            export = export or place["export"]
            if (place["export"], place["line"]) != (export, number):
                raise Invalid(f"line {number}: it is not the line that belongs here")
            if "end" not in told:
                yield plain.decode()
                continue
            ended, self.unopened = True, place["unopened"]
        if not ended:
            raise Invalid(f"the export was cut short after line {number}: make it anew")
