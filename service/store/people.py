"""What a person may ask of the store: show what you hold of me, forget me, I am also this user."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from service.batcher import Batcher
from service.config import Settings
from service.contract.events import user_hash
from service.errors import UserChanging
from service.logs import get_logger, user_ref
from service.metrics import Metrics
from service.store import keys
from service.store.calls import ask, run_script
from service.store.client import RedisClient, Script, ScriptCall, prepare_store
from service.store.event_stream import PAGE, EventStream
from service.store.history_codec import unpack_history
from service.store.limits import Argument, erase_limits, merge_limits, oldest_ms
from service.store.outcomes import Erased, Merged
from service.store.people_codec import (
    Held,
    HeldEvent,
    StreamEntry,
    held_events,
    seen_records,
    shown_records,
)

# A history has at most 5,000 events; what one call of the script takes blocks all others.
MERGE_PAGE = 1_000
MAX_MERGE_ATTEMPTS = 5

Result = TypeVar("Result")


class PeopleStore:
    """Exports, erases and merges users, one call at a time for each process.

    They are rare and heavier than anything else that Redis is asked, so they wait for each other
    rather than together for Redis. A call that has begun is finished, even if its caller leaves.
    All raise StoreUnavailable; what they say was done, was.
    """

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        metrics: Metrics,
        now_ms: Callable[[], int],
        stream_page: int = PAGE,
    ) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._now_ms = now_ms
        self._append = Script("append_events.lua")
        self._erase = Script("erase_user.lua")
        self._stream = EventStream(client, metrics, stream_page)
        self._log = get_logger(__name__)
        self._prepared = False
        self._jobs: Batcher[Callable[[], Awaitable[None]], None] = Batcher(
            "redis-people",
            self._run,
            max_batch=1,
            max_pending=settings.max_pending,
            metrics=metrics,
        )

    async def held(self, user_id: str) -> Held:
        """Return everything that is held of a user; empty of a user never heard of."""
        return await self._alone(lambda: self._read_held(user_id))

    async def events(self, user_id: str) -> tuple[HeldEvent, ...]:
        """Return the user's history with all that is stored of each event, oldest first."""
        return await self._alone(lambda: self._read_events(user_id))

    async def erase(self, user_id: str) -> Erased:
        """Forget a user, known or not, and refuse events from before now for tombstone_days."""
        erased = await self._alone(lambda: self._erase_one(user_id))
        self._log.info("user erased", user=user_ref(user_id), num_events=erased.num_events)
        return erased

    async def merge(self, from_user_id: str, into_user_id: str) -> Merged:
        """Give one user's history and seen items to another one, then erase the first.

        The users may be on different servers of a Cluster, so this is no single step: an event is
        given before it is taken, and a call that failed may be repeated. Raises UserChanging if the
        first user got new events each time that it was about to be erased.
        """
        merged = await self._alone(lambda: self._merge(from_user_id, into_user_id))
        self._log.info(
            "user merged",
            user=user_ref(from_user_id),
            into=user_ref(into_user_id),
            num_events=merged.num_events,
        )
        return merged

    async def close(self, grace_s: float = 5.0) -> None:
        """Finish what has begun; the client stays open."""
        await self._jobs.close(grace_s)

    async def _alone(self, job: Callable[[], Awaitable[Result]]) -> Result:
        results: list[Result] = []

        async def keep_result() -> None:
            results.append(await job())

        await self._jobs.submit(keep_result)
        return results[0]

    async def _run(self, jobs: list[Callable[[], Awaitable[None]]]) -> list[None]:
        if not self._prepared:
            await prepare_store(self._client, self._settings, self._metrics)
            self._prepared = True
        for job in jobs:
            await job()
        return [None] * len(jobs)

    async def _read_held(self, user_id: str) -> Held:
        partition, since_ms = self._partition(user_id), self._oldest_ms()
        history = keys.history_key(partition, user_id)
        (packed, seen), ttl_ms, erased, shown = await self._ask(
            "export",
            ("MGET", history, keys.seen_key(partition, user_id)),
            ("PTTL", history),
            ("GET", keys.tombstone_key(partition, user_id)),
            ("GET", keys.shown_key(partition, user_id)),
        )
        return Held(
            events=held_events(packed, since_ms),
            seen=seen_records(seen),
            stream=await self._stream.entries_of(user_id, partition, since_ms),
            shown=shown_records(shown),
            expires_in_ms=ttl_ms if ttl_ms > 0 else None,
            erased_ms=None if erased is None else int(erased),
        )

    async def _read_events(self, user_id: str) -> tuple[HeldEvent, ...]:
        history = keys.history_key(self._partition(user_id), user_id)
        [packed] = await self._ask("export", ("GET", history))
        return held_events(packed, self._oldest_ms())

    async def _erase_one(self, user_id: str) -> Erased:
        entries = await self._stream.look(user_id, self._partition(user_id))
        _, *numbers, asks = await self._call_erase(user_id, entries, None)
        await self._stream.rewrite(self._partition(user_id), asks.decode())
        return Erased(*numbers)

    async def _call_erase(
        self,
        user_id: str,
        looked: tuple[Sequence[StreamEntry], str],
        holding: tuple[bytes, bytes] | None,
    ) -> list[Any]:
        """Erase a user; with `holding`, history and seen items, only who holds exactly these.

        `looked` are the stream's entries of the user, and the last entry that was looked at.
        """
        partition = self._partition(user_id)
        names = [
            keys.history_key(partition, user_id),
            keys.seen_key(partition, user_id),
            keys.stream_key(partition),
            keys.tombstone_key(partition, user_id),
            keys.rewrite_key(partition),
            keys.shown_key(partition, user_id),
        ]
        entries, looked_until = looked
        args: list[Argument] = [
            user_id,
            user_hash(user_id),
            *erase_limits(self._settings, self._now_ms()),
            0 if holding is None else 1,
            *(holding or (b"", b"")),
            looked_until,
            *dict.fromkeys(entry.entry_id for entry in entries),
        ]
        return await self._run_script("erase", self._erase, names, args)

    async def _merge(self, from_user_id: str, into_user_id: str) -> Merged:
        partition = self._partition(from_user_id)
        names = [
            keys.history_key(partition, from_user_id),
            keys.seen_key(partition, from_user_id),
        ]
        given = _Given()
        for _ in range(MAX_MERGE_ATTEMPTS):
            looked = await self._stream.look(from_user_id, partition)
            [stored] = await self._ask("merge", ("MGET", *names))
            packed, seen = (value or b"" for value in stored)
            await self._give(packed, seen, into_user_id, given)
            is_erased, *rest = await self._call_erase(from_user_id, looked, (packed, seen))
            if is_erased:
                await self._stream.rewrite(partition, rest.pop().decode())
                return given.merged(Erased(*rest))
        raise UserChanging(
            f"from_user_id got new events in each of {MAX_MERGE_ATTEMPTS} attempts to merge it; "
            f"nothing is lost, send the same call again"
        )

    async def _give(self, packed: bytes, seen: bytes, into_user_id: str, given: "_Given") -> None:
        """Append raw events and seen records to a user; those that are there are left alone."""
        partition = self._partition(into_user_id)
        names = [
            keys.stream_key(partition),
            keys.history_key(partition, into_user_id),
            keys.seen_key(partition, into_user_id),
            keys.tombstone_key(partition, into_user_id),
        ]
        given.begin()
        stored = unpack_history(packed)
        for start in range(0, max(len(stored.item_ids), 1), MERGE_PAGE):
            args = merge_limits(self._settings, self._now_ms(), b"" if start else seen)
            # Neither counters nor stream: the events were counted once.
            args += (stored.part(start, start + MERGE_PAGE).pack(), b"")
            num_seen, *results = await self._run_script("merge", self._append, names, args)
            given.add(num_seen, results)

    async def _ask(self, operation: str, *commands: Sequence[str | int]) -> list[Any]:
        return await ask(self._client, self._metrics, operation, *commands)

    async def _run_script(
        self, operation: str, script: Script, names: list[str], args: list[Argument]
    ) -> list[Any]:
        call = ScriptCall(names, args)
        return await run_script(self._client, self._metrics, operation, script, call)

    def _oldest_ms(self) -> int:
        return oldest_ms(self._now_ms(), self._settings)

    def _partition(self, user_id: str) -> int:
        return keys.partition_of(user_id, self._settings.num_partitions)


class _Given:
    """Counts what a merge gave, over attempts: what an earlier one gave is no duplicate."""

    def __init__(self) -> None:
        self._num_events = 0
        self._num_seen = 0
        self.begin()

    def begin(self) -> None:
        """Start an attempt."""
        self._num_before = self._num_events
        self._num_duplicates = 0
        self._num_left_out = 0

    def add(self, num_seen: int, results: list[int]) -> None:
        """Add what the script says."""
        self._num_seen += num_seen
        self._num_events += results.count(1)
        self._num_duplicates += results.count(0)
        self._num_left_out += sum(result < 0 for result in results)

    def merged(self, erased: Erased) -> Merged:
        """Return the sums."""
        return Merged(
            num_events=self._num_events,
            num_duplicates=max(0, self._num_duplicates - self._num_before),
            num_left_out=self._num_left_out,
            num_seen=self._num_seen,
            erased=erased,
        )
