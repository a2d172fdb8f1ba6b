"""Logging: one event, one line. An event in plain words, then ids; never a body or a secret."""

import atexit
import logging
import os
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger, Processor

MAX_IDS = 50  # in one line
_QUIET = ("httpx", "httpcore", "alembic", "uvicorn.access")
_FIRST = ("timestamp", "level", "event")


def configure(level: str, log_format: str) -> None:
    """Send every log line, ours and the libraries', to stderr as `json` or `console`."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        return [
            structlog.processors.format_exc_info,
            _put_common_fields_first,
            structlog.processors.JSONRenderer(),
        ]
    # structlog's default prints local variables with a traceback: keys, bodies
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _put_common_fields_first(
    _logger: Any, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {name: line[name] for name in _FIRST if name in line} | dict(line)


@atexit.register
def _drop_unwritten() -> None:
    """Drop lines that stderr cannot take, such as those for a file on a full disk.

    Python would try to write them when it ends, and make the exit code 120.
    """
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def bound(**ids: str | None) -> AbstractContextManager[None]:
    """Add these ids, as far as they are known, to every log line of the block.

    They are also what `bound_id` returns, so that jobs and messages carry on what caused them.
    """
    known = {name: value for name, value in ids.items() if value}
    return structlog.contextvars.bound_contextvars(**known)


def bound_id(name: str) -> str | None:
    """The id that is bound to the log lines of this thread or task under a name."""
    value: str | None = structlog.contextvars.get_contextvars().get(name)
    return value


def listed(**ids: Sequence[str]) -> dict[str, object]:
    """Ids as fields: `message_id` where there is one, `message_ids` where there are more."""
    fields: dict[str, object] = {}
    for name, values in ids.items():
        if len(values) == 1:
            fields[name] = values[0]
        elif values:
            fields[f"{name}s"] = values
    return fields


def get(name: str) -> FilteringBoundLogger:
    """Return the logger of a module."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger
