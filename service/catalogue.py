"""The live catalogue of one process: what callers said of items, laid over the model's bundle."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from service.allowed import AllBut
from service.bundle_loader import LoadedBundle
from service.contract.items import Item
from service.errors import UnknownItem
from service.extending import DELETED, extend, is_gone, item_of
from service.ordering import top_k
from service.recommendation import RecommendedItem
from service.serving_model import ModelSlot
from service.store.catalogue import Changes, ItemChange, Said


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

    async def view_of(self, bundle: LoadedBundle) -> LoadedBundle:
        """Return a bundle that is to be served next, with what is known of its items.

        The caller has to put it in the slot before it awaits anything else: what is said meanwhile
        is laid over what the slot holds.
        """
        async with self._following:
            view = await asyncio.to_thread(extend, bundle, bundle, self._said)
            self._base = bundle
            return view

    async def follow(self) -> None:
        """Take up all that changed; raises StoreUnavailable, and the view stays as it was."""
        async with self._following:
            goes_on = True
            while goes_on:
                changes = await self._store.since(self._position)
                await self._take_up(changes)
                self._position, goes_on = changes.position, changes.goes_on

    async def _take_up(self, changes: Changes) -> None:
        said = changes.items
        if changes.is_whole:
            forgotten: dict[str, Said] = {text: {} for text in self._said}
            said = forgotten | dict(said)
        if not said:
            return
        view = self._slot.current.bundle
        renewed = await asyncio.to_thread(extend, self._base, view, said)
        self._said = dict(changes.items) if changes.is_whole else self._said | dict(said)
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
        """Let an item be no more, until something is said of it again.

        Raises UnknownItem, also of one that another process has just deleted, and as `change`.
        """
        await self.follow()
        self.item(item_id)
        await self.change([ItemChange(item_id, {DELETED: True}, replaces=True)])

    def item(self, item_id: str) -> KnownItem:
        """Return an item as it is served here; raises UnknownItem."""
        said = self._said.get(item_id, {})
        index = self._slot.current.bundle.vocabulary.index(item_id)
        if not index or is_gone(said) or not (said or item_id in self._base.vocabulary):
            raise UnknownItem(f"neither the model nor the live catalogue has the item {item_id!r}")
        found = item_of(self._base, item_id, said)
        return KnownItem(found, is_trained=item_id in self._base.vocabulary)

    async def similar(self, item_id: str, k: int) -> tuple[RecommendedItem, ...]:
        """Return the k items most like one, by the cosine of item vectors; raises UnknownItem.

        Of an item without a vector the most popular ones follow in its place.
        """
        self.item(item_id)
        # On a thread: it reads the whole item matrix.
        return await asyncio.to_thread(_similar, self._slot.current.bundle, item_id, k)


def _similar(view: LoadedBundle, item_id: str, k: int) -> tuple[RecommendedItem, ...]:
    index = view.vocabulary.index(item_id)
    num_items = len(view.vocabulary)
    others = AllBut(view.withheld, num_items).without(np.array([index]))
    allowed = others.first(len(others))
    vector = view.ranker.vectors(np.array([index]))[0]
    likeness = view.ranker.likeness(vector)[allowed]
    if not vector.any():
        likeness = view.popularity.overall.dense(num_items)[allowed]
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
