"""What may happen to a validly signed request on its way to us, by accident or by design."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.bodies import flipped
from tests.fuzz.wire import Header, Request

Mutation = Callable[[Request, random.Random], Request]

AUTHENTIC = (
    "signature",
    "timestamp",
    "token",
    "authorization",
    "webhook-id",
    "svix",
    "channel",
    "delivery",
    "idempotency",
)
METHODS = (
    b"GET",
    b"HEAD",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"PROPFIND",
    b"SEARCH",
    b"post",
    b"POSTS",
)
TYPES = (
    b"", b"text/plain", b"application/json", b"application/x-www-form-urlencoded", b"application/xml; charset=utf-16",
    b"multipart/form-data; boundary=x", b"application/json;" * 50, b"\xff\xfe", b"application/x-www-form-urlencoded; charset=x",
    b"APPLICATION/JSON", b"application/cloudevents+json", b'text/html; charset="<script>"',
)  # fmt: skip
VALUES = (
    b"",
    b" ",
    b"0",
    b"-1",
    b"1e99",
    b"9" * 30,
    b"\xff\xfe\xfd",
    "ü".encode(),
    b"a" * 9000,
    b"null",
    b"v1=,t=",
    b"==",
    b"\t x \t",
)


def body_flipped(request: Request, chance: random.Random) -> Request:
    return request.put(body=flipped(request.body, chance))


def body_cut(request: Request, chance: random.Random) -> Request:
    return request.put(body=request.body[: chance.randrange(len(request.body) + 1)])


def body_longer(request: Request, chance: random.Random) -> Request:
    return request.put(body=request.body + chance.choice((b" ", b"\n", b"\x00", request.body, b"{}")))


def body_in_between(request: Request, chance: random.Random) -> Request:
    at = chance.randrange(len(request.body) + 1)
    return request.put(body=request.body[:at] + bytes(chance.randrange(256) for _ in range(3)) + request.body[at:])


def header_flipped(request: Request, chance: random.Random) -> Request:
    return _at_one(request, chance, lambda header: [(header[0], _printable(flipped(header[1], chance)))])


def header_cut(request: Request, chance: random.Random) -> Request:
    return _at_one(request, chance, lambda header: [(header[0], header[1][: chance.randrange(len(header[1]) + 1)])])


def header_longer(request: Request, chance: random.Random) -> Request:
    more = chance.choice((b"=", b"0", b",v1=0", b",t=1", b" v1,x", b",", b" ", b".", b"a" * 9000))
    return _at_one(request, chance, lambda header: [(header[0], header[1] + more)])


def header_gone(request: Request, chance: random.Random) -> Request:
    return _at_one(request, chance, lambda header: [])


def header_twice(request: Request, chance: random.Random) -> Request:
    other = chance.choice((None, *VALUES))
    return _at_one(
        request, chance,
        lambda header: _shuffled([header, (header[0].title(), header[1] if other is None else other)], chance),
    )  # fmt: skip


def header_other(request: Request, chance: random.Random) -> Request:
    return _at_one(request, chance, lambda header: [(header[0], chance.choice(VALUES))])


def header_spelled_otherwise(request: Request, chance: random.Random) -> Request:
    spell = chance.choice((
        bytes.upper, bytes.lower, bytes.swapcase, lambda v: v.rstrip(b"="), lambda v: v.replace(b"+", b"-").replace(b"/", b"_"),
        lambda v: b'"' + v + b'"', lambda v: v.replace(b"=", b"%3D"), lambda v: v.partition(b"=")[2], lambda v: b"0" + v,
        lambda v: v.replace(b"v1", b"v0").replace(b"sha256", b"sha1"), lambda v: b"Basic " + v, lambda v: b"  " + v + b" ",
    ))  # fmt: skip
    return _at_one(request, chance, lambda header: [(header[0], spell(header[1]))])


def headers_shuffled(request: Request, chance: random.Random) -> Request:
    names = chance.choice((bytes.upper, bytes.lower, bytes.title))
    return request.put(headers=tuple(_shuffled([(names(name), value) for name, value in request.headers], chance)))


def headers_exchanged(request: Request, chance: random.Random) -> Request:
    values = [value for _, value in request.headers]
    chance.shuffle(values)
    return request.put(headers=tuple((name, value) for (name, _), value in zip(request.headers, values, strict=True)))


def headers_many(request: Request, chance: random.Random) -> Request:
    more = tuple((b"x-%d" % n, b"v" * chance.choice((0, 1, 900))) for n in range(chance.choice((20, 101, 400))))
    return request.put(headers=request.headers + more)


def header_added(request: Request, chance: random.Random) -> Request:
    name = chance.choice((
        b"content-encoding", b"x-forwarded-host", b"forwarded", b"x-http-method-override", b"x-original-url", b"range", b"cookie",
        b"webhook-signature", b"svix-signature", b"x-goog-channel-id", b"x-gitlab-token", b"expect", b"te", b"connection",
        b"if-none-match", b"x-hub-signature", b"authorization", b"x-slack-retry-num", b"idempotency-key", b"content-length",
    ))  # fmt: skip
    value = chance.choice(
        (*VALUES[:8], b"gzip", b"100-continue", b"close", b"keep-alive", b"evil.example.com", b"v1,AAAA")
    )
    return request.put(headers=(*request.headers, (name, value)))


def content_type(request: Request, chance: random.Random) -> Request:
    kept = tuple(header for header in request.headers if header[0] != b"content-type")
    return request.put(headers=(*kept, (b"content-type", chance.choice(TYPES))))


def method(request: Request, chance: random.Random) -> Request:
    return request.put(method=chance.choice(METHODS))


def path(request: Request, chance: random.Random) -> Request:
    target = request.target
    at = chance.randrange(1, len(target))
    return request.put(target=chance.choice((
        target + b"/", b"/" + target, target.upper(), target[:at], target[:at] + b"%%%02x" % target[at] + target[at + 1 :],
        target + b";x=1", target + b"#x", b"http://evil.example.com" + target, target + b"/../github", target + b"\xff",
        target + b"%00", b"*", target.replace(b"hooks", b"hook"), target + b"/hook_" + b"0" * 32, b"/hooks/" + b"a" * 70_000,
    )))  # fmt: skip


def query(request: Request, chance: random.Random) -> Request:
    more = chance.choice((
        b"?", b"?a=1", b"?validationToken=x", b"?validationToken=%3Cscript%3E", b"?a=%00&b=%ff", b"?" + b"a=1&" * 2000, b"?a=b?c#d",
        b"?hub.challenge=1&hub.mode=subscribe", b"?crc_token=x", b"??", b"?\xff",
    ))  # fmt: skip
    return request.put(target=request.target + more)


def chunked(request: Request, chance: random.Random) -> Request:
    return request.put(chunk=chance.choice((1, 7, 100, 65536)) if len(request.body) < 20_000 else 4096)


def trailers(request: Request, chance: random.Random) -> Request:
    header = chance.choice(request.headers)
    moved = chance.random() < 0.5
    return request.put(
        chunk=100,
        trailers=(header,),
        headers=tuple(h for h in request.headers if h != header) if moved else request.headers,
    )


def length(request: Request, chance: random.Random) -> Request:
    size = len(request.body)
    wrong = chance.choice((
        b"%d" % (size - 1 if size else 5), b"0", b"%d" % (size + 1), b"+%d" % size, b"0%d" % size, b"-1", b"%d, %d" % (size, size), b"x",
        b"99999999999", b"26214401", b"",
    ))  # fmt: skip
    return request.put(length=wrong, chunk=chance.choice((0, 0, 10)))


def version(request: Request, chance: random.Random) -> Request:
    return request.put(version=chance.choice((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 x", b"")))


def _at_one(request: Request, chance: random.Random, change: Callable[[Header], list[Header]]) -> Request:
    """One header changed: mostly one of those that matter."""
    headers = list(request.headers)
    matter = [n for n, (name, _) in enumerate(headers) if any(word in name.decode() for word in AUTHENTIC)]
    at = chance.choice(matter if matter and chance.random() < 0.85 else range(len(headers)))
    headers[at : at + 1] = change(headers[at])
    return request.put(headers=tuple(headers))


def _shuffled(headers: list[Header], chance: random.Random) -> list[Header]:
    return chance.sample(headers, len(headers))


def _printable(value: bytes) -> bytes:
    """Line ends would make another request of it; that is the raw mutations' part."""
    return value.translate(bytes.maketrans(b"\r\n\x00", b"rn0"))


def raw(data: bytes, chance: random.Random) -> bytes:
    """The written bytes changed without regard to what they mean."""
    at = chance.randrange(len(data))
    head = data.find(b"\r\n\r\n")
    in_head = chance.randrange(head + 4)
    return chance.choice((
        lambda: flipped(data, chance),
        lambda: flipped(data[:head], chance) + data[head:],
        lambda: data[:at] + bytes([chance.randrange(256)]) + data[at:],
        lambda: data[:in_head] + chance.choice((b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"\r\n ", b"\t")) + data[in_head:],
        lambda: data[:in_head] + data[in_head + chance.randrange(1, 30) :],
        lambda: data[:at] + data[at + 1 :],
        lambda: data.replace(b"\r\n", b"\n", chance.randrange(1, 30)),
        lambda: chance.choice((b"\r\n", b"\n\n", b" ", b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\n")) + data,
    ))()  # fmt: skip


MUTATIONS: tuple[Mutation, ...] = (
    body_flipped, body_cut, body_longer, body_in_between, header_flipped, header_flipped, header_cut, header_longer, header_gone,
    header_twice, header_other, header_spelled_otherwise, header_spelled_otherwise, headers_shuffled, headers_exchanged,
    headers_many, header_added, header_added, content_type, method, path, query, chunked, trailers, length, version,
)  # fmt: skip
