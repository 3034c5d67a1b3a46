"""URLs that an operator writes into an integration's settings: absolute, https (http on this machine only).

Whether a URL may be called at all is the outbound client's to say, at the call, by the addresses that it resolves to.
This here catches what could not be right.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from providers.oauth import LABEL, PART

LONGEST = 2000
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def endpoint(url: str) -> str:
    """`url` if it can be an endpoint; {parts} in it stand for one DNS label each.    Raises: ValueError."""
    bare = PART.sub("x", url)
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or set(bare) & set(' "<>\\^`{|}#@'):
        raise ValueError("must be an absolute URL of printable ASCII, without user name and fragment")
    try:
        parts = urlsplit(bare)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise ValueError("must be an absolute https URL")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("must be https, except on this machine")
    _check_host(url.split("/", 3)[2])
    return url


def base(url: str) -> str:
    """As `endpoint`, to which paths are added: no slash at its end, no query, no {parts}."""
    endpoint(url)
    if url.endswith("/") or "?" in url or PART.search(url):
        raise ValueError("must have no slash at its end, no query and no {parts}")
    return url


def fixed(url: str) -> str:
    """As `endpoint`, without {parts}: one place, whoever asks."""
    if PART.search(url):
        raise ValueError("must have no {parts}")
    return endpoint(url)


def _check_host(netloc: str) -> None:
    """A {part} in a host name is a whole label, and at least two labels behind it are the operator's own words."""
    if "{" not in netloc:
        return
    *_, first, second = ["", "", *netloc.split(".")]
    labels = netloc.split(".")
    if "{" in first + second or not all(PART.fullmatch(one) or re.fullmatch(LABEL, one) for one in labels):
        raise ValueError("may have {parts} in its host only as whole labels before a domain that is spelt out")


Endpoint = Annotated[str, AfterValidator(endpoint)]
Fixed = Annotated[str, AfterValidator(fixed)]
Base = Annotated[str, AfterValidator(base)]
