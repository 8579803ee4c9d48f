"""Many texts in one block of memory, without a Python object for each."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class PackedTexts(Sequence[str | None]):
    """Texts as Arrow lays them out: UTF-8 one after another, and where each begins.

    `data` is anything with bytes in it; `offsets` is (num_texts + 1,) int32 or int64; text i is
    `data[offsets[i] : offsets[i + 1]]`, or None where `is_null`, (num_texts,), says so.
    """

    def __init__(
        self, data: Any, offsets: NDArray[Any], is_null: NDArray[np.bool_] | None = None
    ) -> None:
        # As plain bytes: Arrow's are signed, and such compare one by one, at four times the cost.
        self._data = memoryview(data).cast("B")
        self.offsets = offsets
        # Of a memoryview an index is a plain int, and comes three times as fast as NumPy's.
        self._starts = np.ascontiguousarray(offsets).data
        self._is_null = None if is_null is None else is_null.data

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> "PackedTexts":
        """Pack texts."""
        pieces = [b"" if text is None else text.encode() for text in texts]
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        is_null = np.array([text is None for text in texts], np.bool_)
        return cls(b"".join(pieces), offsets, is_null if is_null.any() else None)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> str | None: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str | None]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str | None] | None:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        if self._is_null is not None and self._is_null[place]:
            return None
        return str(self.utf8(place), "utf-8")

    def utf8(self, place: int) -> memoryview:
        """Return the bytes of a text, none of one that is null."""
        return self._data[self._starts[place] : self._starts[place + 1]]

    def pieces(self) -> Iterator[memoryview]:
        """Return the bytes of every text."""
        data = self._data
        return (data[first:last] for first, last in pairwise(self._starts))
