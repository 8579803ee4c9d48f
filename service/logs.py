"""Structured logs on standard error, with the request's id and without user ids."""

import asyncio
import hashlib
import json
import logging
import secrets
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

# Set by the middleware for the time of one request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

UVICORN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
USER_REF_BYTES = 6


@dataclass(slots=True)
class _UserRefs:
    """How a user is named in the logs; set once by `configure_logs`."""

    key: bytes
    verbatim: bool = False


_user_refs = _UserRefs(key=secrets.token_bytes(16))
ACCESS_LOGGER = "service.access"
# What a pipe takes in one piece: a larger write of one worker may be cut by another's.
PIPE_BYTES = 4_096


@dataclass(slots=True)
class _AccessLines:
    """Where lines about requests go, None for the way of all lines; set by `configure_logs`.

    A line through the whole chain takes a fifth of a request's time, so these are put together by
    hand; those of one turn of the event loop are written at once.
    """

    stream: TextIO | None = None
    waiting: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Write a line at the end of the loop's turn."""
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self.waiting.append(line)

    def flush(self) -> None:
        """Write what waits, in pieces of whole lines that a pipe takes undivided."""
        lines, self.waiting = self.waiting, []
        if self.stream is None:
            return
        piece: list[str] = []
        num_bytes = 0
        for line in lines:
            size = len(line.encode(errors="replace"))
            if piece and num_bytes + size > PIPE_BYTES:
                self._write(piece)
                piece, num_bytes = [], 0
            piece.append(line)
            num_bytes += size
        self._write(piece)

    def _write(self, lines: Sequence[str]) -> None:
        if self.stream is not None and lines:
            self.stream.write("".join(lines))
            self.stream.flush()


_access_lines = _AccessLines()


def log_request(
    method: str, route: str, status: int, elapsed_ms: float, key_id: str | None, *, is_quiet: bool
) -> None:
    """Write the line of one answered request; of a quiet one on the level debug only."""
    level = logging.DEBUG if is_quiet else logging.INFO
    if not logging.getLogger(ACCESS_LOGGER).isEnabledFor(level):
        return
    # Whose key it was: the id is no secret, and says later who asked for what.
    of_key = {} if key_id is None else {"key_id": key_id}
    if _access_lines.stream is None:
        write = get_logger(ACCESS_LOGGER).debug if is_quiet else get_logger(ACCESS_LOGGER).info
        write("request", method=method, route=route, status=status, elapsed_ms=elapsed_ms, **of_key)
        return
    named = "".join(f', "{name}": {_quoted(value)}' for name, value in of_key.items())
    moment = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    _access_lines.add(
        f'{{"method": {_quoted(method)}, "route": {_quoted(route)}, "status": {status}, '
        f'"elapsed_ms": {elapsed_ms}{named}, "event": "request", "logger": "{ACCESS_LOGGER}", '
        f'"level": "{"debug" if is_quiet else "info"}", "timestamp": "{moment}Z", '
        f'"request_id": {json.dumps(request_id.get())}}}\n'
    )


@lru_cache(maxsize=1_024)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the structured logger of a module; keywords of its calls become fields."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def user_ref(user_id: str) -> str:
    """Return what stands for a user in the logs: a keyed hash, 12 hexadecimal characters.

    Equal users have equal hashes under one key, and without the key nobody can try ids. It is the
    id itself if the operator chose so.
    """
    if _user_refs.verbatim:
        return user_id
    digest = hashlib.blake2b(user_id.encode(), key=_user_refs.key, digest_size=USER_REF_BYTES)
    return digest.hexdigest()


def configure_logs(
    *,
    level: str = "info",
    as_json: bool = True,
    user_ids: bool = False,
    user_key: str = "",
    stream: TextIO | None = None,
) -> None:
    """Send every log line, ours and the libraries', to one stream (default: standard error)."""
    _user_refs.verbatim = user_ids
    _user_refs.key = hashlib.blake2b(user_key.encode()).digest() if user_key else _user_refs.key
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    _access_lines.stream = handler.stream if as_json else None
    _adopt_uvicorn()


def _shared_processors() -> list[Processor]:
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
        _hide_user_id,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


def _formatter(*, as_json: bool) -> logging.Formatter:
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_shared_processors()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _adopt_uvicorn() -> None:
    """Let uvicorn's lines pass through our handler, without its access log: we have our own."""
    for name in UVICORN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True


def _add_request_id(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    current = request_id.get()
    if current:
        line.setdefault("request_id", current)
    return line


def _hide_user_id(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace a `user_id` that a caller gave, so that none is logged by forgetting `user_ref`."""
    user_id: Any = line.pop("user_id", None)
    if user_id is not None:
        line["user"] = user_ref(str(user_id))
    return line
