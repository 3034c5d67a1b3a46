"""A provider's trouble, told apart: what it means for the token set that was spent, and for whoever asked. Pure."""

from __future__ import annotations

import math

from gateway.breakers.ways import Shut
from gateway.connections.grants import Stored
from gateway.errors import Problem
from gateway.outbound.client import NEVER_SENT
from gateway.tokens import problems
from gateway.tokens.rotation import ANSWER_LOST
from providers.errors import Misconfigured, NotAllowed, OddAnswer, ProviderError, Suspended, Unreachable

BROKEN_S = 60.0  # how long an integration is left alone whose set-up the provider refuses
SPREAD_S = (
    10.0  # callers of a provider that is away come again within so long of the moment when one may be let through
)
LOST_STATUSES = frozenset({502, 504})  # of somebody in between: whoever stands behind may have acted
# An answer that came, and of which nobody knows what it said.
UNREAD = frozenset({"odd_http", "too_large", "odd_encoding", "unread"})


def is_lost(error: ProviderError) -> bool:
    """May the provider have acted, and its answer be missing?"""
    if isinstance(error, Unreachable):
        return error.status in LOST_STATUSES or (error.status is None and error.code not in NEVER_SENT)
    return error.code in UNREAD


def may_have_acted(error: ProviderError) -> bool:
    """May it have spent the refresh token, whatever it says? A later refusal is no thief's doing then."""
    return isinstance(error, Unreachable | OddAnswer) and error.code not in NEVER_SENT


def problem(error: ProviderError, pause_s: float) -> Problem:
    """Why there is no new token, for whoever asked."""
    if isinstance(error, Misconfigured | NotAllowed):
        return problems.IntegrationBroken(retry_after_s=int(BROKEN_S), provider_code=error.code)
    if isinstance(error, Suspended):
        return problems.ConnectionSuspended(do="wait")
    return again(error.code, max(pause_s, 1.0))


def again(code: str, left_s: float) -> Problem:
    """The last try ended with `code`; the next one comes in so long."""
    if code == "suspended":
        return problems.ConnectionSuspended(do="wait")
    return problems.ProviderUnavailable(retry_after_s=math.ceil(left_s), provider_code=code)


def shut_problem(shut: Shut, chance: float) -> Problem:
    """Its way lets nothing pass. Whoever asks comes again spread by `chance` (0 to 1): a thousand at once would be felt by all."""
    spread_s = 0.0 if shut.why in ("limited", "misconfigured") else SPREAD_S * chance
    after_s = max(1, math.ceil(shut.retry_after_s + spread_s))
    if shut.why == "misconfigured":
        return problems.IntegrationBroken(retry_after_s=after_s, provider_code=shut.code)
    return problems.ProviderUnavailable(retry_after_s=after_s, provider_code=shut.code, why=shut.why)


def refuse_in_doubt(stored: Stored) -> None:
    """Raises: Checking: what is in doubt, or waits for its provider to be well, is asked about by its check alone."""
    if stored.grant.contested:
        raise problems.Checking("The provider says that it is over.", retry_after_s=2, do="wait")
    if stored.check in ("refused", "rejected") and stored.check_in_s is not None and stored.check_in_s > 0:
        raise lost(stored.check_in_s) if stored.grant.reason == ANSWER_LOST else in_doubt(stored.check_in_s)


def in_doubt(left_s: float) -> problems.Checking:
    """It was refused, and a check looks again."""
    detail = "The provider refused to refresh it; a second answer decides."
    return problems.Checking(detail, retry_after_s=max(1, math.ceil(left_s)), do="wait")


def lost(left_s: float) -> problems.Checking:
    """Its answer is missing, and nobody asks before that."""
    detail = "The answer to a refresh was lost; it is asked once more when nobody can have it any longer."
    return problems.Checking(detail, retry_after_s=max(1, math.ceil(left_s)), do="wait")
