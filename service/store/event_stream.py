"""The event streams of the partitions: find one user's entries, and remove what erasures left."""

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

from service.errors import UserChanging
from service.metrics import Metrics
from service.store import keys
from service.store.calls import ask, run_script
from service.store.client import RedisClient, Script, ScriptCall
from service.store.people_codec import StreamEntry, entries_of_user

# Entries that one call reads or copies: some milliseconds, in which the server does nothing else.
PAGE = 250
FIRST_ID = "0-0"
# A copy whose writer has died goes by itself.
COPY_TTL_S = 60
MAX_REWRITES = 5

RawEntry: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]


class EventStream:
    """Reads and rewrites streams in pages, so that other calls get their turn between."""

    def __init__(self, client: RedisClient, metrics: Metrics, page: int = PAGE) -> None:
        self._client = client
        self._page = page
        self._metrics = metrics
        self._rewrite = Script("rewrite_stream.lua")

    async def entries_of(
        self, user_id: str, partition: int, since_ms: int = 0
    ) -> tuple[StreamEntry, ...]:
        """Return the user's entries that arrived since a time, ms, oldest first."""
        entries, _ = await self.look(user_id, partition, since_ms)
        return entries

    async def look(
        self, user_id: str, partition: int, since_ms: int = 0
    ) -> tuple[tuple[StreamEntry, ...], str]:
        """Return the user's entries, and the id of the last entry that was looked at."""
        found: list[StreamEntry] = []
        last_id = FIRST_ID
        async for entry_id, fields in self._entries(partition, since_ms):
            found += entries_of_user(entry_id, fields, user_id)
            last_id = entry_id.decode()
        return tuple(found), last_id

    async def rewrite(self, partition: int, asks: str) -> None:
        """Write a stream anew without the bytes of erased entries, if `asks` says so.

        Raises UserChanging if erasures by other processes made it begin again too often.
        """
        for _ in range(MAX_REWRITES):
            if not asks:
                return
            asks = await self._copy(partition, asks)
        if asks:
            raise UserChanging(
                f"the user's events are no longer there, but {MAX_REWRITES} attempts to remove "
                f"their bytes met other erasures; send the same call again"
            )

    async def _copy(self, partition: int, asks: str) -> str:
        """Copy to the end, or until another erasure; return what asks for a rewrite then."""
        names = [
            keys.stream_key(partition),
            # Two processes may copy one stream at a time.
            keys.stream_copy_key(partition, uuid.uuid4().hex),
            keys.rewrite_key(partition),
        ]
        state, last_id = b"more", FIRST_ID
        while state == b"more":
            call = ScriptCall(names, (asks, last_id, self._page, COPY_TTL_S))
            state, answer = await run_script(
                self._client, self._metrics, "rewrite", self._rewrite, call
            )
            last_id = answer.decode()
        return last_id

    async def _entries(self, partition: int, since_ms: int) -> AsyncIterator[RawEntry]:
        stream, start = keys.stream_key(partition), str(since_ms)
        is_last = False
        while not is_last:
            command = ("XRANGE", stream, start, "+", "COUNT", self._page)
            [page] = await ask(self._client, self._metrics, "stream", command)
            for entry in page:
                yield entry
            is_last = len(page) < self._page
            start = "" if is_last else f"({page[-1][0].decode()}"
