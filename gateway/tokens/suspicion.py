"""Is a refusal a sign that somebody else has the refresh token? Pure; the reasons stand here.

We have it from the provider's own answer, have stored it, and have not spent it; and it is dead. At a provider that rotates,
one thing that kills it is that somebody else has spent it: `refused_current`. Others do too, and a wolf that is cried at every
user who takes his consent back is soon not heard. So all of this must be ruled out first:

    a mistake, an outage    it is refused twice, ten minutes apart, and not while everybody's are (the guard)
    ourselves               an answer about it went missing, or the database was put back: `connections/reuse.py`
    its age                 it has come to the end of the life that the provider gives it
    its user                a provider that signs a message when a consent is withdrawn would have said so by then, and the
                            grant would be `revoked`. Where none is sent, or this integration is not set up to take any,
                            `invalid_grant` is how a revocation shows, and says nothing of a thief: silence
    another holder          it is a consent's or an import's own token, which others may have had: `connections/reuse.py`

What is left out for that: thefts at providers without such a message (GitLab, Microsoft) show only if the provider has a code
for it, `provider_reported`, which is believed at once; and whoever imports a token of ours that is superseded.
"""

from __future__ import annotations

from gateway.catalog import Integration
from gateway.connections.rotations import Reuse
from gateway.tokens.rotation import Due, Verdict
from providers.errors import GrantEnded, ReuseReported


def of(due: Due, error: GrantEnded, verdict: Verdict) -> Reuse | None:
    """What a refusal of its refresh token is a sign of, as far as the token set itself tells."""
    if due.stored.grant.kind != "code" or verdict == "lost":
        return None
    if isinstance(error, ReuseReported):
        return "provider_reported"
    if verdict != "again" or due.facts.rotation == "none" or _is_over(due) or not hears_of_users(due.integration):
        return None
    return "refused_current"


def hears_of_users(integration: Integration) -> bool:
    """Would a consent that its user withdraws be told by a signed message, and is there what to verify it with?"""
    provider = integration.provider
    if not any("revoked" in tells.says for tells in provider.facts.signals):
        return False
    # Who signs with keys of its own (security events) has them published somewhere, or is not set up.
    return integration.keys_at is not None if provider.key_source is not None else bool(integration.trust.secrets)


def _is_over(due: Due) -> bool:
    stored, life_s = due.stored, due.facts.refresh_life_s
    spent = stored.refresh_left_s is not None and stored.refresh_left_s <= 0
    return spent or (life_s is not None and stored.since_consent_s >= life_s)
