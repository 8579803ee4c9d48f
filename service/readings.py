"""Readings: what a stored history says to one model, and the encoder's answer while that lasts.

A reading is taken again only if Redis gives the very bytes that it was made of, so that an event
that arrived a moment ago is never missed; the encoder's answer only while the request's time and
place would change nothing in it, as the graph itself says.
"""

from math import isnan
from time import monotonic
from typing import NamedTuple

from cachetools import TLRUCache

from service.choosing import Deeds
from service.contract.events import UserId
from service.contract.features import Int64s, RequestPoint
from service.contract.vocabulary import Vocabulary
from service.metrics import Metrics
from service.ranker import Encoded
from service.store.history import PackedHistory

# However often it is asked for, a reading is made anew after so long: nobody is remembered longer.
KEEP_S = 300.0
# What changes sooner is not worth its place.
MIN_KEEP_S = 0.5
MS_PER_S = 1_000
# What a kept reading takes beside its bytes and arrays: objects, and its places in the cache.
OBJECT_BYTES = 1_450
NOTHING_STORED = PackedHistory(None, None)


class Kept(NamedTuple):
    """What is kept of a reading: the bytes it was made of, and what took long to find in them.

    `point` is when and where the encoder was asked; `seen` is None if nobody wanted it.
    """

    packed: PackedHistory
    first_ms: int | None
    last_offset_min: int
    seen: Int64s | None
    encoded: Encoded
    point: RequestPoint

    def is_of(self, packed: PackedHistory) -> bool:
        """Say whether a stored history would be read as this one was."""
        own = self.packed
        if own.history != packed.history or own.seen != packed.seen:
            return False
        # Time goes on: events that were young enough may have become too old.
        is_later = packed.oldest_ms >= own.oldest_ms
        return is_later and (self.first_ms is None or self.first_ms >= packed.oldest_ms)

    @property
    def lasts_s(self) -> float:
        """Return for how long the encoder's answer is the same from its time on, seconds."""
        return (self.encoded.until_ms - self.point.time_ms) / MS_PER_S

    @property
    def num_bytes(self) -> int:
        """Return about how much memory this takes."""
        size = OBJECT_BYTES + len(self.packed.history or b"") + len(self.packed.seen or b"")
        return size + (0 if self.seen is None else self.seen.nbytes) + self.encoded.num_bytes


class Reading:
    """What one request knows of what a user did, in the indices of one vocabulary.

    `seen` are the indices of what counts as seen by the bundle's own rule, None until found.
    `last_offset_min` is the offset of the last event, 0 if unknown.
    """

    __slots__ = (
        "_deeds",
        "_kept",
        "_vocabulary",
        "last_offset_min",
        "num_forgotten",
        "packed",
        "seen",
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        deeds: Deeds | None = None,
        packed: PackedHistory = NOTHING_STORED,
        kept: Kept | None = None,
        num_forgotten: int | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._kept = kept
        self._deeds = deeds
        self.packed = packed
        # How many users had been forgotten when it was read; None of what cannot be kept.
        self.num_forgotten = num_forgotten
        self.seen: Int64s | None = None
        if kept is not None:
            self.seen, self.last_offset_min = kept.seen, kept.last_offset_min
        else:
            past = self.deeds.past
            self.last_offset_min = int(past.tz_offsets_min[-1]) if len(past) else 0

    @property
    def deeds(self) -> Deeds:
        """Return what the user did; raises StoreMismatch, but only before the reading is made."""
        if self._deeds is None:
            history = self.packed.decode()
            items = self._vocabulary.indices(history.item_ids)
            self._deeds = Deeds(history, items, history)
        return self._deeds

    def encoded_at(self, point: RequestPoint) -> Encoded | None:
        """Return the encoder's answer if it is known and the same for a time and place."""
        if self._kept is None or not _is_at(self._kept.point, point):
            return None
        encoded = self._kept.encoded
        return encoded if self._kept.point.time_ms <= point.time_ms < encoded.until_ms else None


class Readings:
    """The readings of users' stored histories by one model, up to so many bytes of them.

    What was asked for the longest ago goes first. Belongs to one loop.
    """

    def __init__(self, vocabulary: Vocabulary, metrics: Metrics, max_bytes: int = 0) -> None:
        self._vocabulary = vocabulary
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._num_forgotten = 0
        self._counts = [metrics.encoded_windows.labels(source) for source in ("encoder", "kept")]
        self._kept: TLRUCache[UserId, Kept] = TLRUCache(
            max_bytes, ttu=_ends_s, timer=monotonic, getsizeof=lambda kept: kept.num_bytes
        )

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """Return about how much memory the kept readings take."""
        return int(self._kept.currsize)

    def for_vocabulary(self, vocabulary: Vocabulary) -> "Readings":
        """Return as much room for readings in the indices of another vocabulary; none are there."""
        return Readings(vocabulary, self._metrics, self._max_bytes)

    def of(self, user_id: UserId, packed: PackedHistory) -> Reading:
        """Return the reading of what is stored of a user; raises StoreMismatch."""
        kept = self._kept.get(user_id)
        return Reading(
            self._vocabulary,
            packed=packed,
            kept=kept if kept is not None and kept.is_of(packed) else None,
            num_forgotten=self._num_forgotten,
        )

    def of_deeds(self, deeds: Deeds) -> Reading:
        """Return the reading of what a user did beside what is stored; it is not kept."""
        return Reading(self._vocabulary, deeds=deeds)

    def keep(
        self, user_id: UserId, reading: Reading, encoded: Encoded, point: RequestPoint
    ) -> None:
        """Keep the reading of what is stored of a user, while the encoder's answer is the same.

        Not if somebody was forgotten since it was read: it may have been this user.
        """
        if not self._max_bytes or reading.num_forgotten != self._num_forgotten:
            return
        past = reading.deeds.past
        kept = Kept(
            packed=reading.packed,
            first_ms=int(past.timestamps_ms[0]) if len(past) else None,
            last_offset_min=reading.last_offset_min,
            seen=reading.seen,
            encoded=encoded.apart(),
            point=point,
        )
        if kept.lasts_s >= MIN_KEEP_S and kept.num_bytes <= self._max_bytes:
            self._kept[user_id] = kept

    def count(self, *, was_known: bool) -> None:
        """Count a window that was ranked for, by whether the encoder had to be asked."""
        self._counts[was_known].inc()

    def forget(self, user_id: UserId) -> None:
        """Keep nothing of a user, nor of what was read before now."""
        self._num_forgotten += 1
        self._kept.pop(user_id, None)

    def expire(self) -> None:
        """Let go of readings whose time is over; whoever keeps another one does so too."""
        self._kept.expire()


def _ends_s(_user_id: UserId, kept: Kept, now_s: float) -> float:
    return now_s + min(KEEP_S, kept.lasts_s)


def _is_at(one: RequestPoint, other: RequestPoint) -> bool:
    """Say whether two points are at one place and offset, whatever their times."""
    return (
        one.tz_offset_min == other.tz_offset_min
        and _is_same(one.lat, other.lat)
        and _is_same(one.lon, other.lon)
    )


def _is_same(one: float, other: float) -> bool:
    return one == other or (isnan(one) and isnan(other))
