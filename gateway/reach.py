"""Why a database cannot be reached, in one line that holds no secret, and whether waiting may help."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from gateway.errors import SetupError

CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What stands between us and a database."""

    line: str  # the end of a sentence that begins with the database's name
    passing: bool  # it may be gone on the next try; else somebody must change something


def explain(error: BaseException) -> Trouble | None:
    """The trouble behind an error of connecting, or None where it is another kind of error."""
    match error:
        case ssl.SSLCertVerificationError():
            return Trouble(f"shows a certificate that does not pass: {error.verify_message}", False)
        case ssl.SSLError():
            return Trouble("does not agree with us on TLS (look at sslmode and sslrootcert)", False)
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return Trouble(f"refuses the login: {_first_line(error)}", False)
        case asyncpg.InvalidCatalogNameError():
            return Trouble("does not exist on that server: create it", False)
        case asyncpg.InsufficientPrivilegeError():
            return Trouble(f"does not allow that to this user: {_first_line(error)}", False)
        case asyncpg.CannotConnectNowError() | asyncpg.TooManyConnectionsError():
            return Trouble(f"takes no connection just now: {_first_line(error)}", True)
        case asyncpg.exceptions.ClientConfigurationError() if "root certificate" in str(error):
            return Trouble("is to be verified, and the file that sslrootcert names cannot be read", False)
        case asyncpg.exceptions.ClientConfigurationError() if "sslmode" in str(error):
            return Trouble("has an sslmode that there is not (use verify-full)", False)
        case asyncpg.PostgresError():
            return Trouble(f"says: {_first_line(error)}", isinstance(error, asyncpg.PostgresConnectionError))
        case TimeoutError() | asyncio.TimeoutError():
            return Trouble("does not answer in time", True)
        case socket.gaierror():
            return Trouble("has a host name that does not resolve", True)
        case OSError() if "rejected SSL upgrade" in str(error):
            return Trouble("does not offer TLS, which sslmode asks for", False)
        case OSError():
            return Trouble(f"cannot be reached: {os.strerror(error.errno) if error.errno else 'no answer'}", True)
        case ValueError():  # unreadable URLs; the texts quote parts of it, a password perhaps
            return Trouble("is not given as a URL like postgresql://user:password@host:5432/name", False)
        case asyncpg.InterfaceError():
            return Trouble("cut the connection", True)
    return None


def place(dsn: str) -> str:
    """Host and port of a DSN, for people; "" where it cannot be read. Never user, password or options."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname}:{parts.port or 5432}" if parts.hostname else "a local socket"
    except ValueError:
        return ""


async def connect(dsn: str, name: str = "the database", **server_settings: str) -> Any:
    """A connection.    Raises: Unreached, one line."""
    if (missing := _missing_file(dsn)) is not None:
        raise Unreached(f"{name} needs {missing}, which cannot be read", passing=False)
    try:
        return await asyncpg.connect(dsn, timeout=CONNECT_S, server_settings=server_settings or None)
    except Exception as error:
        trouble = explain(error)
        if trouble is None:
            raise
        # from None: the cause's text and frames may quote the DSN
        where = f" at {found}" if (found := place(dsn)) else ""
        raise Unreached(f"{name}{where} {trouble.line}", passing=trouble.passing) from None


class Unreached(SetupError):
    """A database could not be reached; `passing` if another try may do."""

    def __init__(self, line: str, *, passing: bool) -> None:
        super().__init__(line)
        self.passing = passing


def _missing_file(dsn: str) -> str | None:
    """A certificate or key that the URL names and that is not there. The driver's error does not say which."""
    try:
        options = parse_qs(urlsplit(dsn).query)
    except ValueError:
        return None  # `connect` says what is wrong with it
    for option in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        for path in options.get(option, ()):
            if not os.access(Path(path).expanduser(), os.R_OK):
                return f"the file that {option} names ({path})"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
