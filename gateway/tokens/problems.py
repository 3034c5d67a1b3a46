"""Why no token is handed out, told apart by what the caller does next. All name the state; `do` says what mends it.

Two kinds: 409, which trying again does not mend (but for `checking`, which says when), and 503 with Retry-After.
"""

from __future__ import annotations

from gateway.connections.states import State
from gateway.errors import Problem, Unavailable


class NotIssued(Problem):
    """No token of this grant is handed out in its present state."""

    status = 409


class AccessProfileNeeded(NotIssued):
    """The connection has several access profiles: `access_profiles` names them."""

    code, title = "access_profile_needed", "Say which access profile"


class NoGrant(NotIssued):
    """Nobody has consented to that access profile of this connection."""

    code, title = "no_grant", "The connection has no grant of that access profile"


class ConnectionPending(NotIssued):
    """The consent was not completed yet."""

    code, title = "connection_pending", "The connection is not complete yet"


class ConnectionSuspended(NotIssued):
    """The provider paused the account and may lift that."""

    code, title = "connection_suspended", "The provider suspended the account"


class ReauthRequired(NotIssued):
    """Only the user can restore it, with a new consent."""

    code, title = "reauth_required", "The user must connect again"


class ConnectionRevoked(NotIssued):
    """The user or the provider withdrew it."""

    code, title = "connection_revoked", "The grant was revoked"


class ConnectionClosed(NotIssued):
    """The tenant removed it."""

    code, title = "connection_closed", "The connection is closed"


class Held(NotIssued):
    """Imported and held before a cut-over: its token has expired, and only `connections activate` lets us renew it."""

    code, title = "held", "The grant is held and is not refreshed"


class SealBroken(Problem):
    """The stored token set does not open: its row was changed, or its key is gone."""

    status, code, title = 500, "seal_broken", "The stored token does not open"


class ProviderUnavailable(Unavailable):
    """The token has expired and the provider gives no new one just now."""

    code, title = "provider_unavailable", "The provider gives no new token just now"


class IntegrationBroken(Unavailable):
    """The token has expired, and the provider refuses the integration itself: its client id, secret or set-up."""

    code, title = "integration_broken", "The integration's set-up is refused by its provider"


class Checking(NotIssued):
    """Whether the grant still lives is being found out; come back after Retry-After.

    The provider says that it is over, and it is not known of which generation; or its token has expired and was refused
    to be refreshed."""

    code, title = "checking", "Whether the grant still works is being checked"


# What each state in which no token is handed out is called; `states.ACTIONS` says what the caller does then.
BY_STATE: dict[State, type[NotIssued]] = {
    "pending": ConnectionPending,
    "suspended": ConnectionSuspended,
    "reauth_required": ReauthRequired,
    "revoked": ConnectionRevoked,
    "closed": ConnectionClosed,
}
REFUSALS: tuple[type[Problem], ...] = (
    AccessProfileNeeded, NoGrant, ConnectionPending, ConnectionSuspended, ReauthRequired, ConnectionRevoked,
    ConnectionClosed, Held, ProviderUnavailable, IntegrationBroken, Checking,
)  # fmt: skip
