"""Every metric of the process, in a registry of its own. Units stand in the names; labels are few and bounded.

Labels hold only what an operator configured (integration, provider, consumer) or what the code names (reason,
outcome, route template, dependency): never a path, an id from outside, or a piece of a delivery. Hot paths keep the
child of `labels(…)` instead of looking it up for each request.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types it not; one series less for each counter; scrapers know when a process started

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# Seconds. The promise is p99 under 30 ms, so the buckets are dense below it; providers give up after 3 to 30 s.
ACK_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2)
LOCK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OUTBOUND_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

BUILD = Info("posthouse_build", "What runs: the version of Posthouse and of Python.", registry=REGISTRY)
BUILD.info({"version": version("posthouse"), "python": platform.python_version()})

# Inbound: what providers sent, and what became of it.
DELIVERIES = Counter(
    "posthouse_deliveries_total",
    "Items of verified deliveries, by outcome: kept (on the stream), duplicate (was there already), "
    "dropped (matched no connection at an integration that says `unattributed = drop`).",
    ("provider", "integration", "outcome"),
    registry=REGISTRY,
)
REFUSED = Counter(
    "posthouse_refused_total",
    "Requests to a known integration that were not taken, by reason (`signature_mismatch`, `timestamp_out_of_range`, `too_large` …).",
    ("provider", "integration", "reason"),
    registry=REGISTRY,
)
UNKNOWN_INTEGRATION = Counter(
    "posthouse_unknown_integration_total",
    "Requests under /hooks that name no integration or no hook endpoint of ours.",
    registry=REGISTRY,
)
MALFORMED_HTTP = Counter(
    "posthouse_malformed_http_total",
    "Connections to either listener that were closed with 400 because what came is not HTTP/1.1: scanners, TLS at a plain port, "
    "a broken proxy. Not logged, as strangers can cause any number of them.",
    registry=REGISTRY,
)
UNATTRIBUTED = Counter(
    "posthouse_unattributed_total",
    "Items of verified deliveries that matched no connection when they were kept or dropped.",
    ("provider", "integration"),
    registry=REGISTRY,
)
ACK_SECONDS = Histogram(
    "posthouse_ack_seconds",
    "From the end of a delivery's headers to the answer that acknowledges it, in seconds.",
    buckets=ACK_BUCKETS,
    registry=REGISTRY,
)
INFLIGHT_BYTES = Gauge(
    "posthouse_inflight_bytes",
    "Bytes of deliveries in memory, unverified ones included. At the limit further ones get 503.",
    registry=REGISTRY,
)

# The log: group commit.
COMMIT_BATCH_EVENTS = Histogram(
    "posthouse_commit_batch_events",
    "Events that shared one commit.",
    buckets=BATCH_BUCKETS,
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram(
    "posthouse_commit_seconds",
    "Time of one append, from its statement being sent to its commit being known, in seconds.",
    buckets=COMMIT_BUCKETS,
    registry=REGISTRY,
)
APPEND_LOCK_WAIT_SECONDS = Histogram(
    "posthouse_append_lock_wait_seconds",
    "How long an append waited for the region's append lock, in seconds. High: some transaction holds it too long.",
    buckets=LOCK_BUCKETS,
    registry=REGISTRY,
)
PARTITIONS_AHEAD_DAYS = Gauge(
    "posthouse_partitions_ahead_days",
    "Days for which the log already has partitions. Under 1 deliveries will soon have nowhere to go.",
    registry=REGISTRY,
)

# Tokens.
TOKEN_CHECK_BATCH_READS = Histogram(
    "posthouse_token_check_batch_reads",
    "Token reads that shared one check of the database.",
    buckets=BATCH_BUCKETS,
    registry=REGISTRY,
)
CHECKS = Counter(
    "posthouse_checks_total",
    "Checks of grants that were in doubt, by why they were asked for and what was found: alive, refreshed, dead, overtaken, "
    "too_new, undecided.",
    ("integration", "why", "verdict"),
    registry=REGISTRY,
)
FOLLOWED = Counter(
    "posthouse_followed_total",
    "Events that the lifecycle follower has read, by outcome: told (to the machine), nothing (to tell), set_aside.",
    ("outcome",),
    registry=REGISTRY,
)
SET_ASIDE = Gauge(
    "posthouse_set_aside_events", "Deliveries that the follower could not digest, to be tried again.", ("region",),
    registry=REGISTRY,
)  # fmt: skip
PROVIDER_DEGRADED = Gauge(
    "posthouse_provider_degraded",
    "1 while the mass-failure guard holds: a provider's failures move no connection.",
    ("region", "provider"),
    registry=REGISTRY,
)
BREAKERS = Gauge(
    "posthouse_breakers_open",
    "Ways to a provider that are shut, by kind of call and why: failing (no usable answers), limited (it said when to come "
    "again). `host` is `others` where a user chose it.",
    ("region", "provider", "kind", "host", "why"),
    registry=REGISTRY,
)
INCIDENTS = Gauge(
    "posthouse_integration_incident",
    "1 while a provider refuses an integration itself (its client secret, say): its calls of that kind are not made.",
    ("region", "integration", "kind"),
    registry=REGISTRY,
)
CALLS_SHUT = Counter(
    "posthouse_calls_shut_total",
    "Calls of providers that were not made, by reason: failing, limited, misconfigured (the breakers), guarded (the mass-failure "
    "guard), crowded (too many at once), budget (too many a second, or too many second tries).",
    ("provider", "kind", "why"),
    registry=REGISTRY,
)
BUDGET_LEFT = Gauge(
    "posthouse_budget_left", "Calls of a provider that this process may make at once.", ("region", "provider"),
    registry=REGISTRY,
)  # fmt: skip
REFRESHES = Counter(
    "posthouse_refreshes_total",
    "Refreshes of tokens, by outcome: refreshed, overtaken (by another process, a reconnect or a revocation), failed, "
    "unwritten (an attempt to write what came failed; it is tried again).",
    ("integration", "outcome"),
    registry=REGISTRY,
)
REUSE = Counter(
    "posthouse_refresh_token_reuse_total",
    "Refresh tokens that somebody else showed to have, once a token, by kind: refused_current, superseded_import, "
    "provider_reported.",
    ("kind",),
    registry=REGISTRY,
)
SPOOL_USABLE = Gauge("posthouse_spool_usable", "1 while this process's spool takes files, else 0.", registry=REGISTRY)
SPOOL_ENTRIES = Gauge(
    "posthouse_spool_entries",
    "Token sets that came and could not be written, in this process's spool: its own and those of dead processes.",
    registry=REGISTRY,
)
SPOOL_OLDEST = Gauge(
    "posthouse_spool_oldest_seconds", "Age of the oldest of them, in seconds; 0 when there is none.", registry=REGISTRY
)
SPOOL_FAILURES = Counter(
    "posthouse_spool_failures_total",
    "Token sets that could not be put into the spool either: they are in one process's memory, and nowhere else.",
    registry=REGISTRY,
)
SPOOL_DRAINED = Counter(
    "posthouse_spool_drained_total",
    "Token sets that left the spool, by outcome: written, overtaken (another one is there, or the connection ended).",
    ("outcome",),
    registry=REGISTRY,
)
RENEWALS = Counter(
    "posthouse_renewals_total",
    "Connections whose renewal was due, by outcome: renewed, overtaken (somebody else was quicker), refused (the provider calls "
    "a grant dead), failed (no answer; tried again), planned (nothing was due yet), given_back (the process ended); and by "
    "the reason of the plan.",
    ("integration", "outcome", "reason"),
    registry=REGISTRY,
)
RENEWAL_LAG = Gauge(
    "posthouse_renewal_lag_seconds",
    "How long the tenant has waited whose turn of being renewed came first, in seconds; 0 when nobody waits.",
    ("region",),
    registry=REGISTRY,
)
RENEWALS_UNDER_WAY = Gauge(
    "posthouse_renewals_under_way", "Connections that this process is renewing now.", ("region",), registry=REGISTRY
)

# Connecting accounts.
CONNECTS = Counter(
    "posthouse_connect_total",
    "What became of connect sessions, by integration: opened (the button was pressed), consented, connected, scopes_missing, "
    "denied, wrong_account, provider_error, misconfigured, awaits_approval, refused (a callback that is not this browser's or not ours), expired.",
    ("integration", "outcome"),
    registry=REGISTRY,
)

# Coming back from a backup, and ending connections.
RESTORED_GRANTS = Gauge(
    "posthouse_restored_grants",
    "Grants that are set aside since the database was put back: not refreshed until `posthouse restored --release`.",
    ("region",),
    registry=REGISTRY,
)
CLOSING_TASKS = Gauge(
    "posthouse_closing_tasks",
    "Token sets of connections that ended, kept for their revocation at the provider; 72 h at most.",
    ("region",),
    registry=REGISTRY,
)
CLOSING_ENDED = Counter(
    "posthouse_closing_ended_total",
    "Token sets of connections that ended, by outcome: done (revoked, or gone there already), not_needed (another connection "
    "shares what a revocation would reach), given_up (after 72 h, or nothing is left to revoke with). Shredded in each case.",
    ("integration", "outcome"),
    registry=REGISTRY,
)

# Readers.
CONSUMER_LAG_EVENTS = Gauge(
    "posthouse_consumer_lag_events",
    "Events that the slowest partition of a consumer has yet to commit.",
    ("consumer",),
    registry=REGISTRY,
)
CONSUMER_LAG_SECONDS = Gauge(
    "posthouse_consumer_lag_seconds",
    "Age of the oldest event that a consumer has yet to commit, in seconds; 0 when it has none.",
    ("consumer",),
    registry=REGISTRY,
)
SSE_CLIENTS = Gauge("posthouse_sse_clients", "Clients reading /v1/events/stream from this process.", registry=REGISTRY)

# The vault.
DATA_KEYS_HELD = Gauge(
    "posthouse_data_keys_held",
    "Opened data keys of tenants in this process's memory. They open tokens while the database or the key backend is away.",
    ("region",),
    registry=REGISTRY,
)
DATA_KEY_LOOKUPS = Counter(
    "posthouse_data_key_lookups_total",
    "Data keys that were asked for, by outcome: memory (it was there), unwrapped (read, and unwrapped by the key backend).",
    ("region", "outcome"),
    registry=REGISTRY,
)
KEY_BACKEND_ERRORS = Counter(
    "posthouse_key_backend_errors_total",
    "Trouble with what wraps data keys, by reason: unavailable (it did not answer), broken (a wrapped key does not open).",
    ("region", "reason"),
    registry=REGISTRY,
)
KEY_ROTATION_LEFT = Gauge(
    "posthouse_key_rotation_left",
    "What a rotation of keys under way has yet to do: `wrap` (data keys), `data` (sealed token sets). 0 when none is under way.",
    ("region", "kind"),
    registry=REGISTRY,
)

# Outbound: calls of providers.
OUTBOUND_CALLS = Counter(
    "posthouse_outbound_calls_total",
    "Calls of providers by kind (`token`, `api`, `revoke`, `keys` …) and outcome: `2xx` to `5xx`, or why there was no answer "
    "(`timed_out`, `connect_failed`, `host_not_listed`, `address_not_public`, `too_large` …).",
    ("provider", "kind", "outcome"),
    registry=REGISTRY,
)
OUTBOUND_SECONDS = Histogram(
    "posthouse_outbound_seconds",
    "Time of a call of a provider, to the last byte of its answer or to giving up, in seconds.",
    ("provider", "kind"),
    buckets=OUTBOUND_BUCKETS,
    registry=REGISTRY,
)

# The process and what it stands on.
DEPENDENCY_UP = Gauge(
    "posthouse_dependency_up",
    "1 while a dependency answers, else 0: `control`, `region:NAME`.",
    ("dependency",),
    registry=REGISTRY,
)
VAULT_UP = Gauge(
    "posthouse_vault_up",
    "1 while Vault / OpenBao answers and is unsealed, else 0; `server` is its host.",
    ("server",),
    registry=REGISTRY,
)
VAULT_TOKEN_SECONDS = Gauge(
    "posthouse_vault_token_seconds_left",
    "Seconds until our own token at Vault / OpenBao ends; +Inf: never. Near 0: renewal and login fail.",
    ("server",),
    registry=REGISTRY,
)
VAULT_CALLS = Counter(
    "posthouse_vault_calls_total",
    "Calls to Vault / OpenBao by kind (`login`, `renew`, `encrypt`, `decrypt`, `read`, `write` …) and outcome: `ok`, "
    "`refused` (a policy, a wrong path or value), `unavailable` (away, sealed, standby, rate limit).",
    ("kind", "outcome"),
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "posthouse_http_requests_total",
    "Requests to the management API, by route template (`unmatched` where there is none), method and status.",
    ("route", "method", "status"),
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "posthouse_http_request_seconds",
    "Time to the answer of the management API by route template, in seconds; streams are left out.",
    ("route",),
    buckets=HTTP_BUCKETS,
    registry=REGISTRY,
)
