"""The live catalogue of one process: what callers said of items, laid over the model's bundle."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import NamedTuple, Protocol

import numpy as np

from service.allowed import AllBut
from service.bundle_loader import LoadedBundle
from service.contract.errors import ContractError
from service.contract.features import Float32s
from service.contract.items import Item
from service.errors import ServiceError, UnknownItem
from service.extending import extend, is_gone, item_of, with_vectors
from service.logs import get_logger
from service.metrics import Metrics
from service.ordering import top_k
from service.recommendation import RecommendedItem
from service.serving_model import ModelSlot, ServingModel
from service.store.catalogue import DELETED, Changes, ItemChange, Said
from service.text_backlog import Known, TextBacklog, text_of, vectors_and_unread
from service.text_encoder import MAX_TEXTS
from service.text_vectors import TextVectors

# While many texts are read, the view is renewed so often: each time it copies all new rows.
PLACE_EVERY_S = 0.25
# How long a change waits for its texts to be read; what is not read by then is read behind it.
READ_AT_ONCE_S = 0.5


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


class _Read(NamedTuple):
    """A text that was read, and its vector, (dim,)."""

    text: str
    vector: Float32s


class LiveCatalogue:
    """Follows the store and renews the served model's view; the reads and writes of items.

    Belongs to one loop. Changes are laid over the bundle in the order of the store's log, one
    batch at a time. The texts of new items are read beside that, and each stands where its
    categories are until then.
    """

    def __init__(
        self, store: ItemStore, slot: ModelSlot, base: LoadedBundle, metrics: Metrics
    ) -> None:
        self._store = store
        self._slot = slot
        self._base = base
        self._log = get_logger(__name__)
        # In the order in which something was said.
        self._said: dict[str, Said] = {}
        self._backlog = TextBacklog(metrics)
        self._read: dict[str, _Read] = {}
        self._placed_s = -PLACE_EVERY_S
        self._position: str | None = None
        self._following = asyncio.Lock()

    async def view_of(self, bundle: LoadedBundle) -> LoadedBundle:
        """Return a bundle that is to be served next, with what is known of its items.

        The caller has to put it in the slot before it awaits anything else: what is said meanwhile
        is laid over what the slot holds.
        """
        async with self._following:
            # Of a text that another encoder read nothing is known.
            known = None if bundle.text_encoder is None else _nothing
            view, unread = await asyncio.to_thread(_laid, bundle, bundle, self._said, {}, known)
            self._base = bundle
            self._read = {}
            self._backlog.begin_anew(unread)
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
        model = self._slot.current
        known = None if model.texts is None else model.texts.known
        renewed, unread = await asyncio.to_thread(
            _laid, self._base, model.bundle, said, self._said, known
        )
        if changes.is_whole:
            self._said = {}
        for item_id, one in changes.items.items():
            self._said.pop(item_id, None)
            self._said[item_id] = one
        if renewed is not model.bundle:
            self._slot.renew(renewed)
        self._backlog.add(unread)

    async def read_texts(self) -> None:
        """Read the texts of a few new items, those said last, and let the items stand there.

        Waits until there are any, or for `close`.
        """
        unread = await self._backlog.newest()
        texts = self._slot.current.texts
        if texts is None:
            return
        found = await texts.read([*unread.values()])
        if self._slot.current.texts is not texts:
            # Another model is served, whose encoder reads them all.
            return
        for item_id, text in unread.items():
            vector = found[text]
            if isinstance(vector, ContractError):
                self._log.error("text not read", item_id=item_id, error=str(vector))
            else:
                self._read[item_id] = _Read(text, vector)
        if not self._backlog or monotonic() - self._placed_s >= PLACE_EVERY_S:
            await self._place(texts)

    async def _place(self, texts: TextVectors) -> None:
        """Let the items whose texts were read stand where these are."""
        async with self._following:
            if self._slot.current.texts is not texts:
                return
            vectors = {
                item_id: read.vector
                for item_id, read in self._read.items()
                # What was said meanwhile is read by itself.
                if read.text == text_of(self._base, item_id, self._said.get(item_id, {}))
            }
            self._read = {}
            self._placed_s = monotonic()
            if vectors:
                view = self._slot.current.bundle
                self._slot.renew(await asyncio.to_thread(with_vectors, self._base, view, vectors))
            self._backlog.placed()

    def close(self) -> None:
        """Let `read_texts` wait for nothing more."""
        self._backlog.close()

    async def change(self, changes: Sequence[ItemChange]) -> None:
        """Store what is said of items; when this returns, this process serves them so.

        An item exists by being named, whatever else is said of it, and exists again if it was
        deleted. Raises CatalogueFull and StoreUnavailable.
        """
        named = [replace(one, fields={DELETED: False} | dict(one.fields)) for one in changes]
        if len(named) <= MAX_TEXTS:
            await self._read_first(named)
        await self._store.change(named)
        await self.follow()

    async def _read_first(self, changes: Sequence[ItemChange]) -> None:
        """Read what is about to be said, so that the items stand there when it is laid over."""
        texts = self._slot.current.texts
        if texts is None:
            return
        said = {
            one.item_id: one.fields
            if one.replaces
            else {**self._said.get(one.item_id, {}), **one.fields}
            for one in changes
        }
        wanted = [text_of(self._base, item_id, one) for item_id, one in said.items()]
        # What cannot be read is stored all the same, and logged when it is tried again.
        with suppress(ContractError, ServiceError, TimeoutError):
            async with asyncio.timeout(READ_AT_ONCE_S):
                await asyncio.gather(*(texts.of(text) for text in wanted if text))

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

    def items(self, item_ids: Sequence[str]) -> list[KnownItem]:
        """Return those items that are known here, in the given order."""
        found = []
        for item_id in item_ids:
            with suppress(UnknownItem):
                found.append(self.item(item_id))
        return found

    @property
    def model(self) -> ServingModel:
        """Return the model that is served here, with the live items."""
        return self._slot.current

    async def similar(self, item_id: str, k: int) -> tuple[RecommendedItem, ...]:
        """Return the k items most like one, by the cosine of item vectors; raises UnknownItem.

        Of an item without a vector the most popular ones follow in its place.
        """
        self.item(item_id)
        # On a thread: it reads the whole item matrix.
        return await asyncio.to_thread(_similar, self._slot.current.bundle, item_id, k)


def _nothing(_text: str) -> None:
    """Say of no text that it was read."""


def _laid(
    base: LoadedBundle,
    view: LoadedBundle,
    said: Mapping[str, Said],
    before: Mapping[str, Said],
    known: Known | None,
) -> tuple[LoadedBundle, dict[str, str]]:
    """Return the view with what was said, and the texts to be read.

    `known` gives the vectors of texts that were read; it is None where there is no encoder.
    """
    if known is None:
        return extend(base, view, said), {}
    vectors, unread = vectors_and_unread(base, view, said, before, known)
    return extend(base, view, said, vectors), unread


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
