"""Readings: what a stored history says to one model, and the encoder's answer while that lasts.

A reading is taken again only if Redis gives the very bytes that it was made of, so that an event
that arrived a moment ago is never missed; the encoder's answer only while the request's time and
place would change nothing in it, as the graph itself says.
"""

from math import isnan
from time import monotonic

from cachetools import TLRUCache

from service.choosing import Deeds
from service.contract.events import UserId
from service.contract.features import Int64s, RequestPoint
from service.contract.vocabulary import Vocabulary
from service.metrics import Metrics
from service.ranker import Encoded
from service.store.history import PackedHistory

# A reading that is not asked for again is forgotten after so long, and with it what it holds.
KEEP_S = 300.0
# What changes sooner is not worth its place.
MIN_KEEP_S = 0.5
MS_PER_S = 1_000
# What a reading takes beside its bytes and arrays: objects, and its places in the cache.
OBJECT_BYTES = 1_500
NOTHING_STORED = PackedHistory(None, None)


class Reading:
    """What a request knows of what a user did, in the indices of one vocabulary.

    `seen` are the indices of what counts as seen by the bundle's own rule, None until found.
    `last_offset_min` is the offset of the last event, 0 if unknown.
    """

    __slots__ = (
        "_deeds",
        "_encoded",
        "_first_ms",
        "_packed",
        "_point",
        "_vocabulary",
        "is_stored",
        "last_offset_min",
        "seen",
    )

    def __init__(
        self, vocabulary: Vocabulary, deeds: Deeds, packed: PackedHistory | None = None
    ) -> None:
        past = deeds.past
        self._packed = packed or NOTHING_STORED
        self.is_stored = packed is not None
        self.last_offset_min = int(past.tz_offsets_min[-1]) if len(past) else 0
        self.seen: Int64s | None = None
        self._encoded: Encoded | None = None
        self._point: RequestPoint | None = None
        self._vocabulary = vocabulary
        self._deeds: Deeds | None = deeds
        self._first_ms = int(past.timestamps_ms[0]) if len(past) else None

    @property
    def deeds(self) -> Deeds:
        """Return what the user did; a reading that rests reads it from its bytes again."""
        return self._deeds or deeds_of(self._vocabulary, self._packed)

    def is_of(self, packed: PackedHistory) -> bool:
        """Say whether a stored history would be read as this one was."""
        own = self._packed
        if own.history != packed.history or own.seen != packed.seen:
            return False
        # Time goes on: events that were young enough may have become too old.
        is_later = packed.oldest_ms >= own.oldest_ms
        return is_later and (self._first_ms is None or self._first_ms >= packed.oldest_ms)

    def encoded_at(self, point: RequestPoint) -> Encoded | None:
        """Return the encoder's answer if it is the same for a time and place, else None."""
        encoded, before = self._encoded, self._point
        if encoded is None or before is None or not _is_at(before, point):
            return None
        return encoded if before.time_ms <= point.time_ms < encoded.until_ms else None

    @property
    def lasts_s(self) -> float:
        """Return for how long the encoder's answer is the same from its time on, seconds."""
        if self._encoded is None or self._point is None:
            return 0.0
        return (self._encoded.until_ms - self._point.time_ms) / MS_PER_S

    @property
    def num_bytes(self) -> int:
        """Return about how much memory a resting reading takes."""
        size = OBJECT_BYTES + len(self._packed.history or b"") + len(self._packed.seen or b"")
        if self.seen is not None:
            size += self.seen.nbytes
        return size + (0 if self._encoded is None else self._encoded.num_bytes)

    def rest(self, encoded: Encoded, point: RequestPoint) -> None:
        """Take down what the encoder gave for a time and place, and let go of the deeds."""
        self._encoded, self._point = encoded, point
        self._deeds = None


class Readings:
    """The readings of users' stored histories by one model, up to so many bytes of them.

    What was asked for the longest ago goes first. Belongs to one loop.
    """

    def __init__(self, vocabulary: Vocabulary, metrics: Metrics, max_bytes: int = 0) -> None:
        self._vocabulary = vocabulary
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._counts = [metrics.encoded_windows.labels(source) for source in ("encoder", "kept")]
        self._kept: TLRUCache[UserId, Reading] = TLRUCache(
            max_bytes, ttu=_ends_s, timer=monotonic, getsizeof=lambda reading: reading.num_bytes
        )

    def __len__(self) -> int:
        return len(self._kept)

    def for_vocabulary(self, vocabulary: Vocabulary) -> "Readings":
        """Return as much room for readings in the indices of another vocabulary; none are there."""
        return Readings(vocabulary, self._metrics, self._max_bytes)

    def of(self, user_id: UserId, packed: PackedHistory) -> Reading:
        """Return the reading of what is stored of a user; raises StoreMismatch."""
        kept = self._kept.get(user_id)
        if kept is not None and kept.is_of(packed):
            return kept
        return Reading(self._vocabulary, deeds_of(self._vocabulary, packed), packed)

    def encoded_at(self, reading: Reading, point: RequestPoint) -> Encoded | None:
        """Return the encoder's answer if it is known and the same for a time and place."""
        encoded = reading.encoded_at(point)
        self._counts[encoded is not None].inc()
        return encoded

    def keep(
        self, user_id: UserId, reading: Reading, encoded: Encoded, point: RequestPoint
    ) -> None:
        """Keep the reading of what is stored of a user, while the encoder's answer is the same."""
        lasts_s = (encoded.until_ms - point.time_ms) / MS_PER_S
        if not self._max_bytes or not reading.is_stored or lasts_s < MIN_KEEP_S:
            return
        reading.rest(encoded.apart(), point)
        if reading.num_bytes <= self._max_bytes:
            self._kept[user_id] = reading

    def forget(self, user_id: UserId) -> None:
        """Keep nothing of a user."""
        self._kept.pop(user_id, None)

    def expire(self) -> None:
        """Let go of readings whose time is over; whoever keeps another one does so too."""
        self._kept.expire()


def deeds_of(vocabulary: Vocabulary, packed: PackedHistory) -> Deeds:
    """Return what a stored history says; raises StoreMismatch."""
    history = packed.decode()
    return Deeds(history, vocabulary.indices(history.item_ids), history)


def _ends_s(_user_id: UserId, reading: Reading, now_s: float) -> float:
    return now_s + min(KEEP_S, reading.lasts_s)


def _is_at(one: RequestPoint, other: RequestPoint) -> bool:
    """Say whether two points are at one place and offset, whatever their times."""
    return (
        one.tz_offset_min == other.tz_offset_min
        and _is_same(one.lat, other.lat)
        and _is_same(one.lon, other.lon)
    )


def _is_same(one: float, other: float) -> bool:
    return one == other or (isnan(one) and isnan(other))
