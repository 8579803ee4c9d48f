"""The index of nearest items, as training makes it and the service asks it, against brute force."""

import json
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.allowed import AllBut, Allowed, Only
from service.bundle_loader import load_bundle
from service.contract import bundle as contract
from service.contract.features import Float32s, Int64s
from service.errors import BundleRefused
from service.item_index import ItemIndex
from service.item_rows import ItemRows
from service.nearest import MAX_GATHERED, Bonus, Question, best_of
from service.ordering import top_k
from tests.builders import ITEM_ROWS, make_bundle
from training.item_index import build, choose_probes

DIM, NUM_CENTRES = 32, 200
# More than may be gathered beside an index, so that lists of most items are searched too.
NUM_ITEMS = 2 * MAX_GATHERED
NOTHING = np.zeros(0, np.int64)


def unit(rows: Float32s) -> Float32s:
    """Return rows of length 1, as the encoder's are."""
    scaled: Float32s = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def near(centres: Float32s, rng: np.random.Generator) -> Float32s:
    """Return a point near each centre: noise of .7 of its length."""
    noise = rng.standard_normal(centres.shape, np.float32)
    return unit(centres + noise * np.float32(0.7 / DIM**0.5))


@dataclass(frozen=True)
class Made:
    """A clustered catalogue with its index, queries near items, and later rows."""

    rows: ItemRows
    index: ItemIndex
    queries: Float32s
    added: Float32s

    def brute(self, rows: ItemRows, question: Question) -> Int64s:
        """Return the exact best by looking at every row."""
        every = np.arange(1, len(rows))
        may = every[question.allowed.holds(every)]
        scores = (rows.of(may) @ question.query) + question.bonus.of_each(may)
        return top_k(may, scores, question.k)[0]

    def recall(self, rows: ItemRows, questions: list[Question]) -> float:
        """Return the share of the exact best that is found."""
        found = best_of(rows, self.index, questions)
        return float(
            np.mean(
                [
                    np.isin(self.brute(rows, question), best).mean()
                    for question, (best, _) in zip(questions, found, strict=True)
                ]
            )
        )


def top_k_of(made: Made, query: Float32s, k: int) -> Int64s:
    """Return the items nearest to a query."""
    nearest: Int64s = np.argsort(-made.rows.products(query[None])[1:, 0])[:k] + 1
    return nearest


@pytest.fixture(scope="module")
def made() -> Made:
    """A catalogue of 65,536 items around 200 centres."""
    rng = np.random.default_rng(1)
    centres = unit(rng.standard_normal((NUM_CENTRES, DIM), np.float32))
    items = near(centres[rng.integers(NUM_CENTRES, size=NUM_ITEMS)], rng)
    matrix = np.vstack([np.zeros((1, DIM), np.float32), items])
    queries = near(items[rng.integers(NUM_ITEMS, size=200)], rng) * np.float32(20)
    cells = build(matrix)
    num_probes, recall = choose_probes(cells, matrix, queries)
    assert recall >= 0.995
    added = near(centres[:50], rng)
    return Made(ItemRows(matrix), ItemIndex(cells, num_probes), queries, added)


def everything(rows: ItemRows, dropped: Int64s = NOTHING) -> Allowed:
    """Return all items but some."""
    return AllBut(np.unique(dropped), len(rows) - 1)


def question(
    query: Float32s, allowed: Allowed, k: int = 10, bonus: Bonus | None = None
) -> Question:
    """Return a question without a bonus, unless one is given."""
    return Question(query, bonus or Bonus.nothing(), allowed, k)


def test_ten_of_a_large_catalogue_are_the_exact_ten(made: Made) -> None:
    """At least 99 of a hundred, and each with its exact score."""
    asked = [question(query, everything(made.rows)) for query in made.queries]
    assert made.recall(made.rows, asked) >= 0.99
    best, scores = best_of(made.rows, made.index, asked[:1])[0]
    np.testing.assert_allclose(scores, made.rows.of(best) @ made.queries[0], rtol=1e-6)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("k", [1, 100, 1000])
def test_short_and_long_lists_are_found_too(made: Made, k: int) -> None:
    """A long list lies in more cells, and more are read for it."""
    asked = [question(query, everything(made.rows), k) for query in made.queries[:40]]
    assert made.recall(made.rows, asked) >= 0.99


@pytest.mark.parametrize("num_dropped", [200, 5_000])
def test_what_was_dropped_is_never_found_and_others_take_its_place(
    made: Made, num_dropped: int
) -> None:
    """Somebody saw just what is nearest; both ways to tell the index so."""
    asked = []
    for query in made.queries[:40]:
        nearest = np.argsort(-made.rows.products(query[None])[:, 0])[:num_dropped]
        asked.append(question(query, everything(made.rows, nearest[nearest > 0])))
    found = best_of(made.rows, made.index, asked)
    assert all(
        one.allowed.holds(best).all() and len(best) == 10
        for one, (best, _) in zip(asked, found, strict=True)
    )
    assert made.recall(made.rows, asked) >= 0.99


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_filter_holds_and_finds_the_best_that_fit(made: Made, share: float) -> None:
    """From gathering few rows to searching among many."""
    rng = np.random.default_rng(2)
    fits = rng.random(len(made.rows)) < share
    allowed = everything(made.rows).fitting(fits)
    asked = [question(query, allowed) for query in made.queries[:40]]
    for best, _ in best_of(made.rows, made.index, asked):
        assert fits[best].all()
    assert made.recall(made.rows, asked) >= 0.99


def test_a_search_that_comes_back_short_looks_at_every_item(made: Made) -> None:
    """All that is allowed is on the far side of the catalogue: no cell that is read has any."""
    query = made.queries[0]
    products = made.rows.products(query[None])[:, 0]
    far = np.sort(np.argsort(products[1:])[: NUM_ITEMS * 6 // 10] + 1)
    one = question(query, Only(far))
    assert made.index.nearest(query, 10, one.allowed) is None
    best, _ = best_of(made.rows, made.index, [one])[0]
    assert best.tolist() == made.brute(made.rows, one).tolist()


def test_a_windows_own_items_are_found_by_their_bonus(made: Made) -> None:
    """However far from the query: the index knows nothing of the bonus."""
    query = made.queries[0]
    farthest = np.argsort(made.rows.products(query[None])[:, 0])[:2]
    bonus = Bonus(np.array([0, *farthest]), np.full(3, 1000, np.float32))
    best, _ = best_of(made.rows, made.index, [question(query, everything(made.rows), bonus=bonus)])[
        0
    ]
    assert set(best[:2].tolist()) == set(farthest.tolist())
    dropped = question(query, everything(made.rows, farthest), bonus=bonus)
    assert not np.isin(farthest, best_of(made.rows, made.index, [dropped])[0][0]).any()


def test_own_items_that_lose_by_their_bonus_leave_their_places(made: Made) -> None:
    """Where nobody comes back, a window's items are the nearest and score low."""
    asked = []
    for query in made.queries[:50]:
        nearest = top_k_of(made, query, 60)
        bonus = Bonus(nearest, np.full(len(nearest), -400, np.float32))
        asked.append(question(query, everything(made.rows), bonus=bonus))
    assert made.recall(made.rows, asked) >= 0.99


def test_items_that_came_later_are_found_at_once(made: Made) -> None:
    """They are rows behind those that the index knows, scored beside it."""
    rows = made.rows.extended(made.added)
    new = np.arange(NUM_ITEMS + 1, len(rows))
    asked = [question(vector, everything(rows)) for vector in made.added]
    found = best_of(rows, made.index, asked)
    assert [int(best[0]) for best, _ in found] == new.tolist()
    withheld = [question(vector, everything(rows, new)) for vector in made.added]
    assert max(int(best.max()) for best, _ in best_of(rows, made.index, withheld)) <= NUM_ITEMS


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_without_an_index_the_best_are_those_of_a_full_sort(
    made: Made, data: st.DataObject
) -> None:
    """Whatever is allowed, and however it is written: exact is exact."""
    size = data.draw(st.integers(1, 300))
    rows = ItemRows(np.asarray(made.rows.of(np.arange(size + 1))), made.added[:3])
    items = st.integers(1, len(rows) - 1)
    some = np.array(sorted(data.draw(st.sets(items))), np.int64)
    allowed = Only(some) if data.draw(st.booleans()) else everything(rows, some)
    window = np.array(data.draw(st.lists(st.integers(0, size), max_size=5)), np.int64)
    bonus = Bonus(window, np.ones(len(window), np.float32))
    one = question(made.queries[0], allowed, data.draw(st.integers(0, 20)), bonus)
    assert best_of(rows, None, [one])[0][0].tolist() == made.brute(rows, one).tolist()


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A tiny bundle with an index, to be damaged."""

    def write(folder: Path) -> None:
        matrix = np.load(folder / contract.ITEM_MATRIX_FILE)
        faiss.write_index(build(matrix), str(folder / contract.ITEM_INDEX_FILE))

    return make_bundle(tmp_path / "indexed", change_files=write, item_index={"num_probes": 6})


def test_a_bundle_with_an_index_loads_and_ranks(indexed: Path) -> None:
    """Its version covers the index, as every file."""
    loaded = load_bundle(indexed)
    assert loaded.manifest.item_index is not None
    assert contract.ITEM_INDEX_FILE in loaded.manifest.files


def test_an_index_of_another_matrix_is_refused(tmp_path: Path) -> None:
    """It would look in the wrong places and nobody would notice."""

    def write(folder: Path) -> None:
        matrix = np.load(folder / contract.ITEM_MATRIX_FILE)[: len(ITEM_ROWS)]
        faiss.write_index(build(matrix), str(folder / contract.ITEM_INDEX_FILE))

    with pytest.raises(BundleRefused, match="holds 5 items of 3 dimensions, the manifest says 6"):
        load_bundle(make_bundle(tmp_path / "a", change_files=write, item_index={}))
    other = {"matrix_sha256": "0" * 64}
    with pytest.raises(BundleRefused, match="was made of another item matrix"):
        load_bundle(make_bundle(tmp_path / "b", change_files=write, item_index=other))


def test_an_index_that_is_none_is_refused(tmp_path: Path) -> None:
    """It has the hash that the manifest states, and is something else all the same."""

    def write(folder: Path) -> None:
        (folder / contract.ITEM_INDEX_FILE).write_bytes(b"no index at all")

    with pytest.raises(BundleRefused, match="faiss cannot read it"):
        load_bundle(make_bundle(tmp_path, change_files=write, item_index={}))


def test_a_manifest_that_names_an_index_needs_its_hash(indexed: Path) -> None:
    """A file without a hash could be anything."""
    path = indexed / contract.MANIFEST_FILE
    document = json.loads(path.read_text("utf-8"))
    del document["files"][contract.ITEM_INDEX_FILE]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleRefused, match=r"names no hash of item_index\.faiss"):
        load_bundle(indexed)
