"""The bundle's index of nearest items, which says where in a large catalogue to look.

The only importer of faiss in the service, and only for a bundle that has an index: a small
catalogue pays nothing for it. The index holds each item's vector in a byte a dimension, sorted into
cells; a search reads the cells nearest to the query. What it finds is scored anew from the exact
rows, so that only membership is approximate, never a score.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.allowed import AllBut, Allowed
from service.contract import bundle as contract
from service.contract.bundle import Manifest
from service.contract.errors import BundleMismatch, ContractError
from service.contract.features import Float32s, Int64s

if TYPE_CHECKING:
    import faiss

# `num_probes` was chosen for lists of so many.
PROBED_FOR = 10
# Up to here a set of dropped items is faster to ask than a bit for every item.
MAX_IN_SET = 1_000


class ItemIndex:
    """Finds the items nearest to a query among those that are allowed; thread-safe."""

    def __init__(self, cells: "faiss.IndexIVF", num_probes: int) -> None:
        self._cells = cells
        self._num_probes = num_probes

    @property
    def num_items(self) -> int:
        """Return how many items the index knows, 1 to this."""
        return int(self._cells.ntotal)

    def nearest(self, query: Float32s, count: int, allowed: Allowed) -> Int64s:
        """Return up to `count` allowed items that are likely the best, in no order.

        `query` is (dim,). Fewer come back where the cells that were read have no more.
        """
        import faiss  # noqa: PLC0415

        selector = self._selector(allowed)
        found = self._cells.search(
            query[None],
            count,
            params=faiss.SearchParametersIVF(nprobe=self._probes(count, allowed), sel=selector),
        )[1][0]
        indices: Int64s = found[found > 0]
        return indices

    def _probes(self, count: int, allowed: Allowed) -> int:
        """Return how many cells to read: more for long lists, and where few items are allowed.

        A list of k spreads over about k to the power of two thirds as many cells (measured up to
        1,000), and of items of which a share is allowed, the nearest are that much farther apart.
        """
        share = max(1, len(allowed)) / self.num_items
        longer = max(1.0, count / PROBED_FOR) ** (2 / 3)
        return min(int(self._cells.nlist), int(np.ceil(self._num_probes * longer / share)))

    def _selector(self, allowed: Allowed) -> Any:
        """Return what tells faiss which items it may find; None for all."""
        import faiss  # noqa: PLC0415

        if isinstance(allowed, AllBut) and not len(allowed.dropped):
            return None
        if isinstance(allowed, AllBut) and len(allowed.dropped) <= MAX_IN_SET:
            return faiss.IDSelectorNot(faiss.IDSelectorBatch(allowed.dropped))
        may = np.full(self.num_items + 1, isinstance(allowed, AllBut))
        marked = allowed.dropped if isinstance(allowed, AllBut) else allowed.indices
        may[marked[: np.searchsorted(marked, self.num_items, "right")]] ^= True
        return faiss.IDSelectorBitmap(np.packbits(may, bitorder="little"))


def read_item_index(bundle: Path, manifest: Manifest) -> ItemIndex | None:
    """Return a bundle's index, mapped into memory, or None if it has none.

    Raises BundleMismatch if it is not of this bundle's matrix, and ContractError without faiss.
    """
    spec = manifest.item_index
    if spec is None:
        return None
    path = bundle / contract.ITEM_INDEX_FILE
    if spec.matrix_sha256 != manifest.files[contract.ITEM_MATRIX_FILE]:
        raise BundleMismatch(f"{path}: was made of another item matrix; export the bundle again")
    cells = _open(path)
    expected = (manifest.num_items, manifest.features.dim)
    if (cells.ntotal, cells.d) != expected:
        raise BundleMismatch(
            f"{path}: holds {cells.ntotal} items of {cells.d} dimensions, the manifest says "
            f"{expected[0]} of {expected[1]}"
        )
    return ItemIndex(cells, spec.num_probes)


def _open(path: Path) -> Any:
    try:
        import faiss  # noqa: PLC0415
    except ImportError as exc:
        raise ContractError(f"{path}: needs faiss-cpu, which is not installed: {exc}") from exc
    # A worker has one core; a search of a third of a millisecond is nothing to share.
    faiss.omp_set_num_threads(1)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as exc:
        raise BundleMismatch(f"{path}: faiss cannot read it: {exc}") from exc
    if not isinstance(index, faiss.IndexIVF) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleMismatch(f"{path}: is no index of cells by inner product")
    return index
