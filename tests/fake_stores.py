"""Stores in memory beside the histories: what was shown, ranked lists, the live catalogue."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.contract.exposures import Exposure
from service.contract.vocabulary import item_hash
from service.errors import ServiceError, StoreUnavailable
from service.store.catalogue import Changes, ItemChange
from service.store.exposures import Shown
from service.store.lists import RankedItems
from tests.fakes import FakeCounters, FakeHistory


class FakeExposures:
    """An ExposureStore in memory; `down` makes every call raise StoreUnavailable."""

    def __init__(self) -> None:
        self.down = False
        self.noted: list[Exposure] = []
        self._arrived = asyncio.Event()

    async def record(self, exposures: Sequence[Exposure]) -> list[ServiceError | None]:
        """Note answers."""
        self._check()
        self.noted += exposures
        self._arrived.set()
        return [None] * len(exposures)

    async def first(self) -> Exposure:
        """Wait for the first answer to be noted: that happens behind the answer."""
        await self._arrived.wait()
        return self.noted[0]

    async def find(self, recommendation_ids: Sequence[str]) -> dict[str, Exposure]:
        """Return the noted answers of these ids."""
        self._check()
        wanted = set(recommendation_ids)
        return {one.recommendation_id: one for one in self.noted if one.recommendation_id in wanted}

    async def shown(self, user_id: str) -> Shown:
        """Return what was shown to a user, oldest first."""
        self._check()
        rows = [
            (item_hash(place.item_id), one.timestamp_ms)
            for one in self.noted
            if one.user_id == user_id
            for place in one.impressions
        ]
        return Shown(
            np.array([row[0] for row in rows], np.uint64),
            np.array([row[1] for row in rows], np.int64),
        )

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("the fake store is down")


class FakeLists:
    """A ListStore in memory; `down` makes every call raise StoreUnavailable."""

    def __init__(self) -> None:
        self.down = False
        self._kept: dict[str, RankedItems] = {}

    async def save(self, ranked: RankedItems) -> None:
        """Keep a list."""
        self._check()
        self._kept[ranked.recommendation_id] = ranked

    async def load(self, recommendation_id: str, user_id: str | None) -> RankedItems | None:
        """Return a user's list."""
        self._check()
        kept = self._kept.get(recommendation_id)
        return kept if kept is not None and kept.user_id == user_id else None

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("the fake store is down")


class FakeItems:
    """A CatalogueStore in memory; `down` makes every call raise StoreUnavailable."""

    def __init__(self) -> None:
        self.down = False
        self.said: dict[str, dict[str, Any]] = {}
        # Entries of the log that are read at a time.
        self.page = 1_000
        self._log: list[str] = []

    async def change(self, changes: Sequence[ItemChange]) -> None:
        """Store changes."""
        self._check()
        for change in changes:
            before = {} if change.replaces else self.said.get(change.item_id, {})
            self.said[change.item_id] = before | dict(change.fields)
            self._log.append(change.item_id)

    async def since(self, position: str | None) -> Changes:
        """Return what changed since so many changes, or all."""
        self._check()
        if position is None:
            latest = {item_id: self.said[item_id] for item_id in dict.fromkeys(self._log[::-1])}
            items = dict(reversed([*latest.items()]))
            return Changes(str(len(self._log)), items, is_whole=True)
        entries = self._log[int(position) :][: self.page]
        items = {item_id: self.said[item_id] for item_id in entries}
        reached = int(position) + len(entries)
        return Changes(str(reached), items, goes_on=reached < len(self._log))

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("the fake store is down")


def fake_stores(**given: Any) -> dict[str, Any]:
    """Return every store of `create_app`, the given ones and fakes for the others."""
    fakes = {
        "history": FakeHistory(),
        "counters": FakeCounters(),
        "exposures": FakeExposures(),
        "lists": FakeLists(),
        "live_items": FakeItems(),
    }
    return fakes | given
