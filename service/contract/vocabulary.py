"""Dense indices for outside ids: 0 is padding, known ids start at 1."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.contract.errors import ContractError

PADDING_INDEX = 0
ITEM_HASH_BYTES = 8


def item_hash(item_id: str) -> int:
    """Return the 64-bit hash that stands for an item among those a user has seen.

    The first 8 bytes, little endian, of the SHA-1 of the id: the only hash that scripts inside
    Redis have, and nothing here needs to withstand an attacker.
    """
    digest = hashlib.sha1(item_id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:ITEM_HASH_BYTES], "little")


class Vocabulary:
    """A frozen bijection between string ids and the indices 1…N, in the order given.

    Raises ContractError if an id is empty or appears twice.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids: tuple[str, ...] = tuple(ids)
        self._index_of = {text: position for position, text in enumerate(self._ids, start=1)}
        if len(self._index_of) != len(self._ids):
            raise ContractError(f"vocabulary: {len(self._ids) - len(self._index_of)} repeated ids")
        if "" in self._index_of:
            raise ContractError("vocabulary: an id is empty")

    def extended(self, ids: Sequence[str]) -> "Vocabulary":
        """Return the bijection with more ids behind these; raises ContractError for a known one."""
        longer = Vocabulary(ids)
        known = [text for text in ids if text in self._index_of]
        if known:
            raise ContractError(f"vocabulary: {known[0]!r} is there already")
        first = len(self._ids) + 1
        longer._index_of = self._index_of | {text: at for at, text in enumerate(ids, start=first)}
        longer._ids = (*self._ids, *ids)
        return longer

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, text: object) -> bool:
        return text in self._index_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def index(self, text: str) -> int:
        """Return the index of an id, 0 if it is unknown."""
        return self._index_of.get(text, PADDING_INDEX)

    def indices(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the indices of ids, (len(texts),) int64, 0 where unknown."""
        found = [self._index_of.get(text, PADDING_INDEX) for text in texts]
        return np.array(found, dtype=np.int64)

    def id(self, index: int) -> str:
        """Return the id at an index from 1 to N; raises ContractError outside of it."""
        if not 1 <= index <= len(self._ids):
            raise ContractError(f"index {index} is not between 1 and {len(self._ids)}")
        return self._ids[index - 1]
