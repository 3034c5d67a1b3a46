"""Metrics: documented, with units in their names, and bounded labels."""

from __future__ import annotations

import re

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics

OURS = re.compile(r"posthouse_[a-z_]+")
BOUNDED = {
    "provider", "integration", "consumer", "dependency", "server", "region", "host",  # what an operator configured
    "reason", "outcome", "kind", "route", "method", "status", "version", "python", "why", "verdict",  # what the code names
}  # fmt: skip


def test_every_metric_is_documented_and_its_labels_are_bounded() -> None:
    """A label that a stranger can fill is a way to fill our memory."""
    seen = set()
    for family in metrics.REGISTRY.collect():
        if not family.name.startswith("posthouse_"):
            continue
        seen.add(family.name)
        assert OURS.fullmatch(family.name)
        assert len(family.documentation) > 20
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_events", "_reads"))
    for value in vars(metrics).values():
        assert set(getattr(value, "_labelnames", ())) <= BOUNDED
    assert {
        "posthouse_deliveries", "posthouse_refused", "posthouse_unknown_integration", "posthouse_unattributed", "posthouse_malformed_http",
        "posthouse_ack_seconds", "posthouse_commit_batch_events", "posthouse_commit_seconds",
        "posthouse_append_lock_wait_seconds", "posthouse_inflight_bytes", "posthouse_consumer_lag_events",
        "posthouse_consumer_lag_seconds", "posthouse_dependency_up", "posthouse_partitions_ahead_days",
        "posthouse_http_requests", "posthouse_outbound_calls", "posthouse_outbound_seconds", "posthouse_sse_clients", "posthouse_build",
    } <= seen  # fmt: skip


def test_the_page_is_what_prometheus_reads() -> None:
    """Parsed by the client library's own parser."""
    page = generate_latest(metrics.REGISTRY).decode()
    assert {"posthouse_build_info", "process_cpu_seconds"} <= {f.name for f in text_string_to_metric_families(page)} | {
        sample.name for f in text_string_to_metric_families(page) for sample in f.samples
    }
