"""Logs are events: one JSON object a line on standard output, a readable form on a terminal.

`get(**facts)` gives a logger with those facts bound. Event names are past-tense snake case; their catalogue is in
`daemon/README.md`, and a test holds it to the code. Values of the type `Secret` redact themselves.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import orjson
import structlog


def get(**facts: object) -> structlog.typing.FilteringBoundLogger:
    """Gives a logger with `facts` bound."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(**facts))


def configure(level: str = "info", *, terminal: bool | None = None) -> None:
    """Sets the process's logging up; `terminal` None asks standard output."""
    readable = sys.stdout.isatty() if terminal is None else terminal
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    if readable:
        # Plain: the pretty one shows local variables, and with them whatever secret stands in one.
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
        factory: Any = structlog.PrintLoggerFactory(sys.stdout)
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
        factory = structlog.BytesLoggerFactory(sys.stdout.buffer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library; what they warn of becomes an event of ours.
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


class _FromLibraries(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger = get(source=record.name, message=record.getMessage())
        if record.levelno >= logging.ERROR:
            logger.error("library_warned", exc_info=record.exc_info or None)
        else:
            logger.warning("library_warned", exc_info=record.exc_info or None)


def _dumps(value: object, **_: object) -> bytes:
    return orjson.dumps(value, default=str)
