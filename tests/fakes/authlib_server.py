"""An OAuth server that we did not write: Authlib's, on Flask, over real HTTP in a thread of its own.

PKCE is required (RFC 7636), `iss` is sent (RFC 9207), refresh tokens rotate and the old one is dead at once, tokens can
be revoked (RFC 7009). What the person in front of it does is set beforehand (`granted`, `user`), since there are no pages.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("AUTHLIB_INSECURE_TRANSPORT", "1")  # http, on this machine

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.models import AuthorizationCodeMixin, ClientMixin, TokenMixin
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207 import IssuerParameter
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

CLIENT_ID, CLIENT_SECRET = "posthouse", "a-secret/of the client+"  # such as basic authentication must encode


@dataclass
class Client(ClientMixin):  # type: ignore[misc]  # authlib has no types
    redirect_uri: str

    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token", "client_credentials")


@dataclass
class Code(AuthorizationCodeMixin):  # type: ignore[misc]
    code: str
    redirect_uri: str
    scope: str
    user: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Token(TokenMixin):  # type: ignore[misc]
    user: str | None
    access_token: str
    scope: str
    expires_in: int
    refresh_token: str | None = None
    issued_at: float = 0.0
    revoked: bool = False

    def check_client(self, client: Client) -> bool:
        return True

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def is_expired(self) -> bool:
        return time.time() > self.issued_at + self.expires_in

    def is_revoked(self) -> bool:
        return self.revoked

    def get_user(self) -> str | None:
        return self.user

    def get_client(self) -> Client:
        raise NotImplementedError


@dataclass
class Server:
    """What tests set, and what they find."""

    url: str = ""
    redirect_uri: str = ""
    user: str | None = "user-1"  # who is signed in; None: who declines
    narrowed: set[str] = field(default_factory=set)  # scopes that are unticked
    codes: dict[str, Code] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    token_calls: list[str] = field(default_factory=list)  # grant types

    @property
    def settings(self) -> dict[str, Any]:
        """Of an integration of provider generic-oauth2."""
        return {
            "authorize_url": f"{self.url}/authorize", "token_url": f"{self.url}/token", "revoke_url": f"{self.url}/revoke",
            "userinfo_url": f"{self.url}/userinfo", "issuer": self.url, "issuer_always": True, "client_auth": "basic",
        }  # fmt: skip


@contextmanager
def running() -> Iterator[Server]:
    """The server on a free port."""
    state = Server()
    listening = make_server("127.0.0.1", 0, _app(state), threaded=True)
    state.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def _app(state: Server) -> Flask:
    app = Flask("authlib_server")
    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True

    def save_token(token: dict[str, Any], asked: Any) -> None:
        made = Token(
            user=asked.user, access_token=token["access_token"], refresh_token=token.get("refresh_token"),
            scope=token.get("scope", ""), expires_in=token["expires_in"], issued_at=time.time(),
        )  # fmt: skip
        state.tokens.append(made)

    server = AuthorizationServer(
        app, query_client=lambda id: Client(state.redirect_uri) if id == CLIENT_ID else None, save_token=save_token
    )

    class CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
        def save_authorization_code(self, code: str, asked: Any) -> None:
            scope = " ".join(one for one in (asked.payload.scope or "").split() if one not in state.narrowed)
            state.codes[code] = Code(
                code, asked.payload.redirect_uri, scope, asked.user, asked.payload.data["code_challenge"],
                asked.payload.data["code_challenge_method"],
            )  # fmt: skip

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            return state.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del state.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> str:
            return authorization_code.user

    class RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
            return next((one for one in state.tokens if one.refresh_token == refresh_token and not one.revoked), None)

        def authenticate_user(self, refresh_token: Token) -> str | None:
            return refresh_token.user

        def revoke_old_credential(self, refresh_token: Token) -> None:
            refresh_token.revoked = True

    class Revocation(RevocationEndpoint):  # type: ignore[misc]
        def query_token(self, token: str, hint: str | None) -> Token | None:
            return next((one for one in state.tokens if token in (one.access_token, one.refresh_token)), None)

        def revoke_token(self, token: Token, asked: Any) -> None:
            token.revoked = True

    class Issuer(IssuerParameter):  # type: ignore[misc]
        def get_issuer(self) -> str:
            return state.url

    server.register_grant(CodeGrant, [CodeChallenge(required=True)])
    server.register_grant(RefreshGrant)
    server.register_grant(grants.ClientCredentialsGrant)
    server.register_endpoint(Revocation)
    server.register_extension(lambda _: Issuer()(server))

    @app.get("/authorize")
    def authorize() -> Any:
        try:
            grant = server.get_consent_grant(end_user=state.user)
        except OAuth2Error as error:
            return jsonify(dict(error.get_body())), 400
        return server.create_authorization_response(grant_user=state.user, grant=grant)

    @app.post("/token")
    def token() -> Any:
        state.token_calls.append(request.form.get("grant_type", ""))
        return server.create_token_response()

    @app.post("/revoke")
    def revoke() -> Any:
        return server.create_endpoint_response("revocation")

    @app.get("/userinfo")
    def userinfo() -> Any:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = next((one for one in state.tokens if one.access_token == sent and not one.revoked), None)
        return (jsonify({"sub": found.user}), 200) if found is not None else (jsonify({}), 401)

    return app
