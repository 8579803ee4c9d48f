"""The fallback ladder: what answers where the model cannot, best rung first."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.allowed import Allowed
from service.contract.exposures import Source
from service.contract.features import Float32s, Int64s
from service.contract.vocabulary import Vocabulary
from service.item_columns import ItemColumns

MS_PER_HOUR = 3_600_000
MS_PER_MIN = 60_000
NUM_LIVE_ITEMS = 500
# Around a request's place, as far as one walks or rides without planning to.
NEARBY_KM = 5.0
NUM_NEARBY_ITEMS = 500
# Live counts below this many events are chance: one visitor would decide what the next one sees.
MIN_LIVE_WEIGHT = 200.0
# How much of a ranked list is looked at first.
FIRST_PIECE = 256


@dataclass(frozen=True, slots=True)
class RankedList:
    """Items with their weights, best first: parallel arrays of one length."""

    indices: Int64s
    weights: Float32s

    def dense(self, num_items: int) -> Float32s:
        """Return the weights by item index, (num_items + 1,), 0 of items that are not listed."""
        weights = np.zeros(num_items + 1, np.float32)
        weights[self.indices] = self.weights
        return weights

    @classmethod
    def empty(cls) -> "RankedList":
        """Return the list without items."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32))

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, float]]) -> "RankedList":
        """Return the list of (item index, weight) pairs, which are best first already."""
        rows = list(pairs)
        indices = np.array([index for index, _ in rows], np.int64)
        return cls(indices, np.array([weight for _, weight in rows], np.float32))


@dataclass(frozen=True, slots=True)
class Popularity:
    """Popular items of the bundle: over all its events, and by the local hour of day."""

    overall: RankedList
    by_hour: Mapping[int, RankedList]

    def at_hour(self, hour: int) -> RankedList:
        """Return what is popular at a local hour, empty if the bundle does not know."""
        return self.by_hour.get(hour, RankedList.empty())


class PopularCounts(Protocol):
    """Counts what is popular among live events; raises StoreUnavailable."""

    async def popular(self, now_ms: int, limit: int) -> Sequence[tuple[str, float]]:
        """Return at most `limit` items with their weights, the heaviest first."""
        ...


class LivePopularity:
    """What is popular among live events, as of the last refresh; empty before the first."""

    def __init__(
        self, counts: PopularCounts, vocabulary: Vocabulary, clock: Callable[[], int]
    ) -> None:
        self._counts = counts
        self._vocabulary = vocabulary
        self._clock = clock
        self._last: Sequence[tuple[str, float]] = ()
        self.current = RankedList.empty()

    @property
    def says_enough(self) -> bool:
        """Say whether there are enough live events to go before what the training log says."""
        return float(self.current.weights.sum()) >= MIN_LIVE_WEIGHT

    async def refresh(self) -> None:
        """Read the counts; if that fails, raise and keep the list as it was."""
        self._last = await self._counts.popular(self._clock(), NUM_LIVE_ITEMS)
        self.current = live_list(self._last, self._vocabulary)

    def for_vocabulary(self, vocabulary: Vocabulary) -> "LivePopularity":
        """Return the same counts in the indices of another bundle."""
        moved = LivePopularity(self._counts, vocabulary, self._clock)
        moved._last = self._last
        moved.current = live_list(self._last, vocabulary)
        return moved


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: where its items come from, and the items."""

    source: Source
    ranked: RankedList


# Not frozen: ten are made for every answer, and a frozen one takes three times as long.
@dataclass(slots=True)
class Pick:
    """One chosen item, its score on its rung, and the rung."""

    index: int
    score: float
    source: Source


def local_hour(time_ms: int, tz_offset_min: int) -> int:
    """Return the hour of day, 0 to 23, that a clock at this offset from UTC shows.

    >>> local_hour(23 * MS_PER_HOUR, 120)
    1
    """
    return (time_ms + tz_offset_min * MS_PER_MIN) // MS_PER_HOUR % 24


def live_list(counts: Iterable[tuple[str, float]], vocabulary: Vocabulary) -> RankedList:
    """Return live counts as a list of known items; what the catalogue lacks is left out."""
    pairs = [(vocabulary.index(item_id), weight) for item_id, weight in counts]
    known = [(index, weight) for index, weight in pairs if index and weight > 0]
    return RankedList.of(sorted(known, key=lambda pair: (-pair[1], pair[0])))


def repeats(items: Int64s, weights: Float32s) -> RankedList:
    """Return a user's own items by summed weight, then by how lately they came.

    `items` are indices, oldest first, 0 for unknown ones, parallel to `weights`. Items whose sum is
    not above 0 (a disliked item's) are left out.
    """
    sums: dict[int, float] = {}
    last_place: dict[int, int] = {}
    for place, (item, weight) in enumerate(zip(items.tolist(), weights.tolist(), strict=True)):
        sums[item] = sums.get(item, 0.0) + weight
        last_place[item] = place
    liked = [item for item, total in sums.items() if item and total > 0]
    liked.sort(key=lambda item: (-sums[item], -last_place[item]))
    return RankedList.of((item, sums[item]) for item in liked)


def nearby(columns: ItemColumns, overall: RankedList, lat: float, lon: float) -> RankedList:
    """Return the items within NEARBY_KM of a point, the most popular first, then the nearest.

    Empty where the point is unknown (NaN) or no item says where it is.
    """
    if np.isnan(lat) or np.isnan(lon):
        return RankedList.empty()
    near, distances = columns.within(lat, lon, NEARBY_KM)
    weights = overall.dense(columns.num_items)
    order = np.lexsort((distances, -weights[near]))[:NUM_NEARBY_ITEMS]
    best = near[order]
    return RankedList(best, weights[best])


def climb(rungs: Sequence[Rung], allowed: Allowed, k: int) -> list[Pick]:
    """Return up to k allowed items, each from the first rung that has it.

    What no rung has follows by item index as popular with score 0, so that the answer is as long
    as it can be.
    """
    picks: dict[int, Pick] = {}
    # Of the rest at most k are in the picks already.
    for rung in [*rungs, Rung("popular", _unweighted(allowed.first(2 * k)))]:
        for index, weight in _allowed_of(rung.ranked, allowed):
            if len(picks) >= k:
                return list(picks.values())
            picks.setdefault(index, Pick(index, weight, rung.source))
    return list(picks.values())


def _unweighted(indices: Int64s) -> RankedList:
    return RankedList(indices, np.zeros(len(indices), np.float32))


def _allowed_of(ranked: RankedList, allowed: Allowed) -> Iterator[tuple[int, float]]:
    """Yield the allowed items of a list with their weights, best first.

    Looks at the list piece by piece: the best few are wanted, and it may have a million.
    """
    start, length = 0, FIRST_PIECE
    while start < len(ranked.indices):
        piece = slice(start, start + length)
        kept = allowed.holds(ranked.indices[piece])
        indices, weights = ranked.indices[piece][kept], ranked.weights[piece][kept]
        yield from zip(indices.tolist(), weights.tolist(), strict=True)
        start, length = start + length, 2 * length
