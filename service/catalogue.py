"""The live catalogue of one process: what callers said of items, laid over the model's bundle."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from service.bundle_loader import LoadedBundle
from service.contract.items import Item
from service.errors import UnknownItem
from service.extending import DELETED, Said, extend, is_gone, item_of
from service.ordering import top_k, without
from service.recommendation import RecommendedItem
from service.serving_model import ModelSlot
from service.store.catalogue import Changes, ItemChange


class ItemStore(Protocol):
    """Keeps what callers say of items; every call raises StoreUnavailable."""

    async def change(self, changes: Sequence[ItemChange]) -> None:
        """Store changes, all or none; raises CatalogueFull."""
        ...

    async def since(self, position: str | None) -> Changes:
        """Return what changed after a position of the log, or all."""
        ...


@dataclass(frozen=True, slots=True)
class KnownItem:
    """An item as it is served; `is_trained` says that the model knows it by its own history."""

    item: Item
    is_trained: bool


class LiveCatalogue:
    """Follows the store and renews the served model's view; the reads and writes of items.

    Belongs to one loop. Changes are laid over the bundle in the order of the store's log, one
    batch at a time.
    """

    def __init__(self, store: ItemStore, slot: ModelSlot, base: LoadedBundle) -> None:
        self._store = store
        self._slot = slot
        self._base = base
        self._said: dict[str, Said] = {}
        self._position: str | None = None
        self._following = asyncio.Lock()

    def view_of(self, bundle: LoadedBundle) -> LoadedBundle:
        """Return a bundle that is to be served, with what is known of its items."""
        self._base = bundle
        return extend(bundle, bundle, self._said)

    async def follow(self) -> None:
        """Take up what changed; raises StoreUnavailable, and the view stays as it was."""
        async with self._following:
            changes = await self._store.since(self._position)
            base, view = self._base, self._slot.current.bundle
            if changes.is_whole:
                forgotten: dict[str, Said] = {text: {} for text in self._said}
                self._said = dict(changes.items)
                renewed = await asyncio.to_thread(extend, base, view, forgotten | self._said)
            else:
                self._said |= changes.items
                renewed = view
                if changes.items:
                    renewed = await asyncio.to_thread(extend, base, view, changes.items)
            self._position = changes.position
            if base is not self._base:
                # Another model was put while this one was extended; its view is as of before.
                base, view = self._base, self._slot.current.bundle
                renewed = await asyncio.to_thread(extend, base, view, self._said)
            if renewed is not view:
                self._slot.renew(renewed)

    async def change(self, changes: Sequence[ItemChange]) -> None:
        """Store what is said of items; when this returns, this process serves them so.

        An item exists by being named, whatever else is said of it, and exists again if it was
        deleted. Raises CatalogueFull and StoreUnavailable.
        """
        named = [replace(one, fields={DELETED: False} | dict(one.fields)) for one in changes]
        await self._store.change(named)
        await self.follow()

    async def delete(self, item_id: str) -> None:
        """Let an item be no more, until something is said of it again; raises as `change`."""
        await self.change([ItemChange(item_id, {DELETED: True}, replaces=True)])

    def item(self, item_id: str) -> KnownItem:
        """Return an item as it is served here; raises UnknownItem."""
        said = self._said.get(item_id, {})
        index = self._slot.current.bundle.vocabulary.index(item_id)
        if not index or is_gone(said) or not (said or item_id in self._base.vocabulary):
            raise UnknownItem(f"neither the model nor the live catalogue has the item {item_id!r}")
        found = item_of(self._base, item_id, said)
        return KnownItem(found, is_trained=item_id in self._base.vocabulary)

    def similar(self, item_id: str, k: int) -> tuple[RecommendedItem, ...]:
        """Return the k items most like one, by the cosine of item vectors; raises UnknownItem.

        Of an item without a vector the most popular ones follow in its place.
        """
        self.item(item_id)
        view = self._slot.current.bundle
        index = view.vocabulary.index(item_id)
        num_items = len(view.vocabulary)
        everything = np.arange(1, num_items + 1, dtype=np.int64)
        allowed = without(everything, np.append(view.withheld, index), num_items)
        vector = view.ranker.vectors(np.array([index]))[0]
        likeness = view.ranker.likeness(vector)[allowed]
        if not vector.any():
            weights = np.zeros(num_items + 1, np.float32)
            weights[view.popularity.overall.indices] = view.popularity.overall.weights
            likeness = weights[allowed]
        best, scores = top_k(allowed, likeness, k)
        return tuple(
            RecommendedItem(
                item_id=view.vocabulary.id(at),
                score=score,
                rank=rank,
                source="similar" if vector.any() else "popular",
                title=view.titles[at],
            )
            for rank, (at, score) in enumerate(
                zip(best.tolist(), scores.tolist(), strict=True), start=1
            )
        )
