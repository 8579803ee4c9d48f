"""Ways to find the items nearest to a query: what decision 20 chose, and what it chose it from.

Each gives a pool of `TAKEN` candidates; the exact rows decide among them, as in the service.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np

from service.allowed import AllBut
from service.contract.features import Float32s, Int64s
from service.item_index import ItemIndex
from training import item_index
from training.item_index import TAKEN, WANTED_RECALL, K

# A graph's links of an item, twice as many in its lowest layer, and how far an insertion looks.
LINKS, VISITED_BY_INSERTION = 16, 128
DEPTHS = (32, 64, 128, 256, 512, 1_024)


class Search(Protocol):
    """An index over the rows of a matrix, (num_items + 1, dim), row 0 unused."""

    depth_unit: str

    def tune(self, queries: Float32s) -> int:
        """Choose the least depth that finds WANTED_RECALL of the queries' best; return it."""

    def find(self, query: Float32s) -> Int64s:
        """Return the items, from 1, among which the K best of a query, (dim,), may be."""

    def save(self, path: Path) -> None:
        """Write the index; nothing where there is none."""


class Exact:
    """Every row, by NumPy."""

    depth_unit = "all"

    def __init__(self, matrix: Float32s, threads: int) -> None:
        del threads
        self._matrix = matrix

    def tune(self, queries: Float32s) -> int:
        """Look at all."""
        del queries
        return len(self._matrix) - 1

    def find(self, query: Float32s) -> Int64s:
        """Return the best themselves."""
        scores = self._matrix[1:] @ query
        return np.argpartition(scores, -K)[-K:] + 1

    def save(self, path: Path) -> None:
        """Write nothing: the rows are there whatever the search is."""


class Cells:
    """The project's: made as an export makes it, searched as the service does."""

    depth_unit = "cells"

    def __init__(self, matrix: Float32s, threads: int) -> None:
        self._matrix = matrix
        self._cells = item_index.build(matrix)
        self._allowed = AllBut(np.zeros(0, np.int64), len(matrix) - 1)
        self._index = ItemIndex(self._cells, 1)
        del threads

    def tune(self, queries: Float32s) -> int:
        """Choose the number of cells as an export does."""
        num_probes, _ = item_index.choose_probes(self._cells, self._matrix, queries)
        self._index = ItemIndex(self._cells, num_probes)
        return num_probes

    def find(self, query: Float32s) -> Int64s:
        """Ask the service's index for K items of all."""
        found = self._index.nearest(query, K, self._allowed)
        return np.zeros(0, np.int64) if found is None else found

    def save(self, path: Path) -> None:
        """Write what a bundle would hold."""
        faiss.write_index(self._cells, str(path))


class FaissGraph:
    """Faiss's HNSW over a byte a dimension."""

    depth_unit = "visited"

    def __init__(self, matrix: Float32s, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        self._matrix = matrix
        name = f"HNSW{LINKS},SQ8"
        self._graph = faiss.index_factory(matrix.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = VISITED_BY_INSERTION
        self._graph.train(matrix[1:])
        self._graph.add(matrix[1:])
        self._params = faiss.SearchParametersHNSW(efSearch=TAKEN)

    def tune(self, queries: Float32s) -> int:
        """Choose how many items a search visits."""
        return least_depth(self._look, self._matrix, queries)

    def find(self, query: Float32s) -> Int64s:
        """Return the nearest by their bytes."""
        faiss.omp_set_num_threads(1)
        found: Int64s = self._graph.search(query[None], TAKEN, params=self._params)[1][0]
        return found[found >= 0] + 1

    def save(self, path: Path) -> None:
        """Write the graph and the bytes."""
        faiss.write_index(self._graph, str(path))

    def _look(self, depth: int) -> Callable[[Float32s], Int64s]:
        self._params = faiss.SearchParametersHNSW(efSearch=depth)
        return self.find


class UsearchGraph:
    """Usearch's HNSW over a byte a dimension, by cosine: the vectors here have one length."""

    depth_unit = "visited"

    def __init__(self, matrix: Float32s, threads: int) -> None:
        from usearch.index import Index  # noqa: PLC0415  # the project does without it

        self._matrix = matrix
        self._graph: Any = Index(
            ndim=matrix.shape[1],
            metric="cos",
            dtype="i8",
            connectivity=LINKS,
            expansion_add=VISITED_BY_INSERTION,
        )
        self._graph.add(np.arange(1, len(matrix)), matrix[1:], threads=threads)

    def tune(self, queries: Float32s) -> int:
        """Choose how many items a search visits."""
        return least_depth(self._look, self._matrix, queries)

    def find(self, query: Float32s) -> Int64s:
        """Return the nearest by their bytes."""
        return np.asarray(self._graph.search(query, TAKEN, threads=1).keys, np.int64)

    def save(self, path: Path) -> None:
        """Write the graph and the bytes."""
        self._graph.save(str(path))

    def _look(self, depth: int) -> Callable[[Float32s], Int64s]:
        self._graph.expansion_search = depth
        return self.find


SEARCHES: Mapping[str, Callable[[Float32s, int], Search]] = {
    "exact": Exact,
    "faiss cells": Cells,
    "faiss HNSW": FaissGraph,
    "usearch HNSW": UsearchGraph,
}
NEEDS = {"usearch HNSW": "usearch"}


def is_installed(name: str) -> bool:
    """Say whether what a search needs beside the project is there."""
    return name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None


def best(matrix: Float32s, pool: Int64s, query: Float32s) -> Int64s:
    """Return the K best of a pool by their exact rows, in no order; all of a smaller one."""
    if len(pool) <= K:
        return pool
    scores = matrix[pool] @ query
    return pool[np.argpartition(scores, -K)[-K:]]


def exact_best(matrix: Float32s, queries: Float32s) -> list[Int64s]:
    """Return the K best items of each query."""
    exact = Exact(matrix, 1)
    return [exact.find(query) for query in queries]


def recall(answers: Sequence[Int64s], exact: Sequence[Int64s]) -> float:
    """Return the mean share of the exact best that is in the answers.

    >>> recall([np.array([1, 2, 3, 9])], [np.array([1, 2, 3, 4])])
    0.75
    """
    found = [np.isin(true, some).mean() for true, some in zip(exact, answers, strict=True)]
    return float(np.mean(found))


def least_depth(
    look: Callable[[int], Callable[[Float32s], Int64s]], matrix: Float32s, queries: Float32s
) -> int:
    """Return the least of DEPTHS at which a search finds WANTED_RECALL, or the greatest.

    `look` sets the depth of a search and returns its `find`; it is left at what is returned.
    """
    exact = exact_best(matrix, queries)
    for depth in DEPTHS:
        find = look(depth)
        if recall([find(query) for query in queries], exact) >= WANTED_RECALL:
            return depth
    return DEPTHS[-1]
