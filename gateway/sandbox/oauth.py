"""The rules of the sandbox as an authorization server. No HTTP in here: parameters in, answers or `Refused` out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from gateway.sandbox.records import USERS, Client, Code, Consent, Grant, Token
from gateway.sandbox.state import Sandbox

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
CONSENT_TTL_S = 600


class Refused(Exception):
    """An OAuth error: its code (RFC 6749 sections 4.1.2.1 and 5.2), and a sentence for whoever tries things here."""

    def __init__(self, code: str, why: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.why, self.status = code, why, status


class NoWayBack(Exception):
    """An authorization request that must not be answered by a redirect: its client or redirect URI is not right."""


def where_back(sandbox: Sandbox, asked: Mapping[str, str]) -> tuple[Client, str]:
    """The client of an authorization request, and its redirect URI, which must be exactly a registered one."""
    client = sandbox.clients.get(asked.get("client_id", ""))
    if client is None:
        raise NoWayBack("No app with this client_id is registered here.")
    uri = asked.get("redirect_uri", "")
    if uri not in client.redirect_uris:
        raise NoWayBack("This redirect_uri is not one that the app has registered, character by character.")
    return client, uri


def begin(sandbox: Sandbox, client: Client, redirect_uri: str, asked: Mapping[str, str]) -> Consent:
    """What the consent page is about.    Raises: Refused, to be told by the redirect."""
    if asked.get("response_type") != "code":
        raise Refused("unsupported_response_type", "Only response_type=code is known here.")
    if asked.get("code_challenge_method", "") != "S256" or not CHALLENGE.fullmatch(asked.get("code_challenge", "")):
        raise Refused("invalid_request", "PKCE is required: code_challenge, with code_challenge_method=S256.")
    consent = Consent(
        id=sandbox.new("consent"),
        client=client,
        redirect_uri=redirect_uri,
        scopes=_scopes(asked.get("scope"), client.scopes),
        state=asked.get("state"),
        challenge=asked["code_challenge"],
        login_hint=asked.get("login_hint"),
        adds=asked.get("include_granted_scopes") == "true",  # as Google calls it
        asked_at=sandbox.clock.now(),
    )
    sandbox.lay_open(consent)
    return consent


def decide(sandbox: Sandbox, consent_id: str, user: str, ticked: Iterable[str], allow: bool) -> tuple[Consent, str]:
    """The user's decision, once: the consent and its code ("" where it was denied).    Raises: NoWayBack."""
    consent = sandbox.consents.pop(consent_id, None)
    now = sandbox.clock.now()
    if consent is None or now >= consent.asked_at + timedelta(seconds=CONSENT_TTL_S):
        raise NoWayBack("This page was used already, or is too old. Start again at the app.")
    if user not in USERS:
        raise NoWayBack("There is no such user.")
    if not allow:
        return consent, ""
    code = sandbox.new("code")
    sandbox.codes[code] = Code(
        client_id=consent.client.id,
        redirect_uri=consent.redirect_uri,
        challenge=consent.challenge,
        user=user,
        scopes=(frozenset(ticked) & set(consent.scopes))
        | (_given_before(sandbox, consent, user) if consent.adds else set()),
        expires_at=now + timedelta(seconds=sandbox.rules.code_ttl_s),
    )
    return consent, code


def authenticated(sandbox: Sandbox, id: str, secret: str | None) -> Client:
    """The client that a call of the token endpoint comes from.    Raises: Refused."""
    client = sandbox.clients.get(id)
    right = client is not None and (
        secret is None
        if client.secret is None
        else secret is not None and hmac.compare_digest(secret.encode(), client.secret.encode())
    )
    if client is None or not right:
        raise Refused("invalid_client", "No such client, or not its secret.", 401)
    return client


def exchange(sandbox: Sandbox, client: Client, asked: Mapping[str, str]) -> dict[str, Any]:
    """An authorization code for tokens (RFC 6749 section 4.1.3). A code that comes twice ends what it gave."""
    code, now = sandbox.codes.get(asked.get("code", "")), sandbox.clock.now()
    if code is None or code.client_id != client.id:
        raise Refused("invalid_grant", "No such code of this client.")
    if code.used:
        if code.grant is not None:
            end(sandbox, code.grant, "code_replayed")
        raise Refused("invalid_grant", "This code was used before; its tokens are revoked.")
    code.used = True
    if now >= code.expires_at:
        raise Refused("invalid_grant", "This code is too old.")
    if asked.get("redirect_uri") != code.redirect_uri:
        raise Refused("invalid_grant", "The redirect_uri is not that of the authorization request.")
    verifier = asked.get("code_verifier", "")
    digest = hashlib.sha256(verifier.encode()).digest()
    if not VERIFIER.fullmatch(verifier) or base64.urlsafe_b64encode(digest).decode().rstrip("=") != code.challenge:
        raise Refused("invalid_grant", "The code_verifier does not fit the code_challenge.")
    code.grant = _grant(sandbox, client, code.user, code.scopes)
    return _answer(sandbox, code.grant, code.scopes, _issue(sandbox, "refresh_token", code.grant, code.scopes))


def refresh(sandbox: Sandbox, client: Client, asked: Mapping[str, str]) -> dict[str, Any]:
    """New tokens for a refresh token (RFC 6749 section 6), by the rules of rotation."""
    token, now, rules = sandbox.tokens.get(asked.get("refresh_token", "")), sandbox.clock.now(), sandbox.rules
    if token is None or token.kind != "refresh_token" or token.grant.client_id != client.id:
        raise Refused("invalid_grant", "No such refresh token of this client.")
    if not token.lives(now):
        raise Refused("invalid_grant", "This refresh token is over.")
    if token.used_at is not None and rules.rotation != "none":
        graced = rules.rotation == "grace" and now < token.used_at + timedelta(seconds=rules.grace_s)
        if not graced:
            end(sandbox, token.grant, "refresh_token_reused")
            raise Refused("invalid_grant", "This refresh token was used before; its whole grant is revoked.")
    scopes = token.grant.scopes
    if "scope" in asked:
        scopes = frozenset(_scopes(asked["scope"], tuple(scopes)))
    if rules.refresh_ends_access:
        for other in token.grant.access_tokens:
            other.ended = True
        token.grant.access_tokens.clear()
    if rules.rotation == "none":
        token.expires_at = now + timedelta(seconds=rules.refresh_ttl_s)
        return _answer(sandbox, token.grant, scopes, None)
    token.used_at = token.used_at or now
    return _answer(sandbox, token.grant, scopes, _issue(sandbox, "refresh_token", token.grant, token.grant.scopes))


def client_credentials(sandbox: Sandbox, client: Client, asked: Mapping[str, str]) -> dict[str, Any]:
    """A token of the client's own (RFC 6749 section 4.4): no user, no refresh token."""
    if client.secret is None:
        raise Refused("unauthorized_client", "A public client has no credentials of its own.")
    scopes = frozenset(_scopes(asked.get("scope"), client.scopes))
    return _answer(sandbox, _grant(sandbox, client, None, scopes), scopes, None)


def revoke(sandbox: Sandbox, client: Client, value: str) -> None:
    """RFC 7009: a refresh token with its grant, an access token alone. One that is not there is as good as revoked."""
    token = sandbox.tokens.get(value)
    if token is None or token.grant.client_id != client.id:
        return
    token.ended = True
    if token.kind == "refresh_token":
        end(sandbox, token.grant, "revoked_by_client")


def introspect(sandbox: Sandbox, client: Client, value: str) -> dict[str, Any]:
    """RFC 7662; of another client's token nothing is told."""
    token, now = sandbox.tokens.get(value), sandbox.clock.now()
    if token is None or token.grant.client_id != client.id or not token.lives(now):
        return {"active": False}
    if token.used_at is not None and sandbox.rules.rotation != "none":
        return {"active": False}
    told: dict[str, Any] = {
        "active": True,
        "scope": " ".join(sorted(token.scopes)),
        "client_id": client.id,
        "token_type": "Bearer" if token.kind == "access_token" else token.kind,
        "iat": int(token.issued_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
        "iss": sandbox.issuer,
        "grant_id": token.grant.id,
    }
    return told | {"sub": token.grant.user or f"client:{client.id}"}


def end(sandbox: Sandbox, grant: Grant, cause: str, *, tell: bool = False) -> None:
    """A grant is over, with all its tokens. `tell`: as when a user withdraws it, by webhook `grant.revoked`."""
    if grant.ended_at is not None:
        return
    grant.ended_at, grant.cause = sandbox.clock.now(), cause
    client = sandbox.clients.get(grant.client_id)
    if tell and client is not None:
        told = {"grant_id": grant.id, "user": grant.user, "revoked_at": grant.ended_at.isoformat()}
        sandbox.webhooks.tell(client, "grant.revoked", told, grant.user)


def _given_before(sandbox: Sandbox, consent: Consent, user: str) -> set[str]:
    """By the user to the client, and not asked about now: unticking takes away what is asked about, and no more."""
    mine = [grant for grant in sandbox.grants.values() if (grant.client_id, grant.user) == (consent.client.id, user)]
    return {scope for grant in mine if grant.ended_at is None for scope in grant.scopes} - set(consent.scopes)


def _scopes(asked: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Those asked for, in their order; all where none are.    Raises: Refused."""
    wanted = tuple(dict.fromkeys((asked or "").split())) or known
    if unknown := [scope for scope in wanted if scope not in known]:
        raise Refused("invalid_scope", f"Not to be had: {' '.join(unknown)[:200]}")
    return wanted


def _grant(sandbox: Sandbox, client: Client, user: str | None, scopes: frozenset[str]) -> Grant:
    grant = Grant(sandbox.new("grant", 9), client.id, user, scopes, sandbox.clock.now())
    sandbox.grants[grant.id] = grant
    return grant


def _issue(sandbox: Sandbox, kind: Any, grant: Grant, scopes: frozenset[str]) -> str:
    now, rules = sandbox.clock.now(), sandbox.rules
    life = timedelta(seconds=rules.access_ttl_s if kind == "access_token" else rules.refresh_ttl_s)
    value = sandbox.new("at" if kind == "access_token" else "rt", 24)
    token = Token(kind=kind, grant=grant, scopes=scopes, issued_at=now, expires_at=now + life)
    sandbox.tokens[value] = token
    if kind == "access_token":
        grant.access_tokens.append(token)
    return value


def _answer(sandbox: Sandbox, grant: Grant, scopes: frozenset[str], refresh_token: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "access_token": _issue(sandbox, "access_token", grant, scopes),
        "token_type": "Bearer",
        "expires_in": sandbox.rules.access_ttl_s,
        "scope": " ".join(sorted(scopes)),
        "grant_id": grant.id,  # of our own: webhooks name it too
    }
    if refresh_token is not None:
        answer |= {"refresh_token": refresh_token, "refresh_token_expires_in": sandbox.rules.refresh_ttl_s}
    return answer
