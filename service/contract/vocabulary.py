"""Dense indices for outside ids: 0 is padding, known ids start at 1."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from service.contract.errors import ContractError
from service.contract.texts import PackedTexts

PADDING_INDEX = 0
ITEM_HASH_BYTES = 8
# A dict of more ids than these takes long to fill, and 135 bytes an id in every process.
MAX_DICT_IDS = 200_000
CRC_BITS = 32


def item_hash(item_id: str) -> int:
    """Return the 64-bit hash that stands for an item among those a user has seen.

    The first 8 bytes, little endian, of the SHA-1 of the id: the only hash that scripts inside
    Redis have, and nothing here needs to withstand an attacker.
    """
    digest = hashlib.sha1(item_id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:ITEM_HASH_BYTES], "little")


def id_crc(item_id: str) -> int:
    """Return the CRC-32 of an id's UTF-8, which says where a packed vocabulary has it."""
    return crc32(item_id.encode())


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
        _refuse_known(self, ids)
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
        found = map(self._index_of.get, texts, repeat(PADDING_INDEX))
        return np.fromiter(found, np.int64, len(texts))

    def id(self, index: int) -> str:
        """Return the id at an index from 1 to N; raises ContractError outside of it."""
        if not 1 <= index <= len(self._ids):
            raise ContractError(f"index {index} is not between 1 and {len(self._ids)}")
        return self._ids[index - 1]


class PackedVocabulary(Vocabulary):
    """The same bijection for many ids: they stay packed, and buckets of their CRC-32 find them.

    Every find compares the id itself, so ids of one bucket, or of one CRC, are never confused. Ids
    that came later are in a vocabulary of their own, a dict.

    `crcs` are the `id_crc` of each id, if they are known already, (len(texts),).
    """

    def __init__(self, texts: PackedTexts, crcs: NDArray[np.uint32] | None = None) -> None:
        self._texts = texts
        self._added = Vocabulary(())
        if not np.diff(texts.offsets).all():
            raise ContractError("vocabulary: an id is empty")
        count = len(texts)
        # As many buckets as ids, a power of two of them, each the range of one crc's first bits.
        bits = min(CRC_BITS, max(1, (count - 1).bit_length()))
        self._shift = CRC_BITS - bits
        if crcs is None:
            crcs = np.fromiter(map(crc32, texts.pieces()), np.uint32, count)
        order = np.argsort(crcs)
        self._refuse_repeated(crcs[order], order)
        starts = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(np.bincount(crcs >> self._shift, minlength=1 << bits), out=starts[1:])
        # Views whose elements are plain ints: a find reads a handful of them.
        self._starts = starts.data
        self._order = order.astype(np.int32).data

    def _refuse_repeated(self, sorted_crcs: NDArray[np.uint32], order: NDArray[np.int64]) -> None:
        """Raise ContractError if an id is there twice; only ids of one crc can be equal."""
        again = np.flatnonzero(sorted_crcs[1:] == sorted_crcs[:-1])
        members = np.union1d(again, again + 1)
        repeated = len(members) - len({bytes(self._texts.utf8(at)) for at in order[members]})
        if repeated:
            raise ContractError(f"vocabulary: {repeated} repeated ids")

    def extended(self, ids: Sequence[str]) -> "Vocabulary":
        """Return the bijection with more ids behind these; raises ContractError for a known one."""
        _refuse_known(self, ids)
        longer = PackedVocabulary.__new__(PackedVocabulary)
        longer.__dict__ |= self.__dict__ | {"_added": self._added.extended(ids)}
        return longer

    def __len__(self) -> int:
        return len(self._texts) + len(self._added)

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self.index(text) != PADDING_INDEX

    def __iter__(self) -> Iterator[str]:
        for piece in self._texts.pieces():
            yield str(piece, "utf-8")
        yield from self._added

    def index(self, text: str) -> int:
        """Return the index of an id, 0 if it is unknown."""
        # Of a lone surrogate, which no id has, come bytes that are no UTF-8 and so are not found.
        raw = text.encode(errors="surrogatepass")
        bucket = crc32(raw) >> self._shift
        for at in self._order[self._starts[bucket] : self._starts[bucket + 1]]:
            if self._texts.utf8(at) == raw:
                return at + 1
        added = self._added.index(text)
        return added + len(self._texts) if added else PADDING_INDEX

    def indices(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the indices of ids, (len(texts),) int64, 0 where unknown."""
        return np.array([self.index(text) for text in texts], dtype=np.int64)

    def id(self, index: int) -> str:
        """Return the id at an index from 1 to N; raises ContractError outside of it."""
        if not 1 <= index <= len(self):
            raise ContractError(f"index {index} is not between 1 and {len(self)}")
        if index > len(self._texts):
            return self._added.id(index - len(self._texts))
        return str(self._texts.utf8(index - 1), "utf-8")


def vocabulary_of(texts: PackedTexts, crcs: NDArray[np.uint32] | None = None) -> Vocabulary:
    """Return the vocabulary of ids in the way that suits their number."""
    if len(texts) > MAX_DICT_IDS:
        return PackedVocabulary(texts, crcs)
    return Vocabulary(str(piece, "utf-8") for piece in texts.pieces())


def _refuse_known(vocabulary: Vocabulary, ids: Sequence[str]) -> None:
    known = [text for text in ids if text in vocabulary]
    if known:
        raise ContractError(f"vocabulary: {known[0]!r} is there already")
