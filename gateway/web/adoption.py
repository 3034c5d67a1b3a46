"""Connections in and out over HTTP: import, hold, activate, export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from uuid import UUID

import orjson
from pydantic import AfterValidator, AwareDatetime, Field, SecretStr, SkipValidation, StringConstraints, ValidationError
from starlette.responses import Response, StreamingResponse

from gateway import ids
from gateway.adoption import exporting, holding, importing
from gateway.adoption.lines import Kind, Line, LineRefused, Marks, Outcome, Result, TokenLine
from gateway.service import Gateway
from gateway.vault.jwe import Recipient
from gateway.web import problems
from gateway.web.fields import Account, IntegrationName, Labels, TenantId, Text
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Route
from providers.oauth import LONGEST_TOKEN

MOST_LINES = 1000
MOST_BYTES = 16 * 1024 * 1024
State = Literal["pending", "active", "suspect", "suspended", "reauth_required", "revoked", "closed"]


def _printable(token: SecretStr) -> SecretStr:
    if not token.get_secret_value().isprintable():
        raise ValueError("must be printable: it goes into a header")
    return token


Token = Annotated[
    SecretStr,
    Field(min_length=1, max_length=LONGEST_TOKEN, description="sealed, never shown again"),
    AfterValidator(_printable),
]
TokenType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,50}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,500}$")]
ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
ParameterValue = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,2000}$")]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class TokenSet(Body):
    """The token set of one access profile."""

    access_token: Token | None = None
    refresh_token: Token | None = None
    token_type: TokenType = "Bearer"
    expires_at: Annotated[AwareDatetime | None, Field(description="of the access token; null: it does not expire")] = (
        None
    )
    refresh_expires_at: Annotated[AwareDatetime | None, Field(description="null: not known, or never")] = None
    scopes: Annotated[
        list[Scope] | None, Field(max_length=500, description="null: all that the access profile asks for")
    ] = None
    parameters: Annotated[
        dict[ParameterName, ParameterValue],
        Field(max_length=20, description="parts of the provider's URLs, and what its API calls need beside the token"),
    ] = Field(default_factory=dict)
    kind: Annotated[Kind, Field(description="`installation` and `client_credentials` are minted, not refreshed")] = (
        "code"
    )

    def told(self) -> TokenLine:
        return TokenLine(
            access_token=_revealed(self.access_token), refresh_token=_revealed(self.refresh_token),
            token_type=self.token_type, expires_at=self.expires_at, refresh_expires_at=self.refresh_expires_at,
            scopes=None if self.scopes is None else tuple(self.scopes), parameters=self.parameters, kind=self.kind,
        )  # fmt: skip


class Hashes(Body):
    """Who the account is, as keyed hashes: of an export of this very deployment; another's are passed over."""

    of: UUID
    accounts: list[UUID] = Field(default_factory=list, max_length=1000)
    subject: UUID | None = None
    reach: dict[ProfileName, UUID] = Field(default_factory=dict)


class Exported(Body):
    """What an export says beside what an import reads. All but the hashes is for people."""

    export: str | None = None
    line: int | None = None
    connection: str | None = None
    state: State | None = None
    reason: str | None = None
    grants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    hashes: Hashes | None = None


class ImportLine(Body):
    """One connection with its token sets, as another system held it."""

    tenant: TenantId
    integration: IntegrationName
    external_id: Annotated[
        Text, Field(description="yours; with tenant and integration it makes the line one connection")
    ]
    end_user_id: Text | None = None
    labels: Labels = Field(default_factory=dict)
    accounts: Annotated[
        list[Account] | None, Field(max_length=100, description="by which its deliveries are known; null: as they are")
    ] = None
    subject: Annotated[Text | None, Field(description="the account itself: a reconnect must be the same one")] = None
    reach: Annotated[
        Text | None, Field(description="what a revocation would reach, where that is more than this token")
    ] = None
    access_profiles: Annotated[dict[ProfileName, TokenSet], Field(min_length=1, max_length=32)]
    posthouse: Exported | None = None

    def line(self) -> Line:
        hashes = None if self.posthouse is None else self.posthouse.hashes
        return Line(
            tenant=self.tenant, integration=self.integration, external_id=self.external_id,
            end_user_id=self.end_user_id, labels=self.labels,
            accounts=None if self.accounts is None else tuple(self.accounts), subject=self.subject, reach=self.reach,
            access_profiles={name: tokens.told() for name, tokens in self.access_profiles.items()},
            marks=None if hashes is None else Marks(
                of=hashes.of, accounts=tuple(hashes.accounts), subject=hashes.subject, reach=hashes.reach
            ),
        )  # fmt: skip


def read_line(raw: bytes) -> Line:
    """A line of JSON.    Raises: LineRefused, saying where it does not fit and nothing of what it says."""
    if b"u0000" in raw or b"\0" in raw:
        raise LineRefused("invalid", "it must not contain NUL characters")
    try:
        return ImportLine.model_validate_json(raw).line()
    except ValidationError as error:
        found = problems.from_validation(error, "").extra["errors"][:3]
    if found[0]["type"] == "json_invalid":
        raise LineRefused("invalid", "it is not JSON")
    told = "; ".join(f"{one['where'].removeprefix('.')} {one['message']}".strip() for one in found)
    raise LineRefused("invalid", told)


class Import(Body):
    """A batch of connections. Each is judged by itself: one that cannot be does not keep the others out."""

    connections: Annotated[  # as they came: tokens stand in them
        list[SkipValidation[ImportLine]], Field(min_length=1, max_length=MOST_LINES, repr=False)
    ]
    hold: Annotated[bool, Field(description="neither refresh nor renew them until `activate`")] = False
    allow_unrefreshable: Annotated[
        bool, Field(description="take in what nothing can refresh: `reauth_required`, reason `unrefreshable`")
    ] = False
    dry_run: Annotated[bool, Field(description="say what would become of them, and do nothing")] = False


class LineResult(Answer):
    """What became of a line. `reason` tells why it was refused, or why the connection is not active."""

    line: int = Field(description="its number in the batch, from 1")
    result: Result
    connection: str | None
    state: State | None
    reason: str | None
    detail: str | None


class Imported(Answer):
    """One result for each line, in order."""

    results: list[LineResult]


class Which(Body):
    """Grants of a tenant, of an integration, or of both together. One of them must be named."""

    tenant: TenantId | None = None
    integration: IntegrationName | None = None


class Moved(Answer):
    """How much was moved; what was so already does not count."""

    connections: int
    grants: int


class Export(Body):
    """Which connections, and to whom they are sealed."""

    recipient: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$"),
        Field(description="an X25519 public key in base64url: what `posthouse connections keygen` prints"),
    ]
    tenant: TenantId | None = None
    integration: IntegrationName | None = None


async def bring_in(gateway: Gateway, call: Call[Import, NoQuery]) -> Imported:
    """Take over connections with the tokens that another system holds.

    A line is about the open connection with its `(tenant, integration, external_id)`: it is made, brought up to date or
    found `unchanged`, so a batch may be sent again. Token sets replace those that are there only while the grant is held
    or needs a new consent; other ones for a grant that is refreshed here are refused (`in_use`). While two systems
    refresh the same rotating grant they kill it: import with `hold`, stop the other system, import again what it has
    refreshed meanwhile, then `activate`.
    """
    asked, results = call.body, cast(list[Outcome | None], [None] * len(call.body.connections))
    lines: list[tuple[int, Line]] = []
    for place, raw in enumerate(asked.connections):
        try:
            lines.append((place, read_line(orjson.dumps(raw))))
        except (LineRefused, TypeError) as refused:
            detail = (
                refused.detail
                if isinstance(refused, LineRefused)
                else "it holds a number or a text that JSON does not carry"
            )
            results[place] = Outcome(result="refused", reason="invalid", detail=detail)
    # Ids are new at every attempt, unlike `call.new_id`'s: a batch commits in parts, and one that is sent again goes on
    # where the first broke off, so its first id is not the first one's.
    found = await importing.bring_in(
        gateway, [line for _, line in lines], hold=asked.hold, unrefreshable=asked.allow_unrefreshable,
        dry_run=asked.dry_run, new_id=gateway.new_id,
    )  # fmt: skip
    for (place, _), outcome in zip(lines, found, strict=True):
        results[place] = outcome
    return Imported(
        results=[shown(number, outcome) for number, outcome in enumerate(results, 1) if outcome is not None]
    )


def shown(number: int, outcome: Outcome) -> LineResult:
    return LineResult(
        line=number, result=outcome.result, state=outcome.state, reason=outcome.reason, detail=outcome.detail,
        connection=None if outcome.connection_id is None else ids.show(ids.CONNECTION, outcome.connection_id),
    )  # fmt: skip


async def activate(gateway: Gateway, call: Call[Which, NoQuery]) -> Moved:
    """End the hold of imported grants: from here on they are refreshed and renewed here, and only here."""
    return await _put(gateway, call, held=False)


async def hold(gateway: Gateway, call: Call[Which, NoQuery]) -> Moved:
    """Neither refresh nor renew these grants, until `activate`: before another system takes them over."""
    return await _put(gateway, call, held=True)


async def _put(gateway: Gateway, call: Call[Which, NoQuery], *, held: bool) -> Moved:
    asked = call.body
    if asked.tenant is None and asked.integration is None:
        raise invalid("body", "must name a tenant, an integration, or both")
    integration, moved, grants = integration_id(gateway, asked.integration), 0, 0
    for region in gateway.regions:
        counted = await holding.put(
            region, held=held, tenant=asked.tenant, integration=integration, new_id=gateway.new_id
        )  # fmt: skip
        moved, grants = moved + counted.connections, grants + counted.grants
    return Moved(connections=moved, grants=grants)


async def let_out(gateway: Gateway, call: Call[Export, NoQuery]) -> Response:
    """Every matching connection with its tokens, refresh tokens included, sealed to `recipient`, one line each.

    A line is a JWE in compact form (RFC 7516; ECDH-ES with X25519, A256GCM); opened, it is a line that an import takes.
    The last line says how many there were: without it the export was cut short. `posthouse connections open` does it all.
    """
    asked = call.body
    assert call.key is not None
    recipient = Recipient.parse(asked.recipient)
    wanted = exporting.Wanted(
        recipient=recipient, actor=call.key.id, tenant=asked.tenant,
        integration=integration_id(gateway, asked.integration),
    )  # fmt: skip
    return StreamingResponse(
        exporting.lines(gateway, wanted), media_type="text/plain", headers={"cache-control": "no-store"}
    )


def integration_id(gateway: Gateway, name: str | None) -> UUID | None:
    """Raises: Invalid."""
    if name is None:
        return None
    integration = gateway.catalog.integration(name)
    if integration is None:
        raise invalid("body.integration", "is not an integration's name")
    return integration.id


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


ROUTES = [
    Route(
        "POST", "/v1/connections/import", "connections:import", bring_in, "Take over connections with their tokens",
        body=Import, answer=Imported, idempotent=True, most_bytes=MOST_BYTES, limit_s=50,
    ),
    Route(
        "POST", "/v1/connections/activate", "connections:import", activate, "End the hold of grants",
        body=Which, answer=Moved, idempotent=True, limit_s=50,
    ),
    Route(
        "POST", "/v1/connections/hold", "connections:import", hold, "Hold grants: no refresh, no renewal",
        body=Which, answer=Moved, idempotent=True, limit_s=50,
    ),
    Route(
        "POST", "/v1/connections/export", "connections:export", let_out, "Connections with their tokens, sealed",
        body=Export, stream=True, media="text/plain",
    ),
]  # fmt: skip
