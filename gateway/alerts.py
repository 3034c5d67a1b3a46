"""Prometheus alerting rules over our own metrics: each says what causes it and what to do first."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. `after` is how long the expression must hold, in Prometheus' notation."""

    name: str
    expr: str
    after: str
    severity: str  # "page": providers or consumers lose time now; "ticket": it will become one
    summary: str
    cause: str
    first_step: str


ALERTS = (
    Alert(
        "PosthouseDown", "up{job=~\"posthouse.*\"} == 0", "2m", "page",
        "A Posthouse process does not answer its scrape.",
        "The process is gone, or the private listener cannot be reached from Prometheus.",
        "Look at the process's last log lines; `posthouse doctor` on its host.",
    ),
    Alert(
        "PosthouseDependencyDown", "posthouse_dependency_up == 0", "1m", "page",
        "{{ $labels.dependency }} has been away for a minute.",
        "PostgreSQL is down, out of connections or disk, or the network to it is cut. Deliveries are answered 503.",
        "`posthouse doctor`, then the database's own log. Providers that never retry (GitHub) lose deliveries meanwhile.",
    ),
    Alert(
        "PosthouseVaultDown", "posthouse_vault_up == 0", "1m", "page",
        "Vault / OpenBao at {{ $labels.server }} has been away or sealed for a minute.",
        "It restarted (and restarts sealed), or the network to it is cut. Tokens whose data keys are in memory are "
        "served until POSTHOUSE_DATA_KEY_MEMORY_S is over; nothing can be connected or refreshed.",
        "`posthouse doctor`; unseal it.",
    ),
    Alert(
        "PosthouseVaultTokenEnding", "posthouse_vault_token_seconds_left < 30", "2m", "ticket",
        "Our own token at {{ $labels.server }} ends and is not replaced.",
        "Renewal and login are refused: the secret id was revoked, or a static token came to its end.",
        "`posthouse doctor`; give the process a new secret id or token.",
    ),
    Alert(
        "PosthouseNoPartitionAhead", "posthouse_partitions_ahead_days < 1", "10m", "page",
        "The log has no partition for tomorrow.",
        "Upkeep fails: some session holds a lock on gateway.events, or the database user may not create tables.",
        "Look for `loop.failed` with loop=upkeep in the logs and for long transactions in pg_stat_activity.",
    ),
    Alert(
        "PosthouseGrantsSetAside", "posthouse_restored_grants > 0", "1m", "page",
        "{{ $value }} grants are not refreshed: the database of region {{ $labels.region }} was put back.",
        "A backup holds refresh tokens that were superseded; sending one can make the provider revoke the whole family.",
        "README, After a restore: for each integration `posthouse restored --probe`, then `--release`.",
    ),
    Alert(
        "PosthouseRevocationGivenUp", "increase(posthouse_closing_ended_total{outcome=\"given_up\"}[1h]) > 0", "0m", "ticket",
        "Tokens of connections that ended at {{ $labels.integration }} could not be revoked there within 72 hours.",
        "The provider refused or did not answer all the while, or the integration or its secret is gone. They are shredded here.",
        "Tell the customer to remove the app at the provider; look at posthouse_outbound_calls_total of kind revoke.",
    ),
    Alert(
        "PosthouseAckSlow",
        "histogram_quantile(0.99, sum by (le) (rate(posthouse_ack_seconds_bucket[5m]))) > 1", "5m", "page",
        "One delivery in a hundred waits over a second for its acknowledgement.",
        "Commits are slow (disk, synchronous replica), or one process takes more than its cores carry.",
        "Compare posthouse_commit_seconds with posthouse_append_lock_wait_seconds; if neither is high, add processes.",
    ),
    Alert(
        "PosthouseAppendLockHeld",
        "histogram_quantile(0.99, sum by (le) (rate(posthouse_append_lock_wait_seconds_bucket[5m]))) > 0.5", "5m",
        "ticket",
        "Appends wait for the region's append lock.",
        "A transaction that holds it is slow to commit: a slow disk, or a session stuck before COMMIT.",
        "In pg_locks find the holder of the advisory lock; in pg_stat_activity see what it waits for.",
    ),
    Alert(
        "PosthouseMemoryFull", "posthouse_inflight_bytes > 200e6", "2m", "ticket",
        "Nearly all memory for deliveries under way is in use; further ones get 503.",
        "Bodies are large or commits slow, so requests pile up.",
        "See whether PosthouseAckSlow fires too; else raise POSTHOUSE_MAX_INFLIGHT_BYTES or add processes.",
    ),
    Alert(
        "PosthouseRefusals",
        "sum by (integration) (rate(posthouse_refused_total[10m])) "
        "> 0.2 * (sum by (integration) (rate(posthouse_deliveries_total[10m])) + 0.01)", "10m", "ticket",
        "Many requests to {{ $labels.integration }} are refused.",
        "A signing secret was changed at the provider, a clock is wrong, or somebody sends forgeries.",
        "`posthouse deliveries refused --integration {{ $labels.integration }}`: the reason, and the clock skew.",
    ),
    Alert(
        "PosthouseNothingArrives",
        "sum by (integration) (rate(posthouse_deliveries_total[1h])) == 0 "
        "and sum by (integration) (rate(posthouse_deliveries_total[1h] offset 1d)) > 0", "1h", "ticket",
        "{{ $labels.integration }} has delivered nothing for an hour, unlike this time yesterday.",
        "The provider has switched the webhook off, or its URL no longer leads here.",
        "Look at the provider's own delivery log; `posthouse doctor` checks the public URL.",
    ),
    Alert(
        "PosthouseUnknownPath", "rate(posthouse_unknown_integration_total[15m]) > 1", "15m", "ticket",
        "Requests come to hook URLs that there are not.",
        "An integration was renamed or removed while the provider still calls it, or somebody scans.",
        "Compare the URLs registered at providers with `posthouse integrations list`.",
    ),
    Alert(
        "PosthouseConsumerLag", "posthouse_consumer_lag_seconds > 600", "10m", "page",
        "Consumer {{ $labels.consumer }} is ten minutes behind.",
        "Its workers are down, too few, or stuck on one event.",
        "`posthouse consumers list` shows partitions and workers; then the consumer's own logs.",
    ),
    Alert(
        "PosthouseConsumerNearEdge", "posthouse_consumer_lag_seconds > 5 * 86400", "10m", "page",
        "Consumer {{ $labels.consumer }} is about to fall behind retention and lose events.",
        "It has not committed for days; the log keeps 7 days by default.",
        "Start its workers, or raise POSTHOUSE_RETENTION_DAYS on every process before the day is dropped.",
    ),
    Alert(
        "PosthouseFollowerLag", "posthouse_consumer_lag_seconds{consumer=\"posthouse.lifecycle\"} > 30", "2m", "page",
        "Revocations are heard {{ $value }} s late: our own follower of the stream is behind.",
        "No process follows, they fail at the database, or far more comes than they carry. Meanwhile tokens that were "
        "withdrawn are handed out.",
        "Look for `follower.failed` in the logs; `posthouse consumers list` shows which processes follow.",
    ),
    Alert(
        "PosthouseSetAside", "posthouse_set_aside_events > 0", "5m", "ticket",
        "{{ $value }} deliveries could not be digested in region {{ $labels.region }}: what they say moves nothing.",
        "A provider sends another shape than it documents, or an interpreter of ours is at fault.",
        "`posthouse deliveries set-aside` names the errors; after an update `posthouse deliveries redrive --all`.",
    ),
    Alert(
        "PosthouseProviderDegraded", "posthouse_provider_degraded == 1", "5m", "page",
        "{{ $labels.provider }} fails for everybody: the guard holds, and its failures move no connection.",
        "An outage there, or our app or network is blocked there. Unexpired tokens are served on.",
        "The provider's status page; `posthouse providers` shows what waits. It ends by itself when three checks pass.",
    ),
    Alert(
        "PosthouseSpoolWaits", "posthouse_spool_oldest_seconds > 300", "5m", "page",
        "Rotated tokens have waited for {{ $value }} s to be written: their old ones are dead already.",
        "The database or the vault has been away since, or another process's refresh of the same grant hangs. After "
        "POSTHOUSE_SPOOL_GRACE_S without a sign of the process that holds them, others try the old tokens once.",
        "Bring the database back, and keep the process and its spool's volume until the figure is 0.",
    ),
    Alert(
        "PosthouseSpoolUnusable", "posthouse_spool_usable == 0", "10m", "ticket",
        "The spool takes no files: a rotated token that comes while the database is away is lost with its process.",
        "Its folder is not there, read-only, or another user's; the volume was not mounted.",
        "`posthouse doctor` on its host says what is wrong with the folder.",
    ),
    Alert(
        "PosthouseSpoolFailed", "increase(posthouse_spool_failures_total[15m]) > 0", "0m", "page",
        "A rotated token could not be put into the spool: it is in one process's memory, and nowhere else.",
        "The spool's folder is full, read-only or gone, and the database is away.",
        "Do not restart the process; bring the database back. Then `posthouse doctor` says what is wrong with the folder.",
    ),
    Alert(
        "PosthouseTokenReuse", "increase(posthouse_refresh_token_reuse_total[1h]) > 0", "0m", "page",
        "A refresh token shows to be in other hands ({{ $labels.kind }}).",
        "It was stolen, another system still refreshes the same grant (after a cut-over), or an old export was imported.",
        "`posthouse.security.refresh_token_reuse` on the stream names the connection; `posthouse connections rotations` "
        "shows its tokens. Have it reconnected, and look for who else has its tokens.",
    ),
    Alert(
        "PosthouseBreakerOpen", "posthouse_breakers_open{why=\"failing\"} > 0", "10m", "page",
        "{{ $labels.kind }} calls of {{ $labels.host }} ({{ $labels.provider }}) have found no usable answer for ten minutes.",
        "An outage there, or our network is cut off. One call a second at most is tried; unexpired tokens are served on.",
        "The provider's status page; `posthouse providers` shows the last code. It ends by itself.",
    ),
    Alert(
        "PosthouseIntegrationIncident", "posthouse_integration_incident > 0", "1m", "page",
        "The provider of {{ $labels.integration }} refuses the integration itself: its {{ $labels.kind }} calls are not made.",
        "Its client id or secret is wrong or was changed at the provider, or the app was switched off there. No connection is moved.",
        "`posthouse incidents` shows the provider's code; mend it and `posthouse apply`, which has it tried at once.",
    ),
    Alert(
        "PosthouseApiErrors",
        "sum(rate(posthouse_http_requests_total{status=~\"5..\"}[5m])) "
        "> 0.05 * sum(rate(posthouse_http_requests_total[5m]))", "5m", "ticket",
        "One management request in twenty fails.",
        "A dependency is away, or there is a fault in Posthouse.",
        "Find the lines with level=error in the logs; each answer's request_id is in them.",
    ),
)  # fmt: skip


def rules() -> str:
    """The rules file, YAML. Texts are JSON strings, which YAML reads as they are."""
    lines = ["groups:", "  - name: posthouse", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.after}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          cause: {json.dumps(alert.cause)}",
            f"          first_step: {json.dumps(alert.first_step)}",
        ]
    return "\n".join(lines)
