"""Item vectors by item index: the bundle's mapped matrix, and rows of later items behind it."""

from threading import local

import numpy as np

from service.contract.features import Float32s, Int64s

# Products of so many queries and items are made at once, 16 MiB of them.
MAX_PRODUCTS = 4_000_000
# OpenBLAS makes a product of up to so many multiplications without copying the rows first, which
# for a few queries costs more than the product does.
MAX_UNCOPIED = 1_000_000


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
        # Each thread's memory for products, kept: fresh pages cost as much as what is put in them.
        self._kept = local()

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
        """Return the products of every row with query vectors, (len(self), queries).

        Those of a query are one after another in memory, for who looks at one query at a time.
        """
        return self._fill(np.empty((len(queries), len(self)), np.float32).T, queries)

    def passing_products(self, queries: Float32s) -> Float32s:
        """Return the same in memory that this thread's next call takes again."""
        size = len(self) * len(queries)
        kept: Float32s | None = getattr(self._kept, "products", None)
        if kept is None or len(kept) < size:
            kept = self._kept.products = np.empty(size, np.float32)
        return self._fill(kept[:size].reshape(len(self), len(queries)), queries)

    def _fill(self, products: Float32s, queries: Float32s) -> Float32s:
        columns = np.ascontiguousarray(queries.T)  # (dim, queries)
        step = max(1, MAX_UNCOPIED // max(1, columns.size))
        for start in range(0, self.num_mapped, step):
            rows = slice(start, min(start + step, self.num_mapped))
            np.matmul(self._mapped[rows], columns, out=products[rows])
        np.matmul(self.added, columns, out=products[self.num_mapped :])
        return products

    @property
    def batch_size(self) -> int:
        """Return of how many queries the products fit in a bounded memory, one at least."""
        return max(1, MAX_PRODUCTS // len(self))

    def likeness(self, vector: Float32s) -> Float32s:
        """Return the cosine of every row to a vector, (len(self),), 0 of a zero vector."""
        lengths = np.hstack([self._mapped_lengths(), np.linalg.norm(self.added, axis=1)])
        lengths = lengths * np.linalg.norm(vector)
        products = self.products(vector[None])[:, 0]
        lengths = np.where(lengths > 0, lengths, 1.0).astype(np.float32)
        cosines: Float32s = np.divide(products, lengths)
        return cosines

    def _mapped_lengths(self) -> Float32s:
        # Once: it reads the whole matrix.
        if self._lengths is None:
            self._lengths = np.linalg.norm(self._mapped, axis=1)
        return self._lengths
