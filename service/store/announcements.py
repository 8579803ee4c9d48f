"""Which model every process shall serve: one small hash that all of them read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from service.metrics import Metrics
from service.store.client import (
    RedisClient,
    Script,
    ScriptCall,
    translate_redis_errors,
)
from service.store.keys import MODEL_KEY

OPERATION = "models"
MAX_CALLS = 4
FIELDS = ("active", "previous", "pointer", "changed_at_ms", "preparing", "preparing_at_ms")
# Who prepares a model and is not heard of again has crashed; the others then let it go.
MAX_PREPARING_MS = 120_000

_Kind: TypeAlias = Literal["ask", "pointer", "first", "prepare", "give-up"]


@dataclass(frozen=True, slots=True)
class Announced:
    """What is announced: versions of bundles, "" for none.

    `pointer` is the version that a file CURRENT named when it was last taken up; `changed_at_ms`
    is when `active` changed, ms since 1970. `preparing` is what somebody is about to announce, and
    `preparing_at_ms` since when.
    """

    active: str
    previous: str
    pointer: str
    changed_at_ms: int
    preparing: str = ""
    preparing_at_ms: int = 0

    def is_preparing(self, now_ms: int) -> bool:
        """Say whether a model is about to be announced, as far as anybody still knows."""
        return self.preparing != "" and now_ms - self.preparing_at_ms < MAX_PREPARING_MS


class ModelAnnouncements:
    """Reads and changes the announcement; every call raises StoreUnavailable."""

    def __init__(self, client: RedisClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._script = Script("announce_model.lua")
        # Callers wait for each other: more than the client's connections would be refused.
        self._calls = asyncio.Semaphore(MAX_CALLS)

    async def read(self) -> Announced | None:
        """Return what is announced, None if nothing ever was."""
        async with self._one_of_few_calls():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.execute_command("HMGET", MODEL_KEY, *FIELDS)
            [found] = await pipeline.execute()
            return _announced(found)

    async def announce(self, version: str, now_ms: int) -> Announced:
        """Announce a version because somebody asked for it; return what is announced then."""
        return await self._change("ask", version, now_ms)

    async def prepare(self, version: str, now_ms: int) -> None:
        """Let all processes load a version that will be announced if it is good."""
        await self._change("prepare", version, now_ms)

    async def give_up(self, version: str) -> None:
        """Take back what was said by `prepare`."""
        await self._change("give-up", version, 0)

    async def announce_pointer(self, version: str, now_ms: int) -> Announced:
        """Announce a version that CURRENT names now, unless that was taken up already."""
        return await self._change("pointer", version, now_ms)

    async def announce_first(self, version: str, pointer: str, now_ms: int) -> Announced:
        """Announce what is served while nothing is announced; return what is announced then."""
        return await self._change("first", version, now_ms, pointer)

    async def _change(self, kind: _Kind, version: str, now_ms: int, pointer: str = "") -> Announced:
        call = ScriptCall([MODEL_KEY], [kind, version, now_ms, pointer])
        async with self._one_of_few_calls():
            [answer] = await self._script.run(self._client, [call])
            if isinstance(answer, Exception):
                raise answer
        found = _announced(answer)
        if found is None:
            raise RuntimeError(f"{MODEL_KEY}: nothing is announced after an announcement")
        return found

    @asynccontextmanager
    async def _one_of_few_calls(self) -> AsyncIterator[None]:
        async with self._calls:
            with translate_redis_errors(self._metrics, OPERATION):
                yield


def _announced(values: Sequence[Any]) -> Announced | None:
    texts = [(value or b"").decode() for value in values]
    active, previous, pointer, changed_at_ms, preparing, preparing_at_ms = texts
    if not active:
        return None
    return Announced(
        active, previous, pointer, int(changed_at_ms), preparing, int(preparing_at_ms or 0)
    )
