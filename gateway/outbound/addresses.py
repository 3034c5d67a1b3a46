"""Which IP addresses may be called: public ones, and the ranges that the operator allows.

Source: the IANA registries of special-purpose addresses (RFC 6890 and its successors), as of 2025. Python's own
`is_global` has changed its mind several times within 3.11, so the ranges stand here.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # between carriers (RFC 6598)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: clouds put credentials there
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, gone
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
PUBLIC_6 = IPv6Network("2000::/3")  # global unicast; whatever lies outside is not for us
NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds an IPv4 address that a relay would call for us
        "3fff::/20",  # documentation
    )
)
NAT64 = IPv6Network("64:ff9b::/96")  # what DNS64 makes of IPv4 addresses (RFC 6052)


def read(text: str) -> Address:
    """An address as a resolver writes it.    Raises: ValueError. One with a zone (`fe80::1%eth0`) is never for us."""
    if "%" in text:
        raise ValueError("zone")
    return ip_address(text)


def meant(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or NAT64 one, where packets would really go; else the address."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Is this an address of the public Internet?"""
    address = meant(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    return address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Is it in one of these networks (the operator's)?"""
    address = meant(address)
    return any(address.version == network.version and address in network for network in networks)


def networks_of(listed: Iterable[str]) -> tuple[Network, ...]:
    """CIDRs or single addresses as networks.    Raises: ValueError, naming the first that is none."""
    found = []
    for text in listed:
        try:
            found.append(ip_network(text))
        except ValueError:
            raise ValueError(f"{text[:50]!r} is not a network like 10.0.0.0/8 or fd00::/8") from None
    return tuple(found)
