"""The one way out (PROTOCOLS 8): every call to a provider leaves through `Outbound`.

What is called is settled before a byte goes out, and by four rooms: `targets` reads a URL and asks whether its host is
on the list, `resolver` looks the name up once and hands on only addresses that `addresses` permits, and `client`
connects to exactly those, bounded in time and size.
"""

from __future__ import annotations

from gateway.outbound.client import NEVER_SENT, Outbound, ProviderHttp
from gateway.outbound.resolver import Lookup
from gateway.outbound.targets import Hosts, hosts_of, places

__all__ = ["NEVER_SENT", "Hosts", "Lookup", "Outbound", "ProviderHttp", "hosts_of", "places"]
