"""A small HTTP client on asyncio that can go away in the middle of a request.

Clients for programs do not let go of a request half way, and they cost more than the service that
they are to load.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

HEADER_END = b"\r\n\r\n"
ANSWER_WITHIN_S = 30.0
OK = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its status, its headers by lower-case name, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


class Connection:
    """One connection that is kept, and opened anew where it broke.

    Whatever breaks, or takes longer than half a minute, is an OSError or an asyncio error of
    reading, and closes the connection.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and return its answer."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._send(method, path, body, headers)
                return await self._read()
        except BaseException:
            self.abort()
            raise

    async def _send(
        self, method: str, path: str, body: object, headers: Mapping[str, str] | None
    ) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: proof\r\nContent-Length: {len(data)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head += "Content-Type: application/json\r\n" if data else ""
        self._writer.write(head.encode() + b"\r\n" + data)
        await self._writer.drain()

    def abort(self) -> None:
        """Break the connection off, without a word to the other side."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _read(self) -> Answer:
        if self._reader is None:
            raise ConnectionError("nothing was sent")
        head = (await self._reader.readuntil(HEADER_END)).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.abort()
        return Answer(int(first.split()[1]), headers, body)


# What a request over a connection that breaks may raise.
BROKEN = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError)


async def ask_once(port: int, method: str, path: str, body: object = None) -> Any:
    """Return the decoded answer of one request; raises OSError unless it is a success."""
    async with Connection(port) as connection:
        answer = await connection.ask(method, path, body)
    if answer.status // 100 != OK // 100:
        raise OSError(f"{method} {path}: {answer.status}: {answer.body.decode()[:500]}")
    return json.loads(answer.body) if answer.body else None
