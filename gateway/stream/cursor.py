"""Cursors: a place in one log. Opaque to everybody else.

A cursor carries the log's epoch, the last `seq` seen, and a mark of the event that stands there (the end of its id,
which is chance). The epoch tells a log that was restored from a dump; the mark tells one whose files were put back,
which no look at the database itself can: it has grown again, and other events stand where the reader had been.

Nothing in a cursor is for a client to read, but cursors of one log compare as texts: the greater one is further on.
A consumer's worker needs that, which takes over partitions that stand at different places.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass, field
from uuid import UUID

from gateway.errors import Invalid

_FORM = struct.Struct(">Iq3s")  # 15 bytes: 20 characters, no padding
# base64 with unreserved URL characters in the order of their code points: text order is byte order.
_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ORDERED = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_TO_TEXT, _FROM_TEXT = bytes.maketrans(_STANDARD, _ORDERED), bytes.maketrans(_ORDERED, _STANDARD)
UNMARKED = b"\0\0\0"  # stands on no event: the start, or the edge that retention left


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """After event `seq` of the log with this epoch."""

    epoch: int
    seq: int
    mark: bytes = field(default=UNMARKED, compare=False, repr=False)

    def __str__(self) -> str:
        return base64.b64encode(_FORM.pack(self.epoch, self.seq, self.mark)).translate(_TO_TEXT).decode()

    def fits(self, standing: UUID | None) -> bool:
        """Whether this can be the log that it was made for: `standing` is the id of the event at `seq`, if any.

        An event that is gone (retention, erasing) proves nothing, and neither does a cursor without a mark.
        """
        return standing is None or self.mark in (UNMARKED, mark_of(standing))


def mark_of(id: UUID) -> bytes:
    """The last three bytes of an event's id, which are chance in a UUIDv7: one in 16 million agrees by accident."""
    return id.bytes[-3:]


def parse(text: str) -> Cursor:
    """The cursor in `text`.    Raises: Invalid."""
    try:
        sent = text.encode("ascii")
        epoch, seq, mark = _FORM.unpack(base64.b64decode(sent.translate(_FROM_TEXT), validate=True))
    except (ValueError, binascii.Error, struct.error) as error:
        raise Invalid("`after` is not a cursor of this stream") from error
    if seq < 0 or sent.translate(None, _ORDERED):
        raise Invalid("`after` is not a cursor of this stream")
    return Cursor(epoch, seq, mark)
