"""A proxy in front of Redis that lets its answers wait."""

import asyncio
from types import TracebackType

CHUNK = 65_536


class SlowProxy:
    """Passes bytes on between a port of its own and another one, answers after `delay_s`.

    A connection's answers stay in order. What broke on one side is closed on the other.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.delay_s = 0.0
        self._port = port
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "SlowProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in [*self._open]:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, forth}
        self._open |= pair
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, forth, is_answer=False))
                both.create_task(self._pass(back, writer, is_answer=True))
        except* OSError:
            pass
        finally:
            for one in pair:
                one.transport.abort()
            self._open -= pair

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while data := await reader.read(CHUNK):
            if is_answer and self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()
        raise ConnectionError("the other side is gone")
