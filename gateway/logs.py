"""Structured logs: one JSON object a line (or a line for people), on standard error.

Every line, ours or a library's, goes through `redaction`. What a request is about (`request_id`, `trace_id`) is put
into context variables by the web layer and stands in every line written while it is served.

Library messages are shown as their template, first line only: asyncio and others format reprs of objects, and so
texts of exceptions, into theirs. Arguments come in only where all of them are numbers.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from gateway import redaction

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Written by us with route templates instead (web/routing.py): paths and queries hold ids, codes and tokens.
SILENCED = ("uvicorn.access", "aiohttp.access")


def configure(log_format: str = "json", log_level: str = "info", stream: BinaryIO | None = None) -> None:
    """Send every log line of the process through redaction to `stream` (standard error).

    `log_format` is `json` or `console`, `log_level` one of `LEVELS`. uvicorn must be started with `log_config=None`.
    """
    level = LEVELS[log_level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _exceptions,
            _guarded,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _json if log_format == "json" else _console,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(stream or sys.stderr.buffer),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, Foreign)] + [Foreign()]
    root.setLevel(max(level, logging.WARNING))  # what libraries say below a warning is theirs
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("uvicorn", "asyncpg", "aiohttp", "asyncio"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    for name in SILENCED:
        logging.getLogger(name).propagate = False
        logging.getLogger(name).disabled = True


class Foreign(logging.Handler):
    """Takes what libraries log through the standard library to the same place, with less trust."""

    def emit(self, record: logging.LogRecord) -> None:
        log: FilteringBoundLogger = structlog.get_logger()
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        log.log(record.levelno, template(record), **fields)


def template(record: logging.LogRecord) -> str:
    """The first line of a library's message, without arguments unless all are numbers."""
    message = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    args = record.args if isinstance(record.args, tuple) else ()
    if args and all(isinstance(arg, int | float) for arg in args):
        try:
            message = message % args
        except (TypeError, ValueError):
            pass
    lines = message.splitlines() or [""]
    return lines[0]


def _exceptions(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        event["error"] = redaction.failure(error)
        event["frames"] = redaction.frames(error.__traceback__)
    return event


def _guarded(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return redaction.fields(event)


def _json(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    line = {"at": event.pop("timestamp"), "level": event.pop("level"), "event": event.pop("event"), **event}
    return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS)


def _console(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    head = f"{event.pop('timestamp')[11:19]} {event.pop('level'):<8}{event.pop('event')}"
    tail = " ".join(
        f"{name}={value if isinstance(value, str) else orjson.dumps(value).decode()}" for name, value in event.items()
    )
    return f"{head}  {tail}".rstrip().encode("utf-8", "replace")
