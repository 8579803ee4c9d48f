"""A TCP proxy that a test makes slow, deaf or absent, in a thread and loop of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

HOST = "127.0.0.1"
CHUNK = 65_536
TIMEOUT_S = 30.0


class Proxy:
    """Passes bytes between clients and a server at another port of this machine.

    `delay_s` holds up whatever the server says; a deaf one takes what clients say and passes
    nothing on. `num_said` counts what clients sent, in pieces as they came. Of answers the next
    `num_to_drop` are lost with their connections, when the server has given them.
    """

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.is_deaf = False
        self.num_said = 0
        self.num_to_drop = 0
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Proxy":
        """Begin to listen."""
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop listening, and end the thread."""
        if self._server is not None:
            self.go_away()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def go_away(self) -> None:
        """Close all connections and refuse new ones, as a server that was killed."""
        self._do(self._stop)

    def come_back(self) -> None:
        """Listen, at the port of the last time, and pass everything on at once."""
        self.delay_s, self.is_deaf = 0.0, False
        if self._server is None:
            self._do(self._listen)

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(TIMEOUT_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(
        self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            reader, server = await asyncio.open_connection(HOST, self._upstream_port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._hear(client_reader, server))
                    group.create_task(self._answer(reader, client))
            finally:
                server.transport.abort()
        except* (OSError, asyncio.CancelledError):
            # A side that has gone ends the connection, as does the proxy's own going.
            pass
        finally:
            client.transport.abort()
            self._connections.discard(task)

    async def _hear(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await client.read(CHUNK):
            self.num_said += 1
            if not self.is_deaf:
                server.write(data)
        raise ConnectionResetError

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(CHUNK):
            if self.num_to_drop > 0:
                self.num_to_drop -= 1
                raise ConnectionResetError
            await asyncio.sleep(self.delay_s)
            client.write(data)
        raise ConnectionResetError


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Run a proxy to a server; connections that are still open end with it."""
    with Proxy(port) as proxy:
        yield proxy
