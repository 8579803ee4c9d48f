"""Users' histories in Redis: append events, read what a user did."""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from service.batcher import Batcher
from service.config import Settings
from service.contract.events import Event
from service.deadline import Deadline
from service.errors import ServiceError, StoreMismatch, StoreUnavailable
from service.metrics import Metrics
from service.store import keys
from service.store.client import (
    RedisClient,
    Script,
    ScriptCall,
    prepare_store,
    translate_redis_errors,
    unavailable,
)
from service.store.history_codec import History, decode_history, encode_events, encode_payload
from service.store.limits import append_limits, oldest_ms
from service.store.outcomes import DUPLICATE, Appended
from service.store.people import PeopleStore

# More events than this are sent in several round trips, so that reads get their turn between.
MAX_EVENTS_PER_TRIP = 1_000
# Callers that share a round trip; a read of as many full histories is about 2 MB.
MAX_BATCH = 256

Item = TypeVar("Item")
Result = TypeVar("Result")

__all__ = ["History", "HistoryStore"]


def system_now_ms() -> int:
    """Return the time, ms since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class _Append:
    """One post's events of the users of one partition: the script's call.

    `places` are, user by user, where their events were in the post, in order of time.
    """

    post: int
    places: Sequence[Sequence[int]]
    call: ScriptCall

    @property
    def num_events(self) -> int:
        return sum(map(len, self.places))


class HistoryStore:
    """Appends to and reads histories; concurrent callers share round trips.

    An event is a duplicate if an event with its id is in the user's history (the newest
    `max_events`) or among the last `max_seen` that left it; what is older than that is forgotten.
    """

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        metrics: Metrics,
        now_ms: Callable[[], int] = system_now_ms,
    ) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._now_ms = now_ms
        self._script = Script("append_events.lua")
        self._prepared = False
        self.people = PeopleStore(client, settings, metrics, now_ms)
        self._reads = self._batcher("redis-read", self._read_many)
        self._appends = self._batcher("redis-append", self._append_many)
        self._pings = self._batcher("redis-ping", self._ping_many)

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Store events; return for each, in the order given, what became of it.

        When this returns, a read sees them. Raises StoreUnavailable if any could not be stored;
        others of the same call may have been, so the caller sends all of them again. Raises
        Overloaded if the request's deadline passed before the call was begun.
        """
        if not events:
            return []
        # Begun too late it would be done for a caller who has left and sends it again.
        deadline = Deadline.of_request(self._settings.request_deadline_ms / 1000)
        result = await self._appends.submit(tuple(events), deadline.ends_s)
        if isinstance(result, StoreUnavailable):
            raise result
        return result

    async def read(self, user_id: str) -> History:
        """Return a user's history, empty if there is none; one round trip."""
        result = await self._reads.submit(user_id)
        if isinstance(result, ServiceError):
            raise result
        return result

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers, StoreMismatch unless its data is ours."""
        await self._pings.submit(None)

    async def close(self, grace_s: float = 5.0) -> None:
        """Finish what has begun; the client stays open, it belongs to whoever made it."""
        for batcher in (self._appends, self._reads, self._pings):
            await batcher.close(grace_s)
        await self.people.close(grace_s)

    def _batcher(
        self, name: str, compute: Callable[[list[Item]], Awaitable[list[Result]]]
    ) -> Batcher[Item, Result]:
        return Batcher(
            name,
            compute,
            max_batch=MAX_BATCH,
            max_pending=self._settings.max_pending,
            metrics=self._metrics,
        )

    async def _prepare(self) -> None:
        """Before the first call that reaches Redis, so that a wrong layout is never written."""
        if not self._prepared:
            await prepare_store(self._client, self._settings, self._metrics)
            self._prepared = True

    async def _ping_many(self, probes: list[None]) -> list[None]:
        await self._prepare()
        with translate_redis_errors(self._metrics, "ping"):
            await self._client.check()
        return probes

    async def _read_many(self, user_ids: list[str]) -> list[History | ServiceError]:
        await self._prepare()
        groups = []
        for user_id in user_ids:
            partition = self._partition(user_id)
            groups.append((keys.history_key(partition, user_id), keys.seen_key(partition, user_id)))
        with translate_redis_errors(self._metrics, "read"):
            answers = await self._client.get_groups(groups)
        since_ms = oldest_ms(self._now_ms(), self._settings)
        return [self._decoded(answer, since_ms) for answer in answers]

    def _decoded(
        self, answer: list[bytes | None] | Exception, since_ms: int
    ) -> History | ServiceError:
        """Return one user's history, or the error that only this user's callers should meet."""
        if isinstance(answer, Exception):
            return unavailable(self._metrics, "read", answer)
        try:
            packed, seen = answer
            return decode_history(packed, seen, since_ms)
        except StoreMismatch as exc:
            return exc

    async def _append_many(
        self, posts: list[tuple[Event, ...]]
    ) -> list[list[Appended] | StoreUnavailable]:
        await self._prepare()
        results: list[list[Appended] | StoreUnavailable] = [
            [DUPLICATE] * len(post) for post in posts
        ]
        now_ms = self._now_ms()
        since_ms = oldest_ms(now_ms, self._settings)
        for trip in _round_trips(self._appends_of(posts, now_ms)):
            with translate_redis_errors(self._metrics, "append"):
                answers = await self._script.run(self._client, [one.call for one in trip])
            for one, answer in zip(trip, answers, strict=True):
                self._note(results, one, answer, since_ms)
        return results

    def _note(
        self,
        results: list[list[Appended] | StoreUnavailable],
        one: _Append,
        answer: list[int] | Exception,
        since_ms: int,
    ) -> None:
        """Put a call's answer where the caller's events were; an error is all the caller's."""
        result = results[one.post]
        if isinstance(answer, Exception):
            results[one.post] = unavailable(self._metrics, "append", answer)
        elif isinstance(result, list):
            numbers = iter(answer)
            for places in one.places:
                next(numbers)  # of seen records, which only a merge gives
                for place in places:
                    result[place] = Appended.of(next(numbers), since_ms)

    def _appends_of(self, posts: Sequence[Sequence[Event]], now_ms: int) -> list[_Append]:
        appends = []
        for post, events in enumerate(posts):
            for partition, places in self._by_partition(events).items():
                call = self._call(
                    partition, [[events[place] for place in user] for user in places], now_ms
                )
                appends.append(_Append(post, places, call))
        return appends

    def _by_partition(self, events: Sequence[Event]) -> dict[int, list[list[int]]]:
        """Return by partition, user by user, the places of the events in order of time."""
        places_of: defaultdict[str, list[int]] = defaultdict(list)
        for place, event in enumerate(events):
            places_of[event.user_id].append(place)
        users_of: defaultdict[int, list[list[int]]] = defaultdict(list)
        for user_id, places in places_of.items():
            # Stable: events of one time stay in the order in which they were sent.
            places.sort(key=lambda place: events[place].timestamp_ms)
            users_of[self._partition(user_id)].append(places)
        return users_of

    def _call(self, partition: int, users: Sequence[Sequence[Event]], now_ms: int) -> ScriptCall:
        """Return the call that appends the events of users, each user's in order of time."""
        first_day = now_ms // keys.MS_PER_DAY - keys.COUNTER_DAYS + 1
        all_days = {event.timestamp_ms // keys.MS_PER_DAY for events in users for event in events}
        # Older days are no longer popular, and their counters have gone.
        days = sorted(day for day in all_days if day >= first_day)
        call_keys = [keys.stream_key(partition)]
        args = append_limits(self._settings, now_ms, len(users), days)
        for events in users:
            user_id = events[0].user_id
            call_keys += (
                keys.history_key(partition, user_id),
                keys.seen_key(partition, user_id),
                keys.tombstone_key(partition, user_id),
            )
            args += (encode_events(events), b"\0".join(map(encode_payload, events)))
        call_keys += [keys.counter_key(partition, day) for day in days]
        return ScriptCall(call_keys, args)

    def _partition(self, user_id: str) -> int:
        return keys.partition_of(user_id, self._settings.num_partitions)


def _round_trips(appends: Sequence[_Append]) -> list[list[_Append]]:
    """Part the calls, in order, so that each trip but a single call has few events."""
    trips: list[list[_Append]] = []
    size = MAX_EVENTS_PER_TRIP
    for one in appends:
        if size + one.num_events > MAX_EVENTS_PER_TRIP:
            trips.append([])
            size = 0
        trips[-1].append(one)
        size += one.num_events
    return trips
