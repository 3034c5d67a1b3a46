"""Why a delivery is refused, told apart by what the caller does next.

Every refusal has a stable `reason` (it becomes a metric label and a line of `GET /v1/refusals`) and carries no
part of the request: neither the body nor a header's value may reach a log through an error.
"""

from __future__ import annotations

import re

WORDS = re.compile(r"[a-z][a-z0-9]{0,19}(?:[_.-][a-z0-9]{1,20})*", re.ASCII)
MOST_DIGITS = 4


class Refused(Exception):
    """The delivery is not accepted. `status` is the HTTP answer unless the provider's facts ask for another."""

    reason = "refused"
    status: int | None = None  # None: Facts.refused_status, what this provider's rules want for a bad signature

    def __init__(self, detail: str = "", *, skew_s: float | None = None) -> None:
        super().__init__(detail or self.reason)
        self.detail = detail
        self.skew_s = skew_s


class SignatureMissing(Refused):
    """A header (or field) without which nothing can be verified is absent."""

    reason = "signature_missing"


class SignatureMismatch(Refused):
    """The authenticator is there and is wrong, whatever the cause: body, key, or form."""

    reason = "signature_mismatch"


class TimestampOutOfRange(Refused):
    """Signed, but too long ago or in the future: `skew_s` is now minus the signed time, in seconds."""

    reason = "timestamp_out_of_range"


class WrongAudience(Refused):
    """A valid token that was made for somebody else."""

    reason = "wrong_audience"


class WrongSender(Refused):
    """A valid token, for us, from a sender that the integration does not name."""

    reason = "wrong_sender"


class UnknownKey(Refused):
    """The token names a key that is not among the published ones; the gateway fetches them once more."""

    reason = "unknown_key"


class NotConfigured(Refused):
    """The integration (or hook endpoint) holds no secret or setting that this delivery could be checked with."""

    reason = "not_configured"


class HandshakeRefused(Refused):
    """A handshake that nobody asked for, or in a form that is not answered."""

    reason = "handshake_refused"
    status = 403


class Malformed(Refused):
    """Verified or not, these bytes are not what this provider sends (broken JSON, wrong shape or encoding)."""

    reason = "malformed"
    status = 400


class DuplicateHeader(Refused):
    """A signature, id or timestamp header came twice: proxies disagree on which one counts, so neither does."""

    reason = "duplicate_header"
    status = 400


class ProviderError(Exception):
    """A provider's answer (or silence) to a call of ours, told apart by what the caller does next.

    `code` is stable, and the provider's own error code where that is a plain word; never a text of the provider's.
    """

    code = "provider_error"
    retryable = False

    def __init__(
        self, code: str | None = None, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.code = code if code is not None and is_plain(code) else type(self).code
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(self.code)


class GrantEnded(ProviderError):
    """The grant (refresh token, code, installation) is dead for good. Only the user can start over."""

    code = "grant_ended"


class ReuseReported(GrantEnded):
    """It is dead because its refresh token was used before: somebody else may have it."""

    code = "reuse_reported"


class Misconfigured(ProviderError):
    """Our own set-up there is wrong (client id, secret, redirect URI). No connection is to blame."""

    code = "misconfigured"


class Suspended(ProviderError):
    """The provider (or an admin there) paused the grant and may lift that. Nothing to start over."""

    code = "suspended"


class ScopeLacking(ProviderError):
    """The token works, and does not reach that far."""

    code = "scope_lacking"


class Unreachable(ProviderError):
    """No usable answer: timeout, reset, or a 5xx status. Worth another try."""

    code, retryable = "unreachable", True


class RateLimited(ProviderError):
    """Too many calls; `retry_after_s` where the provider says."""

    code, retryable = "rate_limited", True


class OddAnswer(ProviderError):
    """An answer that is none of those the provider documents: HTML, no token, a text where a number belongs."""

    code, retryable = "odd_answer", True


class NotAllowed(ProviderError):
    """We do not call that address: it is not the provider's, not public, or not https."""

    code = "not_allowed"


def is_plain(code: str) -> bool:
    """May this text of a provider's stand in our errors and metrics? Words as codes are made of, and hardly a digit.

    A provider may say back what it was sent, and secrets of many are lower-case hex: those are no words.
    """
    return len(code) <= 64 and WORDS.fullmatch(code) is not None and sum(map(str.isdigit, code)) <= MOST_DIGITS
