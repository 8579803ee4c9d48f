"""Small working stand-ins for what is slow or outside: the clock and the store."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.contract.events import EVENT_TYPE_CODES, Event, UserId
from service.contract.vocabulary import item_hash
from service.errors import StoreUnavailable
from service.store.announcements import Announced
from service.store.history_codec import (
    History,
    PackedHistory,
    encode_events,
    encode_payload,
    event_hash,
)
from service.store.outcomes import ACCEPTED, DUPLICATE, Appended, Erased, Merged
from service.store.people_codec import Held, HeldEvent, SeenRecord, StreamEntry
from service.store.serving_reports import ServingReport

# Wednesday, 2026-01-14 12:00 UTC.
NOON_MS = 1_768_392_000_000
DAY_MS = 86_400_000


class FakeClock:
    """A clock that stands until it is told to go on."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """Return the time, ms since the epoch."""
        return self.now_ms

    def advance(self, by_ms: int) -> None:
        """Let the time go by."""
        self.now_ms += by_ms


class FakeHistory:
    """A HistoryStore in memory; `down` makes every call raise StoreUnavailable.

    It passes the store suite of `tests/integration/store`, as the real one does.
    """

    def __init__(
        self,
        max_events: int = 200,
        max_seen: int = 1_000,
        retention_days: int = 36_500,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.down = False
        self.num_reads = 0
        self._max_events = max_events
        self._max_seen = max_seen
        self._retention_ms = retention_days * DAY_MS
        self._now_ms = clock or FakeClock()
        self._kept: defaultdict[str, list[Event]] = defaultdict(list)
        self._left: defaultdict[str, list[Event]] = defaultdict(list)
        self._stream: list[Event] = []
        self._erased_ms: dict[str, int] = {}

    @property
    def people(self) -> "FakeHistory":
        """Return what shows, erases and merges users: this store."""
        return self

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Store events; say of each what became of it."""
        self._check()
        results = [DUPLICATE] * len(events)
        for position in sorted(range(len(events)), key=lambda at: events[at].timestamp_ms):
            results[position] = self._append_one(events[position])
        self._stream += [e for e, result in zip(events, results, strict=True) if result == ACCEPTED]
        for user_id in {event.user_id for event in events}:
            self._trim(user_id)
        return results

    async def read(self, user_id: str) -> History:
        """Return a user's history."""
        self._check()
        self.num_reads += 1
        return history_of(self._current(user_id), self._left.get(user_id, ()))

    async def read_packed(self, user_id: str) -> PackedHistory:
        """Return a user's history as Redis would have it."""
        self._check()
        self.num_reads += 1
        seen = b"".join(map(_packed_seen, self._left.get(user_id, ())))
        return PackedHistory(encode_events(self._current(user_id)), seen)

    async def held(self, user_id: str) -> Held:
        """Return all that is held of a user."""
        self._check()
        events = self._current(user_id)
        return Held(
            events=tuple(held_event(event) for event in events),
            seen=tuple(seen_record(event) for event in self._left.get(user_id, ())),
            stream=tuple(
                StreamEntry(f"{place}-0", "event", json.loads(encode_payload(event)))
                for place, event in enumerate(self._stream, start=1)
                if event.user_id == user_id
            ),
            expires_in_ms=365 * DAY_MS if events else None,
            erased_ms=self._erased_ms.get(user_id),
        )

    async def events(self, user_id: str) -> tuple[HeldEvent, ...]:
        """Return a user's history."""
        return (await self.held(user_id)).events

    async def erase(self, user_id: str) -> Erased:
        """Forget a user."""
        self._check()
        kept, left = self._kept.pop(user_id, []), self._left.pop(user_id, [])
        newest_ms = kept[-1].timestamp_ms if kept else 0
        erased_ms = max(self._now_ms(), newest_ms, self._erased_ms.get(user_id, 0))
        self._erased_ms[user_id] = erased_ms
        others = [event for event in self._stream if event.user_id != user_id]
        num_streamed, self._stream = len(self._stream) - len(others), others
        return Erased(len(kept), len(left), num_streamed, erased_ms)

    async def merge(self, from_user_id: str, into_user_id: str) -> Merged:
        """Give one user's history to another one and forget the first."""
        self._check()
        results = [
            self._append_one(event._replace(user_id=UserId(into_user_id)))
            for event in self._kept[from_user_id]
        ]
        given = self._foreign_seen(from_user_id, into_user_id)
        self._left[into_user_id] += given
        self._trim(into_user_id)
        kinds = [result.kind for result in results]
        return Merged(
            num_events=kinds.count("accepted"),
            num_duplicates=kinds.count("duplicate"),
            num_left_out=kinds.count("expired") + kinds.count("erased"),
            num_seen=len(given),
            erased=await self.erase(from_user_id),
        )

    async def ping(self) -> None:
        """Raise StoreUnavailable if the store is down."""
        self._check()

    async def close(self, grace_s: float = 5.0) -> None:
        """Nothing waits here."""

    def _append_one(self, event: Event) -> Appended:
        if event.timestamp_ms < self._oldest_ms():
            return Appended("expired", self._oldest_ms())
        erased_ms = self._erased_ms.get(event.user_id)
        if erased_ms is not None and event.timestamp_ms <= erased_ms:
            return Appended("erased", erased_ms)
        if event.event_id in self._known_ids(event.user_id):
            return DUPLICATE
        kept = self._kept[event.user_id]
        kept.append(event)
        kept.sort(key=lambda other: other.timestamp_ms)
        return ACCEPTED

    def _known_ids(self, user_id: str) -> set[str]:
        return {event.event_id for event in (*self._kept[user_id], *self._left[user_id])}

    def _foreign_seen(self, from_user_id: str, into_user_id: str) -> list[Event]:
        known = self._known_ids(into_user_id)
        if into_user_id in self._erased_ms:
            return []
        return [event for event in self._left[from_user_id] if event.event_id not in known]

    def _current(self, user_id: str) -> list[Event]:
        kept = self._kept.get(user_id, [])
        return [event for event in kept if event.timestamp_ms >= self._oldest_ms()]

    def _oldest_ms(self) -> int:
        return max(0, self._now_ms() - self._retention_ms)

    def _trim(self, user_id: str) -> None:
        self._kept[user_id] = self._current(user_id)
        kept, left = self._kept[user_id], self._left[user_id]
        num_evicted = max(0, len(kept) - self._max_events)
        left += kept[:num_evicted]
        del kept[:num_evicted]
        del left[: max(0, len(left) - self._max_seen)]

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("the fake store is down")


class FakeCounters:
    """A CounterStore that gives the list it was told; `down` makes it raise StoreUnavailable."""

    def __init__(self, ranked: Sequence[tuple[str, float]] = ()) -> None:
        self.ranked = list(ranked)
        self.down = False

    async def popular(self, now_ms: int, limit: int) -> list[tuple[str, float]]:
        """Return the first `limit` of the list, whatever the time."""
        if self.down:
            raise StoreUnavailable("the fake store is down")
        return self.ranked[:limit]


class FakeAnnouncements:
    """A ModelAnnouncements in memory, which several applications may share; `down` as above.

    It passes the suite of `tests/integration/store/test_announcements.py`, as the real one does.
    """

    def __init__(self, announced: Announced | None = None) -> None:
        self.announced = announced
        self.down = False

    async def read(self) -> Announced | None:
        """Return what is announced."""
        if self.down:
            raise StoreUnavailable("the fake store is down")
        return self.announced

    async def announce(self, version: str, now_ms: int) -> Announced:
        """Announce a version."""
        await self.give_up(version)
        before = self.announced or Announced("", "", "", 0)
        if before.active != version:
            before = replace(before, active=version, previous=before.active, changed_at_ms=now_ms)
        self.announced = before
        return before

    async def prepare(self, version: str, now_ms: int) -> None:
        """Note that a version will be announced."""
        before = await self.read() or Announced("", "", "", 0)
        self.announced = replace(before, preparing=version, preparing_at_ms=now_ms)

    async def give_up(self, version: str) -> None:
        """Note that it will not."""
        before = await self.read()
        if before is not None and before.preparing == version:
            self.announced = replace(before, preparing="", preparing_at_ms=0)

    async def announce_pointer(self, version: str, now_ms: int) -> Announced:
        """Announce a version unless CURRENT named it already."""
        before = await self.read() or Announced("", "", "", 0)
        if before.pointer == version:
            return before
        self.announced = replace(before, pointer=version)
        return await self.announce(version, now_ms)

    async def announce_first(self, version: str, pointer: str, now_ms: int) -> Announced:
        """Announce a version if none is."""
        before = await self.read()
        if before is None:
            self.announced = before = Announced(version, "", pointer, now_ms)
        return before


class FakeReports:
    """A ServingReports in memory that forgets nobody; `down` as above."""

    def __init__(self) -> None:
        self.last: dict[str, ServingReport] = {}
        self.num_calls = 0
        self.down = False

    async def report(self, said: ServingReport) -> list[ServingReport]:
        """Keep a report; return all, by process."""
        if self.down:
            raise StoreUnavailable("the fake store is down")
        self.num_calls += 1
        self.last[said.process] = said
        return [self.last[process] for process in sorted(self.last)]


def history_of(events: Sequence[Event], left: Sequence[Event] = ()) -> History:
    """Return the history of events that are in order of time, and of events that left it."""
    return History(
        item_ids=tuple(event.item_id for event in events),
        event_types=np.array([EVENT_TYPE_CODES[event.event_type] for event in events], np.int64),
        timestamps_ms=np.array([event.timestamp_ms for event in events], np.int64),
        tz_offsets_min=np.array([event.tz_offset_min or 0 for event in events], np.int64),
        values=_floats([event.value for event in events]),
        durations_s=_floats([event.duration_s for event in events]),
        lats=_floats([event.lat for event in events]),
        lons=_floats([event.lon for event in events]),
        seen_hashes=np.array([item_hash(event.item_id) for event in left], np.uint64),
        seen_types=np.array([EVENT_TYPE_CODES[event.event_type] for event in left], np.uint8),
    )


def held_event(event: Event) -> HeldEvent:
    """Return an event as an export shows it."""
    return HeldEvent(
        event_hash=event_hash(event.event_id).hex(),
        item_id=event.item_id,
        event_type=event.event_type,
        timestamp_ms=event.timestamp_ms,
        tz_offset_min=event.tz_offset_min,
        value=event.value,
        duration_s=event.duration_s,
        lat=event.lat,
        lon=event.lon,
    )


def seen_record(event: Event) -> SeenRecord:
    """Return what an export shows of an event that left the history."""
    return SeenRecord(
        item_hash=f"{item_hash(event.item_id):016x}",
        event_type=event.event_type,
        event_hash=event_hash(event.event_id).hex(),
    )


def _packed_seen(event: Event) -> bytes:
    """Return the record of an event that left the history, as the script writes it."""
    code = bytes([EVENT_TYPE_CODES[event.event_type]])
    return item_hash(event.item_id).to_bytes(8, "little") + code + event_hash(event.event_id)


def _floats(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)
