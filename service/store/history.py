"""Users' histories in Redis: append events, read what a user did."""

import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, cycle, pairwise
from typing import TypeVar, cast

from redis.exceptions import ResponseError

from service.batcher import Batcher
from service.config import Settings
from service.contract.events import Event
from service.deadline import Deadline
from service.errors import ServiceError, StoreUnavailable
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
from service.store.history_codec import EventColumns, History, PackedHistory
from service.store.limits import append_limits, oldest_ms
from service.store.outcomes import ACCEPTED, ACCEPTED_NUMBER, DUPLICATE, Appended
from service.store.people import PeopleStore

# More events than this are sent in several round trips, so that reads get their turn between.
MAX_EVENTS_PER_TRIP = 1_000
# Callers that share a round trip; a read of as many full histories is about 2 MB.
MAX_BATCH = 256
# One is made ready while Redis is busy with the other.
APPENDS_AT_ONCE = 2

Item = TypeVar("Item")
Result = TypeVar("Result")

__all__ = ["History", "HistoryStore", "PackedHistory"]


def system_now_ms() -> int:
    """Return the time, ms since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class _Append:
    """Events of the users of one partition: the script's call.

    `places` are, user by user, where their events are among those of the round trip, in order of
    time.
    """

    places: Sequence[Sequence[int]]
    call: ScriptCall


class HistoryStore:
    """Appends to and reads histories; concurrent callers share round trips, and calls of appends.

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
        self._appends = [
            self._batcher("redis-append", self._append_many, APPENDS_AT_ONCE)
            for _ in range(APPENDS_AT_ONCE)
        ]
        self._next_append = cycle(self._appends)
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
        result = await next(self._next_append).submit(tuple(events), deadline.ends_s)
        if isinstance(result, StoreUnavailable):
            raise result
        return result

    async def read(self, user_id: str) -> History:
        """Return a user's history, empty if there is none; one round trip."""
        return (await self.read_packed(user_id)).decode()

    async def read_packed(self, user_id: str) -> PackedHistory:
        """Return a user's history as it is stored; one round trip."""
        result = await self._reads.submit(user_id)
        if isinstance(result, ServiceError):
            raise result
        return result

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers, StoreMismatch unless its data is ours."""
        await self._pings.submit(None)

    async def close(self, grace_s: float = 5.0) -> None:
        """Finish what has begun; the client stays open, it belongs to whoever made it."""
        for append in self._appends:
            await append.close(grace_s)
        for batcher in (self._reads, self._pings):
            await batcher.close(grace_s)
        await self.people.close(grace_s)

    def _batcher(
        self,
        name: str,
        compute: Callable[[list[Item]], Awaitable[list[Result]]],
        num_queues: int = 1,
    ) -> Batcher[Item, Result]:
        """Return one of so many queues, which together hold `max_pending` callers."""
        return Batcher(
            name,
            compute,
            max_batch=MAX_BATCH,
            max_pending=math.ceil(self._settings.max_pending / num_queues),
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

    async def _read_many(self, user_ids: list[str]) -> list[PackedHistory | ServiceError]:
        await self._prepare()
        groups = []
        for user_id in user_ids:
            partition = self._partition(user_id)
            groups.append((keys.history_key(partition, user_id), keys.seen_key(partition, user_id)))
        with translate_redis_errors(self._metrics, "read"):
            answers = await self._client.get_groups(groups)
        since_ms = oldest_ms(self._now_ms(), self._settings)
        return [self._packed(answer, since_ms) for answer in answers]

    def _packed(
        self, answer: list[bytes | None] | Exception, since_ms: int
    ) -> PackedHistory | ServiceError:
        """Return one user's history, or the error that only this user's callers should meet."""
        if isinstance(answer, Exception):
            return unavailable(self._metrics, "read", answer)
        packed, seen = answer
        return PackedHistory(packed, seen, since_ms)

    async def _append_many(
        self, posts: list[tuple[Event, ...]]
    ) -> list[list[Appended] | StoreUnavailable]:
        await self._prepare()
        now_ms = self._now_ms()
        results: list[list[Appended] | StoreUnavailable] = []
        for trip in _round_trips(posts):
            results += await self._append_trip(trip, now_ms)
        return results

    async def _append_trip(
        self, posts: Sequence[Sequence[Event]], now_ms: int
    ) -> list[list[Appended] | StoreUnavailable]:
        """Store the events of posts, those of a partition in one call whoever sent them.

        What the server refuses was not stored. It is sent again, each post's by itself, so that
        nobody meets the error of another one's user.
        """
        events = [event for post in posts for event in post]
        results: list[Appended | Exception] = [DUPLICATE] * len(events)
        spans = _spans(posts)
        if await self._send(events, [range(len(events))], now_ms, results):
            # As nearly always: nobody's results hold an error.
            return [cast(list[Appended], results[span.start : span.stop]) for span in spans]
        refused = [
            [place for place in span if isinstance(results[place], ResponseError)]
            for span in (spans if len(posts) > 1 else ())
        ]
        if any(refused):
            await self._send(events, refused, now_ms, results)
        return [self._outcome(results[span.start : span.stop]) for span in spans]

    async def _send(
        self,
        events: Sequence[Event],
        groups: Sequence[Sequence[int]],
        now_ms: int,
        results: list[Appended | Exception],
    ) -> bool:
        """Store the events at these places in one round trip; groups of them share no call.

        Returns whether every call was done; of one that was not, the error is in `results`.
        """
        appends = [one for places in groups for one in self._appends_of(events, places, now_ms)]
        since_ms = oldest_ms(now_ms, self._settings)
        with translate_redis_errors(self._metrics, "append"):
            answers = await self._script.run(self._client, [one.call for one in appends])
        all_done = True
        for one, answer in zip(appends, answers, strict=True):
            if isinstance(answer, Exception):
                all_done = False
                for place in chain.from_iterable(one.places):
                    results[place] = answer
                continue
            at = 0
            for places in one.places:
                # Before each user's there is the number of seen records, which only a merge gives.
                numbers = answer[at + 1 : at + 1 + len(places)]
                at += 1 + len(places)
                for place, number in zip(places, numbers, strict=True):
                    is_accepted = number == ACCEPTED_NUMBER
                    results[place] = ACCEPTED if is_accepted else Appended.of(number, since_ms)
        return all_done

    def _outcome(
        self, results: Sequence[Appended | Exception]
    ) -> list[Appended] | StoreUnavailable:
        """Return what became of a post's events; an error of one is all the caller's."""
        kept = []
        for result in results:
            if isinstance(result, Exception):
                return unavailable(self._metrics, "append", result)
            kept.append(result)
        return kept

    def _appends_of(
        self, events: Sequence[Event], places: Sequence[int], now_ms: int
    ) -> list[_Append]:
        users_of = self._by_partition(events, places)
        in_order = [at for users in users_of.values() for user in users for at in user]
        columns = EventColumns([events[at] for at in in_order])
        appends, start = [], 0
        for partition, users in users_of.items():
            bounds = [*accumulate(map(len, users), initial=start)]
            user_ids = [events[user[0]].user_id for user in users]
            call = self._call(partition, user_ids, columns, bounds, now_ms)
            appends.append(_Append(users, call))
            start = bounds[-1]
        return appends

    def _by_partition(
        self, events: Sequence[Event], places: Sequence[int]
    ) -> dict[int, list[list[int]]]:
        """Return by partition, user by user, the places of the events in order of time."""
        places_of: defaultdict[str, list[int]] = defaultdict(list)
        for place in places:
            places_of[events[place].user_id].append(place)
        times = [event.timestamp_ms for event in events]
        users_of: defaultdict[int, list[list[int]]] = defaultdict(list)
        for user_id, own in places_of.items():
            # Stable: events of one time stay in the order in which they were sent.
            own.sort(key=times.__getitem__)
            users_of[self._partition(user_id)].append(own)
        return users_of

    def _call(
        self,
        partition: int,
        user_ids: Sequence[str],
        columns: EventColumns,
        bounds: Sequence[int],
        now_ms: int,
    ) -> ScriptCall:
        """Return the call that appends the events of users; a user's are between two bounds."""
        first_day = now_ms // keys.MS_PER_DAY - keys.COUNTER_DAYS + 1
        times = columns.timestamps_ms[bounds[0] : bounds[-1]]
        # Older days are no longer popular, and their counters have gone.
        days = sorted({day for ms in times if (day := ms // keys.MS_PER_DAY) >= first_day})
        call_keys = [keys.stream_key(partition)]
        args = append_limits(self._settings, now_ms, len(user_ids), days)
        for user_id, (start, stop) in zip(user_ids, pairwise(bounds), strict=True):
            call_keys += (
                keys.history_key(partition, user_id),
                keys.seen_key(partition, user_id),
                keys.tombstone_key(partition, user_id),
            )
            args += (columns.history(start, stop), columns.payloads(start, stop))
        call_keys += [keys.counter_key(partition, day) for day in days]
        return ScriptCall(call_keys, args)

    def _partition(self, user_id: str) -> int:
        return keys.partition_of(user_id, self._settings.num_partitions)


def _round_trips(posts: Sequence[Sequence[Event]]) -> list[list[Sequence[Event]]]:
    """Part the posts, in order, so that each trip but that of a single post has few events."""
    trips: list[list[Sequence[Event]]] = []
    size = MAX_EVENTS_PER_TRIP
    for post in posts:
        if size + len(post) > MAX_EVENTS_PER_TRIP:
            trips.append([])
            size = 0
        trips[-1].append(post)
        size += len(post)
    return trips


def _spans(posts: Sequence[Sequence[Event]]) -> list[range]:
    """Return where the events of each post are when they are put one after the other."""
    ends = list(accumulate(map(len, posts)))
    return [range(end - len(post), end) for post, end in zip(posts, ends, strict=True)]
