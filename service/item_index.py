"""The bundle's index of nearest items, which says where in a large catalogue to look.

The only importer of faiss in the service, and only for a bundle that has an index: a small
catalogue pays nothing for it. The index holds each item's vector in a byte a dimension, sorted into
cells; a search reads the cells nearest to the query. What it finds is scored anew from the exact
rows, so that only membership is approximate, never a score.
"""

import math
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

# So many more than k, and half of k again, are taken: a byte a dimension errs in the order.
MARGIN = 40
# `num_probes` was chosen for lists of 10, of which so many are taken.
PROBED_FOR = 55
# Where a smaller share of what is nearest is allowed, the best lie too far off to be guessed at.
LEAST_NEAR = 0.1
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

    def nearest(self, query: Float32s, k: int, allowed: Allowed) -> Int64s | None:
        """Return allowed items among which the k best are likely to be, in no order.

        `query` is (dim,). None where what is allowed is not where the query looks: the best may
        then be anywhere.
        """
        taken = k + k // 2 + MARGIN
        near = self._search(query, taken, taken, None)
        kept = near[allowed.holds(near)]
        if len(kept) >= k + (taken - k) // 2:
            return kept
        if len(kept) < LEAST_NEAR * taken:
            return None
        # What is near says how far to go: of the taken ones a share is allowed.
        reach = taken * taken / len(kept)
        kept = self._search(query, taken, reach, self._selector(allowed))
        return kept if len(kept) == taken else None

    def _search(self, query: Float32s, count: int, reach: float, selector: Any) -> Int64s:
        """Return up to `count` items of the cells in which the best `reach` of all items are."""
        faiss = _faiss()
        # In proportion: measured for lists of 10 to 1,000.
        num_probes = min(self._cells.nlist, math.ceil(self._num_probes * reach / PROBED_FOR))
        # A worker has one core, and a search of a third of a millisecond is nothing to share. It
        # holds for the thread that says it.
        faiss.omp_set_num_threads(1)
        params = faiss.SearchParametersIVF(nprobe=num_probes, sel=selector)
        found = self._cells.search(query[None], count, params=params)[1][0]
        indices: Int64s = found[found > 0]
        return indices

    def _selector(self, allowed: Allowed) -> Any:
        """Return what tells faiss which items it may find."""
        faiss = _faiss()
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


def _faiss() -> Any:
    """Return faiss, which is loaded for the first bundle that has an index."""
    import faiss  # noqa: PLC0415  # a small catalogue is not to pay for it

    return faiss


def _open(path: Path) -> Any:
    try:
        faiss = _faiss()
    except ImportError as exc:
        raise ContractError(f"{path}: needs faiss-cpu, which is not installed: {exc}") from exc
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as exc:
        raise BundleMismatch(f"{path}: faiss cannot read it: {exc}") from exc
    if not isinstance(index, faiss.IndexIVF) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleMismatch(f"{path}: is no index of cells by inner product")
    return index
