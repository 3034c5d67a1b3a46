"""Where a URL leads, read strictly, and whether that is a place a provider may be called at.

A URL that two readers could understand differently is refused, so what is checked here is what the client connects to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from yarl import URL

from gateway.outbound.addresses import Address
from providers.errors import Misconfigured, NotAllowed
from providers.oauth import PART, App, OAuthFacts, filled

PORTS = {"https": 443, "http": 80}
LONGEST_URL = 8192
# ASCII only; no userinfo, no fragment, no backslash, no white space; a host is a name, a dotted quad or [IPv6].
_URL = re.compile(
    r"(https?)://([a-zA-Z0-9._-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::([0-9]{1,5}))?(/[!-\"$-\[\]-~]*|\?[!-\"$-\[\]-~]*)?"
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Target:
    """One URL, taken apart."""

    scheme: str
    host: str  # lower case; an IPv6 address without brackets
    port: int
    literal: Address | None  # the address, where the host is one
    url: URL

    @property
    def place(self) -> str:
        """How a list of hosts names it: `host`, or `host:port` where the port is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where a provider may be called. Entries: `host`, `host:port`, or `*.domain` where `*` is exactly one label."""

    fixed: frozenset[str] = frozenset()  # by the operator or the provider's facts: these may get client secrets
    chosen: frozenset[str] = frozenset()  # in part by a user or the platform: these may not

    def allow(self, target: Target, *, client_secret: bool) -> bool:
        """May `target` be called (with the client's secret)?"""
        return _listed(target, self.fixed) or (not client_secret and _listed(target, self.chosen))


def read(url: str) -> Target:
    """`url` taken apart.    Raises: NotAllowed, it is not one that everybody reads the same way."""
    found = _URL.fullmatch(url) if len(url) <= LONGEST_URL else None
    if found is None:
        raise NotAllowed("odd_url")
    scheme, host, port = found[1], found[2].lower(), int(found[3] or PORTS[found[1]])
    literal = _literal(host)
    whole = URL(url[: found.start(2)] + host + url[found.end(2) :], encoded=True)
    host = host.strip("[]")
    if not 1 <= port <= 65535 or (whole.scheme, whole.raw_host, whole.port) != (scheme, host, port):
        raise NotAllowed("odd_url")
    return Target(scheme, host, port, literal, whole)


def hosts_of(facts: OAuthFacts, app: App) -> Hosts:
    """Where the calls of one integration's provider may go, from its facts and the parts that fill their URLs.

    A part that the integration's settings fix is the operator's. Another one came with a session: where it is a whole
    label before a domain (`{shop}.myshopify.com`) the domain is still fixed; where it could be the domain, the host is
    `chosen`. A URL of which a part is missing is left out: the call that needs it says so.

    Raises: Misconfigured (a part does not match its pattern), NotAllowed (what came out is no URL).
    """
    fixed, chosen = set(), set()
    # authorize_url is not among them: a browser goes there, we do not
    urls = [facts.token_url, facts.revoke_url, facts.api_base, *(f"https://{host}" for host in facts.api_hosts)]
    for url in filter(None, urls):
        by_user = {name for name, value in app.parts.items() if value and app.settings.get(name) != value}

        def operators(found: re.Match[str], by_user: Collection[str] = by_user) -> str:
            return found[0] if found[1] in by_user else filled(found[0], facts, app)

        try:
            whole, half = filled(url, facts, app), PART.sub(operators, url)
        except Misconfigured as error:
            if error.code.endswith("_missing"):
                continue
            raise
        authority = _authority(half)
        if authority.startswith("*."):
            fixed.add(authority)
        elif "{" not in authority:
            fixed.add(read(whole).place)
        elif (pattern := _pattern(authority)) is not None:
            fixed.add(pattern)
        else:
            chosen.add(read(whole).place)
    return Hosts(frozenset(fixed), frozenset(chosen))


def places(urls: Iterable[str]) -> frozenset[str]:
    """Entries for `Hosts` of whole URLs.    Raises: NotAllowed."""
    return frozenset(read(url).place for url in urls)


def _authority(url: str) -> str:
    """The part of a template that can decide about the host: all of it where the template names no scheme."""
    return urlsplit(url).netloc if re.match(r"https?://", url) else url


def _pattern(authority: str) -> str | None:
    """`authority` with `*` for each label that is a {part}; None where a part could be more than a label's own."""
    labels = ["*" if PART.fullmatch(label) else label for label in authority.split(".")]
    plain = not any("{" in label for label in labels) and "*" not in labels[-2:] and len(labels) > 2
    return ".".join(labels) if plain else None


def _listed(target: Target, entries: Collection[str]) -> bool:
    if target.place in entries:
        return True
    labels = target.place.split(".")
    return target.literal is None and any(_matches(entry.split("."), labels) for entry in entries if "*" in entry)


def _matches(pattern: list[str], labels: list[str]) -> bool:
    """Label by label; `*` stands for exactly one."""
    return len(pattern) == len(labels) and all(
        want == have or (want == "*" and _LABEL.fullmatch(have) is not None)
        for want, have in zip(pattern, labels, strict=True)
    )


def _literal(host: str) -> Address | None:
    """The address, where `host` is one in its usual spelling.    Raises: NotAllowed: an unusual one, or no name."""
    if host.startswith("["):
        try:
            address = IPv6Address(host[1:-1])
        except ValueError:
            raise NotAllowed("odd_url") from None
        if str(address) != host[1:-1]:
            raise NotAllowed("odd_address")
        return address
    labels = host.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):  # a trailing dot, too
        raise NotAllowed("odd_url")
    # 2130706433, 0x7f.1, 127.1, 0177.0.0.1: whatever ends in a number is an address to some reader (WHATWG URL, 3.5)
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        try:
            address4 = ip_address(host)
        except ValueError:
            raise NotAllowed("odd_address") from None
        return address4
    return None
