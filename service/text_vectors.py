"""The vectors of texts by one bundle's encoder, made off the event loop; late ones are kept."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from threading import Lock
from time import perf_counter
from typing import Protocol

from cachetools import LRUCache

from service.batcher import Batcher
from service.contract.errors import ContractError
from service.contract.features import Float32s
from service.metrics import Metrics
from service.text_encoder import MAX_TEXTS

# Vectors of so many texts are kept, half a KiB each at 64 dimensions, so that an item whose other
# fields change, an item that is put again and words that many people send are not read twice.
MAX_KEPT = 10_000


class Encoder(Protocol):
    """Turns texts into vectors; thread-safe."""

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return the vectors of texts, (len(texts), dim); raises ContractError."""
        ...


class TextVectors:
    """Reads texts by one encoder, those that are wanted at the same time in one call.

    Belongs to one loop; only `known` may be asked from other threads.
    """

    def __init__(
        self, encoder: Encoder, metrics: Metrics, *, max_pending: int, max_kept: int = MAX_KEPT
    ) -> None:
        self._encoder = encoder
        self._metrics = metrics
        self._kept: LRUCache[bytes, Float32s] = LRUCache(max_kept)
        self._lock = Lock()
        self._batcher: Batcher[str, Float32s | ContractError] = Batcher(
            "texts", self._wanted, max_batch=MAX_TEXTS, max_pending=max_pending, metrics=metrics
        )

    async def of(self, text: str) -> Float32s:
        """Return the vector of a text, (dim,).

        Raises ContractError if the encoder fails at it, Overloaded or NotReady.
        """
        known = self.known(text)
        if known is not None:
            self._metrics.texts.labels("kept").inc()
            return known
        found = await self._batcher.submit(text)
        if isinstance(found, ContractError):
            raise found
        return found

    async def read(self, texts: Sequence[str]) -> dict[str, Float32s | ContractError]:
        """Return the vector of each text, or why the encoder has none, waiting for nobody else's.

        For work that nobody waits for: it takes no place in the queue of those who do.
        """
        known = {text: vector for text in texts if (vector := self.known(text)) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        self._metrics.texts.labels("kept").inc(len(texts) - len(new))
        if not new:
            return dict(known)
        began_s = perf_counter()
        found = await asyncio.to_thread(self._encoded, new)
        self._metrics.text_seconds.observe(perf_counter() - began_s)
        failed = sum(isinstance(one, ContractError) for one in found.values())
        self._metrics.texts.labels("failed").inc(failed)
        self._metrics.texts.labels("encoder").inc(len(found) - failed)
        return known | found

    def known(self, text: str) -> Float32s | None:
        """Return the vector of a text, (dim,), if it was read lately."""
        with self._lock:
            return self._kept.get(_key(text))

    async def close(self) -> None:
        """Let a running call finish and take no more."""
        await self._batcher.close()

    async def _wanted(self, texts: list[str]) -> list[Float32s | ContractError]:
        found = await self.read(texts)
        return [found[text] for text in texts]

    def _encoded(self, texts: Sequence[str]) -> dict[str, Float32s | ContractError]:
        """Return the vectors of texts, keeping them; if that fails, each text by itself."""
        try:
            vectors = self._encoder.encode(texts)
        except ContractError as exc:
            if len(texts) == 1:
                return {texts[0]: exc}
            apart = [self._encoded([text]) for text in texts]
            return {text: vector for one in apart for text, vector in one.items()}
        with self._lock:
            # Copies: a row would keep the whole batch in memory.
            own = {text: row.copy() for text, row in zip(texts, vectors, strict=True)}
            for text, row in own.items():
                self._kept[_key(text)] = row
        return dict(own)


def _key(text: str) -> bytes:
    """Return what stands for a text, of which some have thousands of characters."""
    return sha256(text.encode()).digest()
