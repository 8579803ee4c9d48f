import numpy as np

from service.contract.vocabulary import Vocabulary, item_hash
from service.retrieval import HashIndex, known_indices, retrieve

ITEMS = Vocabulary(["a", "b", "c"])


def test_without_a_list_the_candidates_are_the_catalogue() -> None:
    """Indices start at 1; 0 is padding and never a candidate."""
    found = retrieve(ITEMS, None)
    assert (found.known.first(9).tolist(), len(found.known), found.unknown) == ([1, 2, 3], 3, ())


def test_listed_candidates_count_once_and_unknown_ones_are_told_apart() -> None:
    """The caller's order is kept for the unknown ones: it is all there is to rank them by."""
    found = retrieve(ITEMS, ["z", "c", "y", "a", "c", "z"])
    assert (found.known.first(9).tolist(), found.unknown) == ([1, 3], ("z", "y"))


def test_ids_that_the_catalogue_lacks_have_no_index() -> None:
    """Excluding an unknown item is no mistake."""
    assert known_indices(ITEMS, ["z", "b"]).tolist() == [2]


def test_items_are_found_by_hash_and_strangers_are_not() -> None:
    """Seen sets hold hashes of ids, also of items that this bundle lacks."""
    index = HashIndex.of(np.array([item_hash(text) for text in ITEMS], np.uint64))
    hashes = np.array([item_hash("c"), item_hash("z"), item_hash("a"), 2**64 - 1], np.uint64)
    assert index.indices(hashes).tolist() == [3, 1]
    assert index.indices(np.zeros(0, np.uint64)).tolist() == []
