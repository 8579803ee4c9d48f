"""Live items whose text is still to be read: those of which something was said last come first."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from service.bundle_loader import LoadedBundle
from service.contract.features import Float32s
from service.contract.items import item_text
from service.metrics import Metrics
from service.store.catalogue import DELETED, Said
from service.text_encoder import MAX_TEXTS

# Of long texts fewer are read at a time: an item that comes meanwhile waits for no more than these,
# some 150 ms of a small encoder.
MAX_CHARS = 4_096

Known: TypeAlias = Callable[[str], Float32s | None]


class TextBacklog:
    """Texts by item id, in the order in which they came. Belongs to one loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._gauge = metrics.texts_pending
        self._texts: dict[str, str] = {}
        # Taken, and not placed yet.
        self._num_taken = 0
        self._some = asyncio.Event()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, texts: Mapping[str, str]) -> None:
        """Note texts that are to be read before those that are there."""
        for item_id, text in texts.items():
            self._texts.pop(item_id, None)
            self._texts[item_id] = text
        self._tell()

    def begin_anew(self, texts: Mapping[str, str]) -> None:
        """Note these texts and no others: another encoder is to read them."""
        self._texts = dict(texts)
        self._num_taken = 0
        self._tell()

    async def newest(self) -> dict[str, str]:
        """Take a few of the texts that came last; wait until there is one, or for `close`."""
        await self._some.wait()
        taken: dict[str, str] = {}
        num_chars = 0
        while self._texts and len(taken) < MAX_TEXTS:
            item_id, text = self._texts.popitem()
            num_chars += len(text)
            if taken and num_chars > MAX_CHARS:
                self._texts[item_id] = text
                break
            taken[item_id] = text
        self._num_taken += len(taken)
        self._tell()
        return taken

    def placed(self) -> None:
        """Note that what was taken until now stands where it belongs."""
        self._num_taken = 0
        self._tell()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._is_closed = True
        self._tell()

    def _tell(self) -> None:
        self._gauge.set(len(self._texts) + self._num_taken)
        if self._texts or self._is_closed:
            self._some.set()
        else:
            self._some.clear()


def text_of(base: LoadedBundle, item_id: str, said: Said) -> str:
    """Return what is to be read of an item, "" for nothing: of what is trained or is no more too.

    A trained item keeps the vector that its own history gave it, whatever is said of it.
    """
    if said.get(DELETED) or item_id in base.vocabulary:
        return ""
    return item_text(said.get("title"), said.get("text"), said.get("categories") or ())


def vectors_and_unread(
    base: LoadedBundle,
    view: LoadedBundle,
    said: Mapping[str, Said],
    before: Mapping[str, Said],
    known: Known,
) -> tuple[dict[str, Float32s], dict[str, str]]:
    """Return the vectors of items, by their text, and the texts that are still to be read.

    An item whose text is as `before` keeps its row of the view: it was read, or is about to be.
    """
    vectors: dict[str, Float32s] = {}
    unread: dict[str, str] = {}
    for item_id, one in said.items():
        text = text_of(base, item_id, one)
        vector = known(text) if text else None
        if vector is not None:
            vectors[item_id] = vector
        elif text and text == text_of(base, item_id, before.get(item_id, {})):
            row = view.vocabulary.index(item_id)
            vectors[item_id] = view.ranker.vectors(np.array([row]))[0]
        elif text:
            unread[item_id] = text
    return vectors, unread
