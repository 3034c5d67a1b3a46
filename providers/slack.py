"""Slack: Events API, interactive payloads and slash commands, all to one Request URL of the app; bot and user tokens.

One consent fills two access profiles: `bot` (the app's own token in a workspace or organization) and `user` (the token
of the person who consented). With token rotation each is refreshed by itself. Errors come with HTTP 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from slack_sdk.signature import SignatureVerifier

from providers import oauth, oauth_calls
from providers.calls import Http, Response, bearer
from providers.contract import Answer, Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import (
    GrantEnded,
    HandshakeRefused,
    Malformed,
    OddAnswer,
    ProviderError,
    ScopeLacking,
    SignatureMismatch,
)
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.reading import account, at, document, form, identifier, instant, media_type, text
from providers.signals import Said, Signal, Tells, known_by
from providers.signatures import header, matching, raw, signed_time, text_secret_complaint, within
from providers.slicing import blank, blank_field, blank_in_field

FACTS = Facts(
    name="slack",
    title="Slack",
    docs_url="https://docs.slack.dev/apis/events-api/",
    # https://docs.slack.dev/authentication/verifying-requests-from-slack/ (five minutes)
    signature_headers=("x-slack-signature",),
    identity_headers=("x-slack-request-timestamp",),
    timestamp_tolerance_s=5 * 60,
    # https://docs.slack.dev/apis/events-api/#responding (three seconds; retries at once, after 1 and after 5 minutes)
    kept_headers=("x-slack-retry-num", "x-slack-retry-reason"),
    ack_deadline_s=3.0,
    # A revocation comes as both of the first two, in either order. `event_time` is inside what is signed. The third is
    # about an organization's installation, which lives on without these workspaces; whether one of them has an
    # installation of its own that went with it is not documented, so its time proves nothing.
    signals=(
        Tells(
            event="tokens_revoked",
            says=("revoked",),
            knows="time",
            source="https://docs.slack.dev/reference/events/tokens_revoked",
        ),
        Tells(
            event="app_uninstalled",
            says=("revoked",),
            knows="time",
            source="https://docs.slack.dev/reference/events/app_uninstalled",
        ),
        Tells(
            event="team_access_revoked",
            says=("revoked",),
            knows="nothing",
            source="https://docs.slack.dev/reference/events/team_access_revoked",
        ),
    ),
)

# https://docs.slack.dev/authentication/installing-with-oauth, https://docs.slack.dev/authentication/using-token-rotation
OAUTH = OAuthFacts(
    authorize_url="https://slack.com/oauth/v2/authorize",
    token_url="https://slack.com/api/oauth.v2.access",  # refreshes too
    api_base="https://slack.com/api",
    # https://docs.slack.dev/reference/methods/oauth.v2.access: "HTTP Basic … if possible"
    client_auth="basic",
    pkce=False,  # see Settings
    scope_separator=",",
    # https://docs.slack.dev/authentication/installing-with-oauth#asking: scopes add up over installations
    scopes_merge=True,
    profiles=("bot", "user"),
    access_ttl_s=None,  # without token rotation it does not expire; with it, expires_in is 43200
    # "revoked after a short grace", of a length that is not told: nothing may be built on it. More than two live access
    # tokens are never had: further refreshes end older ones.
    rotation="grace",
    reuse_grace_s=0,
    # slack-ruby/slack-api-ref, methods/oauth/oauth.v2.access.json and methods/auth/auth.test.json; which is which is
    # our reading of them.
    terminal=frozenset(
        {"invalid_refresh_token", "token_revoked", "token_expired", "account_inactive", "invalid_auth", "not_authed"}
        | {"invalid_code", "code_already_used", "code_expired", "invalid_code_verifier", "user_email_unverified"}
        | {"invalid_grant", "cannot_install_an_org_installed_app"}
    ),
    configuration=frozenset(
        {"bad_client_secret", "invalid_client_id", "invalid_grant_type", "bad_redirect_uri", "no_scopes"}
        | {"oauth_authorization_url_mismatch", "preview_feature_not_available", "pkce_not_allowed", "invalid_arguments"}
        | {"invalid_team_for_non_distributed_app", "token_rotation_not_enabled", "invalid_scope"}
    ),
    transient=frozenset(
        {"ratelimited", "service_unavailable", "internal_error", "fatal_error", "request_timeout"}
        | {"team_added_to_org", "org_login_required"}  # a workspace is moving into an organization
        # The token is as good as ever; where it is used from, or what its organization wants first, is not.
        | {"accesslimited", "two_factor_setup_required", "ekm_access_denied", "enterprise_is_restricted"}
    ),
    errors_in_200=True,
    # A bot token is the workspace's: every connection to it through this app has the same one, or its kin.
    revoke_reach="account",
    # Tokens are looked up with each call: https://docs.slack.dev/reference/methods/auth.revoke, and `token_revoked` among
    # the errors of auth.test.
    probe_acquits=True,
)

# What a call is told whose token is good and does not reach that far: slack-ruby/slack-api-ref, methods/auth/auth.test.json
LACKING = frozenset({"missing_scope", "no_permission", "not_allowed_token_type", "team_access_not_granted"})


class Settings(BaseModel):
    """What an app may say of itself."""

    model_config = ConfigDict(extra="forbid")

    pkce: bool = Field(
        False, description="Whether the app opted in to PKCE. Slack takes it for a public client then, for good."
    )


FORM = "application/x-www-form-urlencoded"

_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
_CHALLENGE = re.compile(r"[A-Za-z0-9._~=-]{1,128}")


def check_secret(secret: bytes) -> str | None:
    """The app's Signing Secret, as its Basic Information page shows it."""
    if secret.startswith((b"xox", b"xapp-", b"xoxe.")):
        return "is a token, not the app's signing secret"
    return text_secret_complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless Slack signed this body in the last (or, by its clock, next) five minutes.

    The digest is the SDK's. Its `is_valid` is not used: it raises on hostile headers and cannot say "stale".
    """
    timestamp = header(delivery, "x-slack-request-timestamp")
    signature = header(delivery, "x-slack-signature")
    signed_at = signed_time(timestamp)
    if not _SIGNATURE.fullmatch(signature):
        raise SignatureMismatch("signature is not of the form v0=…")
    try:
        body = delivery.body.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None

    def due(secret: bytes) -> bytes:
        try:
            verifier = SignatureVerifier(secret.decode("utf-8"))
        except ValueError:  # white space, or no text at all: `check_secret` has said so
            return b""
        return (verifier.generate_signature(timestamp=timestamp, body=body) or "").encode()

    index = matching(trust.secrets, due, [raw(signature)])
    within(signed_at, now, FACTS.timestamp_tolerance_s or 0)
    return Verified(scheme="v0", secret=index, signed_at=signed_at)


def challenge(delivery: Delivery, trust: Trust) -> Answer | None:
    """Echo a signed `url_verification`.    Raises: HandshakeRefused, the challenge is not one that Slack makes.

    https://docs.slack.dev/reference/events/url_verification
    """
    if b"url_verification" not in delivery.body or _is_form(delivery):
        return None
    sent = document(delivery.body)
    if sent.get("type") != "url_verification":
        return None
    value = sent.get("challenge")
    if not isinstance(value, str) or not _CHALLENGE.fullmatch(value):
        raise HandshakeRefused("challenge is not of the expected form")
    return Answer(200, value.encode(), "text/plain")  # the gateway adds what keeps browsers from rendering it


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: an event, an interaction, a slash command."""
    if _is_form(delivery):
        fields = form(delivery.body)
        if not fields or delivery.body.lstrip().startswith(b"{"):  # `redact` tells the two forms apart by the bytes
            raise Malformed("not a form")
        if "payload" in fields:
            return [_interaction(delivery, document(fields["payload"].encode("utf-8", "surrogatepass")))]
        return [_command(delivery, fields)]
    sent = document(delivery.body)
    if sent.get("type") == "app_rate_limited":
        return [_rate_limited(delivery, sent)]
    return [_event(delivery, sent)]


def interpret(said: Said) -> Sequence[Signal]:
    """Users' tokens and the bot's are told apart; a list of either holds ids of users, not tokens."""
    sent = document(said.data)
    if said.event == "team_access_revoked":
        gone = _distinct(_teams_gone(sent))
        return [Signal(says="revoked", reason=said.event, accounts=gone)] if gone else []
    when = instant(sent.get("event_time"))

    def revoked(accounts: tuple[str, ...], *profiles: str) -> list[Signal]:
        told = Signal(
            says="revoked",
            reason=said.event,
            accounts=accounts,
            profiles=profiles or None,
            knows=known_by(when),
            at=when,
        )
        return [told] if accounts else []

    if said.event == "app_uninstalled":
        return revoked(_installed(sent))
    bot = _listed(at(sent, "event", "tokens", "bot"))
    return [*revoked(_distinct(_users_gone(sent)), "user"), *(revoked(_installed(sent), "bot") if bot else ())]


def redact(data: bytes) -> bytes:
    """Blank the legacy verification token, which some old receivers still take as proof."""
    if data.lstrip().startswith(b"{"):
        return blank(data, "token")
    return blank_in_field(blank_field(data, "token"), "payload", "token")


def oauth_facts(settings: Mapping[str, Any]) -> OAuthFacts:
    """PKCE is a switch of the app's, and with it refresh tokens last for 30 days only.

    https://docs.slack.dev/authentication/using-pkce: others are answered `pkce_not_allowed`
    """
    return replace(OAUTH, pkce=True, refresh_idle_s=30 * 24 * 3600) if settings.get("pkce") is True else OAUTH


def authorize(asked: Asked, app: App) -> Mapping[str, str]:
    """Scopes of the bot in `scope`, those of the person in `user_scope`."""
    sent = oauth.authorize_parameters(oauth_facts(app.settings), app, replace(asked, scopes={}))
    for name, profile in (("scope", "bot"), ("user_scope", "user")):
        if scopes := asked.scopes.get(profile):
            sent[name] = OAUTH.scope_separator.join(scopes)
    return sent


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """An exchange brings the bot's token at the top and the person's in `authed_user`; a refresh one of them, at the top.

    https://docs.slack.dev/reference/methods/oauth.v2.access (both), slack_sdk.oauth.token_rotation (refresh)
    """
    found = {}
    for said in (answer, answer.get("authed_user")):
        if isinstance(said, dict) and said.get("access_token") is not None:
            kind = said.get("token_type")
            if kind not in OAUTH.profiles:
                raise OddAnswer("odd_token_type")
            found[kind] = replace(oauth.token_set(OAUTH, said), token_type="Bearer")
    if not set(found) & set(asked.scopes):
        raise OddAnswer("no_access_token")
    return {profile: found[profile] for profile in asked.scopes if profile in found}


def classify(response: Response) -> ProviderError | None:
    """HTTP 200 may hold an error; `ratelimited` is told by the status, too."""
    refused = oauth.refusal(OAUTH, response)
    if refused is None and response.json().get("ok") is not True:
        return OddAnswer("not_ok", status=response.status)
    return refused


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The person where there is a user token, else the workspace (or organization, where all of it is installed into).

    https://docs.slack.dev/reference/methods/auth.test
    """
    said = {profile: await _call(http, "auth.test", of.access_token) for profile, of in tokens.items()}
    places = {_place(one) for one in said.values()}
    if len(places) != 1 or not (place := places.pop()):
        raise OddAnswer("no_subject")
    person: tuple[str, ...] = ()
    if "user" in said:
        person = account("user", place[0].partition(":")[2], said["user"].get("user_id"))
        if not person:
            raise OddAnswer("no_subject")
    return Identity(subject=(*person, *place)[0], accounts=(*place, *person), reach=place[0])


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """https://docs.slack.dev/reference/methods/auth.revoke: an access token that is over cannot revoke itself."""
    try:
        await _call(http, "auth.revoke", tokens.access_token)
    except GrantEnded:
        fresh = await oauth_calls.last_access(http, OAUTH, app, tokens)
        if fresh is not None:
            await _call(http, "auth.revoke", fresh)


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """auth.test needs no scope; a header of its answer tells those of the token.

    slackapi/bolt-python, slack_bolt/authorization/authorize_result.py, reads it so
    """
    response = await _answer(http, "auth.test", tokens.access_token)
    return oauth.scopes_of(response.headers.get("x-oauth-scopes"), OAUTH.scope_separator) or None


async def _call(http: Http, method: str, token: str) -> dict[str, Any]:
    return (await _answer(http, method, token)).json()


async def _answer(http: Http, method: str, token: str) -> Response:
    response = await http.send(bearer("POST", f"{OAUTH.api_base}/{method}", token))
    refused = classify(response)
    if isinstance(refused, OddAnswer) and refused.code in LACKING:
        raise ScopeLacking(refused.code, status=response.status)
    if refused is not None:
        raise refused
    return response


def _place(said: Mapping[str, Any]) -> tuple[str, ...]:
    """The key of an installation: of the whole organization, or of a workspace."""
    if said.get("is_enterprise_install") is True:
        return account("enterprise", said.get("enterprise_id"))
    return account("team", said.get("team_id"))


def _is_form(delivery: Delivery) -> bool:
    return media_type(delivery.headers.get("content-type")) == FORM


def _event(delivery: Delivery, sent: dict[str, Any]) -> Item:
    """https://docs.slack.dev/apis/events-api/#callback-field"""
    inner = text(at(sent, "event", "type")) if sent.get("type") == "event_callback" else text(sent.get("type"))
    name = event_name(inner)
    return Item(
        event=name,
        data=delivery.body,
        accounts=_distinct(_seen_by(sent)),
        dedupe=identifier(sent.get("event_id")),
        occurred_at=instant(sent.get("event_time")),
        signal=FACTS.is_signal(name),
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _installed(sent: dict[str, Any]) -> tuple[str, ...]:
    """The installation that an event is about: an organization's where the event says so, else a workspace's.

    A workspace may have one of its own beside its organization's: what happens to the one says nothing of the other.
    """
    team = sent.get("team_id")
    for one in _listed(sent.get("authorizations")):
        if at(one, "is_enterprise_install") is True:
            return account("enterprise", at(one, "enterprise_id") or sent.get("enterprise_id"))
    return account("team", team) if team else account("enterprise", sent.get("enterprise_id"))


def _users_gone(sent: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The users whose tokens went, in the installation that they had authorized; by the same keys as `identify`."""
    for place in _installed(sent):
        for user in _listed(at(sent, "event", "tokens", "oauth")):
            yield account("user", place.partition(":")[2], user)


def _teams_gone(sent: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    return (account("team", team) for team in _listed(at(sent, "event", "team_ids")))


def _seen_by(sent: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The installations that an event concerns: never the user who acted, only those who authorized.

    `authorizations` holds one installation of possibly several; `team_id` names the workspace it happened in.
    """
    team, enterprise = sent.get("team_id"), sent.get("enterprise_id")
    yield account("team", team)
    if not team:
        yield account("enterprise", enterprise)
    for one in _listed(sent.get("authorizations")):
        yield account("team", at(one, "team_id"))
        if at(one, "is_enterprise_install") is True or not at(one, "team_id"):
            yield account("enterprise", at(one, "enterprise_id") or enterprise)
        if at(one, "is_bot") is False:
            yield account("user", at(one, "team_id") or team, at(one, "user_id"))
    # A bot's token is the installation's, which is named already.
    if at(sent, "event", "type") == "tokens_revoked":
        yield from _users_gone(sent)
    if at(sent, "event", "type") == "team_access_revoked":
        yield from _teams_gone(sent)


def _rate_limited(delivery: Delivery, sent: dict[str, Any]) -> Item:
    """https://docs.slack.dev/reference/events/app_rate_limited: no event id; one for each team and minute."""
    team, minute = identifier(sent.get("team_id")), identifier(sent.get("minute_rate_limited"))
    return Item(
        event="app_rate_limited",
        data=delivery.body,
        accounts=_distinct(_seen_by(sent)),
        dedupe=f"app_rate_limited:{team}:{minute}" if team and minute else None,
        occurred_at=instant(sent.get("minute_rate_limited")),
    )


def _interaction(delivery: Delivery, sent: dict[str, Any]) -> Item:
    """https://docs.slack.dev/reference/interaction-payloads"""
    trigger = identifier(sent.get("trigger_id"))
    return Item(
        event=event_name("interactive." + (text(sent.get("type")) or "unknown")),
        data=delivery.body,
        content_type=FORM,
        accounts=_used_in(
            at(sent, "team", "id") or at(sent, "user", "team_id"),
            at(sent, "enterprise", "id"),
            at(sent, "user", "id"),
            sent.get("is_enterprise_install") is True,
        ),
        dedupe=f"trigger:{trigger}" if trigger else None,
        occurred_at=instant(sent.get("action_ts") or at(sent, "actions", 0, "action_ts")),
    )


def _command(delivery: Delivery, sent: dict[str, str]) -> Item:
    """https://docs.slack.dev/interactivity/implementing-slash-commands; `ssl_check` comes in the same form."""
    trigger = identifier(sent.get("trigger_id"))
    return Item(
        event="slash_command" if "command" in sent else "ssl_check" if "ssl_check" in sent else "unknown",
        data=delivery.body,
        content_type=FORM,
        accounts=_used_in(
            sent.get("team_id"),
            sent.get("enterprise_id"),
            sent.get("user_id"),
            sent.get("is_enterprise_install") == "true",
        ),
        dedupe=f"trigger:{trigger}" if trigger else None,
    )


def _used_in(team: Any, enterprise: Any, user: Any, enterprise_install: bool) -> tuple[str, ...]:
    """Here the user who acted is named too: it is the app itself that they spoke to."""
    organization = account("enterprise", enterprise) if enterprise_install or not team else ()
    return _distinct((account("team", team), organization, account("user", team or enterprise, user)))


def _distinct(keys: Iterator[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for some in keys for key in some))
