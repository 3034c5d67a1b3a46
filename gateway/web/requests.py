"""Reading a request: ids, query, body. Everything odd becomes a 4xx here, before any handler or database sees it."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import Receive

from gateway.errors import Invalid, TooLarge, Unauthenticated
from gateway.web.problems import Malformed, UnsupportedMedia, from_validation, invalid

MOST_BODY_BYTES = 1024 * 1024  # of a management call; deliveries have their own limit and route
MOST_PARAMETERS = 150  # a worker names each of its partitions, up to 64

PLAIN_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}", re.ASCII)
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
# https://www.w3.org/TR/trace-context/#traceparent-header: version 00; later versions may have more behind it
TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)
CHARSET = re.compile(r'charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)


class Gone(Exception):
    """The client hung up before its request was whole. There is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Whose trace this request belongs to."""

    trace_id: str
    parent_id: str


def request_id(headers: Headers) -> str | None:
    """The caller's X-Request-Id, if it is plain enough to be logged and answered."""
    sent = headers.get("x-request-id", "")
    return sent if PLAIN_ID.fullmatch(sent) else None


def trace(headers: Headers) -> Trace | None:
    """The caller's trace, or None where there is none or it is not well-formed (then it is to be ignored)."""
    match = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    if not int(match[2], 16) or not int(match[3], 16):
        return None
    return Trace(match[2], match[3])


def bearer(headers: Headers) -> str:
    """The API key that came with the request.    Raises: Unauthenticated, Malformed."""
    sent = headers.getlist("authorization")
    if len(sent) > 1:
        raise Malformed("The Authorization header came more than once.")
    scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise Unauthenticated("Send an API key as `Authorization: Bearer …`.")
    return token


def idempotency_key(headers: Headers) -> str | None:
    """The Idempotency-Key, if one was sent.    Raises: Invalid, Malformed."""
    sent = headers.getlist("idempotency-key")
    if not sent:
        return None
    if len(sent) > 1:
        raise Malformed("The Idempotency-Key header came more than once.")
    if not IDEMPOTENCY_KEY.fullmatch(sent[0]):
        raise invalid("header.idempotency-key", "must be 1 to 255 visible ASCII characters")
    return sent[0]


class QueryReader:
    """Reads one query model; what its fields are is looked at once."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._lists = {name for name, info in model.model_fields.items() if _mentions(info.annotation, (list, tuple))}
        self._numbers = {name for name, info in model.model_fields.items() if _mentions(info.annotation, (int, float))}
        self._empty = model() if not any(info.is_required() for info in model.model_fields.values()) else None

    def read(self, raw: bytes) -> BaseModel:
        """The validated query.    Raises: Invalid."""
        if not raw and self._empty is not None:
            return self._empty
        try:
            pairs = parse_qsl(
                raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
            )  # fmt: skip
        except ValueError:  # wrong encoding, or too many
            raise Invalid("The query is not `name=value` pairs in UTF-8.", errors=[]) from None
        values: dict[str, Any] = {}
        for name, value in pairs:
            if "\0" in name or "\0" in value:
                raise invalid("query", "must not contain NUL characters")
            if name in self._lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise invalid(f"query.{name}", "must not be repeated")
            elif name in self._numbers and not NUMBER.fullmatch(value):
                raise invalid(f"query.{name}", "must be a number")
            else:
                values[name] = value
        try:
            return self._model.model_validate(values)
        except ValidationError as error:
            raise from_validation(error, "query") from None


async def read_body(headers: Headers, receive: Receive, most_bytes: int | None = None) -> bytes:
    """The whole body.    Raises: TooLarge, Gone."""
    most = MOST_BODY_BYTES if most_bytes is None else most_bytes
    declared = headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > most:
        raise TooLarge(f"The limit is {most} bytes.")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > most:
            raise TooLarge(f"The limit is {most} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def json_body(headers: Headers, body: bytes, model: type[BaseModel]) -> BaseModel:
    """`body` as `model`.    Raises: UnsupportedMedia, Invalid."""
    content_type = headers.get("content-type", "")
    media = content_type.partition(";")[0].strip().lower()
    charset = CHARSET.search(content_type)
    if media != "application/json" or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        raise UnsupportedMedia()
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise UnsupportedMedia()
    if b"u0000" in body:  # rare: only then is the body parsed twice
        _refuse_nul(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error, "body") from None


def _refuse_nul(body: bytes) -> None:
    """PostgreSQL's text holds no NUL; saying so here beats a database error later."""
    try:
        parsed = from_json(body)
    except ValueError:
        return  # not JSON: the model's own reading says where
    waiting = [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and "\0" in value:
            raise invalid("body", "must not contain NUL characters")


def _mentions(annotation: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a type hint is, or has among its alternatives, one of `kinds`."""
    if annotation in kinds or typing.get_origin(annotation) in kinds:
        return True
    return any(_mentions(part, kinds) for part in typing.get_args(annotation))
