"""`posthouse alerts`: what Prometheus should wake somebody for."""

from __future__ import annotations


def alerts() -> None:
    """Print Prometheus alerting rules (YAML), each with its cause and the first step."""
    from gateway.alerts import rules

    print(rules())
