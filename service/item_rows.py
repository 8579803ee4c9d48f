"""Item vectors by item index: the bundle's mapped matrix, and rows of later items behind it."""

import numpy as np

from service.contract.features import Float32s, Int64s

# Products of so many queries and items are made at once, 16 MiB of them.
MAX_PRODUCTS = 4_000_000


class ItemRows:
    """The rows of all items, (num_items + 1, dim) with row 0 unused; thread-safe.

    Items that came after the bundle are further rows, `added`, (num_added, dim), beside the mapped
    matrix rather than in a copy of it.
    """

    def __init__(
        self, mapped: Float32s, added: Float32s | None = None, lengths: Float32s | None = None
    ) -> None:
        # A plain view of the mapped file: products of a memmap would be memmaps too.
        self._mapped = np.asarray(mapped)
        self.added = self._mapped[:0] if added is None else added
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._mapped) + len(self.added)

    @property
    def num_mapped(self) -> int:
        """Return how many rows the bundle has, row 0 among them."""
        return len(self._mapped)

    def extended(self, added: Float32s) -> "ItemRows":
        """Return the same mapped rows with these behind them."""
        return ItemRows(self._mapped, added, self._mapped_lengths())

    def of(self, indices: Int64s) -> Float32s:
        """Return the rows of items, (len(indices), dim), as a copy."""
        if not len(self.added):
            rows: Float32s = self._mapped[indices]
            return rows
        behind = indices >= self.num_mapped
        rows = self._mapped[np.where(behind, 0, indices)]
        rows[behind] = self.added[indices[behind] - self.num_mapped]
        return rows

    def products(self, queries: Float32s) -> Float32s:
        """Return the products of query vectors with every row, (queries, len(self))."""
        mapped: Float32s = queries @ self._mapped.T
        return np.hstack([mapped, queries @ self.added.T]) if len(self.added) else mapped

    def batches(self, queries: Float32s) -> list[Float32s]:
        """Return the queries in parts whose products fit in a bounded memory, one at least."""
        size = max(1, MAX_PRODUCTS // len(self))
        return [queries[start : start + size] for start in range(0, len(queries), size)]

    def likeness(self, vector: Float32s) -> Float32s:
        """Return the cosine of every row to a vector, (len(self),), 0 of a zero vector."""
        lengths = np.hstack([self._mapped_lengths(), np.linalg.norm(self.added, axis=1)])
        lengths = lengths * np.linalg.norm(vector)
        products = self.products(vector[None])[0]
        cosines: Float32s = products / np.where(lengths > 0, lengths, 1.0).astype(np.float32)
        return cosines

    def _mapped_lengths(self) -> Float32s:
        # Once: it reads the whole matrix.
        if self._lengths is None:
            self._lengths = np.linalg.norm(self._mapped, axis=1)
        return self._lengths
