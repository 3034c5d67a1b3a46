"""Cursors: a place in one log. Opaque to everybody else; they carry the log's epoch and the last `seq` seen."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass

from gateway.errors import Invalid

_FORM = struct.Struct(">Iq")


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """After event `seq` of the log with this epoch."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(_FORM.pack(self.epoch, self.seq)).decode()


def parse(text: str) -> Cursor:
    """The cursor in `text`.    Raises: Invalid."""
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        epoch, seq = _FORM.unpack(raw)
    except (ValueError, binascii.Error, struct.error) as error:
        raise Invalid("`after` is not a cursor of this stream") from error
    if seq < 0:
        raise Invalid("`after` is not a cursor of this stream")
    return Cursor(epoch, seq)
