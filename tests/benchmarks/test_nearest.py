"""The searches that the comparison of decision 20 is made of."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from benchmarks import nearest
from benchmarks.serving import searches
from benchmarks.serving.bundles import clustered_vectors
from service.contract.features import Float32s, Int64s

NUM_ITEMS, DIM = 2_000, 64
INSTALLED = [name for name in searches.SEARCHES if searches.is_installed(name)]


@pytest.fixture(scope="module")
def matrix() -> Float32s:
    """Return the vectors of a small made-up catalogue; row 0 is no item."""
    vectors = clustered_vectors(NUM_ITEMS, DIM)
    return np.vstack([np.zeros((1, DIM), np.float32), vectors])


@pytest.mark.parametrize("name", INSTALLED)
def test_every_search_finds_what_is_nearest(name: str, matrix: Float32s, tmp_path: Path) -> None:
    """Its numbers are items' indices from 1; one that is off by one would find next to nothing."""
    made = nearest.make(name, matrix, nearest.queries(matrix, 1), tmp_path)
    asked = nearest.queries(matrix, 2)
    answers = [searches.best(matrix, made.search.find(query), query) for query in asked]
    assert searches.recall(answers, searches.exact_best(matrix, asked)) > 0.98


def test_the_exact_search_takes_no_memory_of_its_own(matrix: Float32s, tmp_path: Path) -> None:
    """Every search needs the rows, since they decide; an index comes beside them."""
    asked = nearest.queries(matrix, 2)
    made = {name: nearest.make(name, matrix, asked, tmp_path) for name in ("exact", "faiss cells")}
    rows = nearest.measure(made, matrix, asked, rounds=1)
    assert rows["exact"]["mb_per_million"] == 0
    assert rows["exact"]["recall_at_10"] == 1
    # A byte a dimension, and an id of 8.
    assert rows["faiss cells"]["mb_per_million"] > DIM + 8


def test_the_exact_rows_decide_among_the_candidates() -> None:
    """Of items 1 to 12 with scores 1 to 12 the ten best are 3 to 12, whatever order they have."""
    matrix = np.arange(13, dtype=np.float32)[:, None]
    found = searches.best(matrix, np.array([12, 1, *range(2, 12)]), np.ones(1, np.float32))
    assert sorted(found) == [*range(3, 13)]
    assert sorted(searches.best(matrix, np.array([2, 1]), np.ones(1, np.float32))) == [1, 2]


def test_the_least_depth_that_finds_enough_is_chosen() -> None:
    """This search finds all at a depth of 128; one that never does is left at the greatest."""
    matrix = np.arange(51, dtype=np.float32)[:, None]
    query = np.ones((1, 1), np.float32)
    tried: list[int] = []

    def all_from(enough: int, depth: int) -> Int64s:
        tried.append(depth)
        return np.arange(41, 51) if depth >= enough else np.arange(1, 11)

    chosen = searches.least_depth(lambda depth: lambda _: all_from(128, depth), matrix, query)
    assert (chosen, tried) == (128, [32, 64, 128])
    never = searches.least_depth(lambda depth: lambda _: all_from(9_999, depth), matrix, query)
    assert never == searches.DEPTHS[-1]


def test_the_example_in_the_docstring_holds() -> None:
    """It is what a reader looks at first."""
    assert doctest.testmod(searches).failed == 0
