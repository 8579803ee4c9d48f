"""The index of nearest items in a large catalogue's bundle: made, and judged by what it finds.

The only importer of faiss in training. Item vectors are sorted into cells by k-means and kept in a
byte a dimension; how many cells a search reads is the least that finds nearly all of the exact best
for query vectors of the log. Where no number does, there is no index, and the service looks at
every item.
"""

import logging
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from service.contract import bundle as contract
from service.contract.features import Float32s, Int64s, RequestPoint, encode_windows
from training.data import MS_PER_HOUR
from training.dataset import past_window
from training.runs import LoadedRun
from training.scorers import OnnxScorer

# With fewer items, looking at all of them takes no longer than the rest of a request.
MIN_ITEMS = 200_000
# Cells per square root of the number of items, and vectors per cell that k-means looks at.
CELLS_PER_ROOT = 8
SAMPLED_PER_CELL = 32
PROBES = (8, 16, 32, 64, 128, 256)
# Aimed at on the queries of the log, so that others come out above the least that will do.
WANTED_RECALL, LEAST_RECALL = 0.995, 0.99
NUM_QUERIES = 500
QUERIES_AT_ONCE = 32
K = 10
# As the service does: its exact scores decide among these.
TAKEN = 55

log = logging.getLogger(__name__)


def write_item_index(
    loaded: LoadedRun, folder: Path, *, min_items: int = MIN_ITEMS
) -> contract.ItemIndexSpec | None:
    """Write the index beside a bundle's encoder and matrix; returns None if there is to be none."""
    if loaded.inputs.events.num_items < min_items:
        return None
    matrix = np.load(folder / contract.ITEM_MATRIX_FILE)
    queries = queries_of_log(loaded, folder / contract.ENCODER_FILE, matrix)
    return write_index_of(matrix, queries, folder)


def write_index_of(
    matrix: Float32s, queries: Float32s, folder: Path
) -> contract.ItemIndexSpec | None:
    """Write the index of a bundle's matrix, judged on query vectors, (cases, dim).

    Returns None, and writes nothing, if it finds too few of their ten best.
    """
    cells = build(matrix)
    num_probes, recall = choose_probes(cells, matrix, queries)
    if recall < LEAST_RECALL:
        log.warning(
            "no item index: %d of %d cells hold %.1f %% of the ten best, wanted is %.1f %%",
            num_probes,
            cells.nlist,
            100 * recall,
            100 * LEAST_RECALL,
        )
        return None
    faiss.write_index(cells, str(folder / contract.ITEM_INDEX_FILE))
    return contract.ItemIndexSpec(
        matrix_sha256=contract.file_sha256(folder / contract.ITEM_MATRIX_FILE),
        num_cells=cells.nlist,
        num_probes=num_probes,
        recall_at_10=recall,
        num_queries=len(queries),
    )


def build(matrix: Float32s) -> Any:
    """Return the index of an item matrix's rows but row 0, under their own numbers."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    num_items, dim = len(matrix) - 1, matrix.shape[1]
    num_cells = min(num_cells_for(num_items), num_items)
    cells = faiss.index_factory(dim, f"IVF{num_cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    cells.cp.min_points_per_centroid = 1
    cells.cp.max_points_per_centroid = SAMPLED_PER_CELL
    cells.train(matrix[1:])
    cells.add_with_ids(matrix[1:], np.arange(1, num_items + 1))
    return cells


def num_cells_for(num_items: int) -> int:
    """Return a power of two near CELLS_PER_ROOT · √num_items.

    >>> num_cells_for(1_000_000)
    8192
    """
    return int(2 ** np.round(np.log2(CELLS_PER_ROOT * np.sqrt(num_items))))


def queries_of_log(loaded: LoadedRun, encoder: Path, matrix: Float32s) -> Float32s:
    """Return the query vectors, (cases, dim), of users an hour after their last event but one."""
    events, window_len = loaded.inputs.events, loaded.model.config.window_len
    rows = events.user_starts[1:] - 1
    rows = rows[:: -(-len(rows) // NUM_QUERIES)]
    windows = [past_window(events, int(row), window_len) for row in rows]
    windows = [window for window in windows if len(window)]
    points = [RequestPoint(int(window.timestamps_ms[-1]) + MS_PER_HOUR) for window in windows]
    return OnnxScorer(encoder, matrix).queries(encode_windows(windows, points, window_len))


def choose_probes(cells: Any, matrix: Float32s, queries: Float32s) -> tuple[int, float]:
    """Return how many cells to read, and the recall of the exact ten best that this gives."""
    exact = _exact_best(matrix, queries)
    num_probes, recall = 0, 0.0
    for tried in PROBES:
        num_probes = min(tried, cells.nlist)
        params = faiss.SearchParametersIVF(nprobe=num_probes)
        taken = cells.search(queries, TAKEN, params=params)[1]
        recall = _recall(taken, exact)
        if recall >= WANTED_RECALL:
            break
    return num_probes, recall


def _exact_best(matrix: Float32s, queries: Float32s) -> Int64s:
    """Return the K best items of each query, (queries, K), in no order."""
    best = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        scores = queries[start : start + QUERIES_AT_ONCE] @ matrix[1:].T
        best.append(np.argpartition(scores, -K, axis=1)[:, -K:] + 1)
    return np.vstack(best)


def _recall(taken: Int64s, exact: Int64s) -> float:
    found = [np.isin(best, some).mean() for best, some in zip(exact, taken, strict=True)]
    return float(np.mean(found))
