"""The bijection of ids and indices."""

from zlib import crc32

import numpy as np
import pytest

from service.contract.errors import ContractError
from service.contract.texts import PackedTexts
from service.contract.vocabulary import (
    MAX_DICT_IDS,
    PackedVocabulary,
    Vocabulary,
    id_crc,
    vocabulary_of,
)

# Two texts of one CRC-32, as any four bytes can be appended to reach it.
TWINS = ("plumless", "buckeroo")


def test_indices_start_at_one_and_unknown_ids_are_padding() -> None:
    """Row 0 of the item matrix is nobody."""
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.indices(["b", "x", "a"]).tolist() == [2, 0, 1]
    assert vocabulary.id(2) == "b"
    assert len(vocabulary) == 2
    assert "x" not in vocabulary


def test_padding_has_no_id() -> None:
    """Index 0 and indices past the end are bugs, not items."""
    for index in (0, 3, -1):
        with pytest.raises(ContractError, match="between 1 and 2"):
            Vocabulary(["a", "b"]).id(index)


@pytest.mark.parametrize("ids", [["a", "a"], [""]])
def test_repeated_and_empty_ids_are_refused(ids: list[str]) -> None:
    """Otherwise two rows would answer to one id."""
    with pytest.raises(ContractError, match="vocabulary"):
        Vocabulary(ids)


def test_a_packed_vocabulary_answers_as_a_dict_does() -> None:
    """It is chosen by the number of ids alone, so nothing else may depend on it."""
    numbers = np.random.default_rng(1).permutation(5_000)
    ids = [f"ä{number}" for number in numbers.tolist()]
    plain, packed = Vocabulary(ids), PackedVocabulary(PackedTexts.of(ids))
    # A lone surrogate comes from JSON, and is in no UTF-8.
    asked = [*ids[::7], "", "x", "\ud800", *(f"ä{number}" for number in range(4_990, 5_010))]
    assert packed.indices(asked).tolist() == plain.indices(asked).tolist()
    assert [*packed] == ids
    assert [packed.id(at) for at in (1, 5_000)] == [ids[0], ids[-1]]
    assert (len(packed), "x" in packed, ids[3] in packed, 3 in packed) == (
        5_000,
        False,
        True,
        False,
    )
    for index in (0, 5_001, -1):
        with pytest.raises(ContractError, match="between 1 and 5000"):
            packed.id(index)


def test_ids_of_one_checksum_are_told_apart() -> None:
    """A checksum only says where to look."""
    assert crc32(TWINS[0].encode()) == crc32(TWINS[1].encode())
    both = PackedVocabulary(PackedTexts.of(["x", *TWINS]))
    assert both.indices(TWINS).tolist() == [2, 3]
    one = PackedVocabulary(PackedTexts.of(["x", TWINS[0]]))
    assert one.indices(TWINS).tolist() == [2, 0]


def test_stated_checksums_take_the_place_of_working_them_out() -> None:
    """A bundle states them; an id with a wrong one, of another bucket, would not be found."""
    texts = PackedTexts.of(["ä", "b"])
    stated = np.array([id_crc("ä"), id_crc("b") ^ 1 << 31], np.uint32)
    assert PackedVocabulary(texts, stated).indices(["ä", "b"]).tolist() == [1, 0]


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", ""], [*TWINS, TWINS[0]]])
def test_a_packed_vocabulary_refuses_repeated_and_empty_ids(ids: list[str]) -> None:
    """As a dict does, and also of checksums that were stated."""
    for crcs in (None, np.array([id_crc(text) for text in ids], np.uint32)):
        with pytest.raises(ContractError, match="vocabulary"):
            PackedVocabulary(PackedTexts.of(ids), crcs)


def test_a_packed_vocabulary_is_extended_without_touching_the_first() -> None:
    """Requests that began before still use it."""
    first = PackedVocabulary(PackedTexts.of(["a", "b"]))
    longer = first.extended(["c"]).extended(["d"])
    assert longer.indices(["d", "a", "c", "x"]).tolist() == [4, 1, 3, 0]
    assert [*longer] == [longer.id(at) for at in (1, 2, 3, 4)] == ["a", "b", "c", "d"]
    assert (len(first), "c" in first) == (2, False)
    for known in ("a", "d"):
        with pytest.raises(ContractError, match="there already"):
            longer.extended([known])


def test_many_ids_are_packed_and_few_are_not() -> None:
    """A dict is the fastest, and 150 bytes an id."""
    many = [str(number) for number in range(MAX_DICT_IDS + 1)]
    assert type(vocabulary_of(PackedTexts.of(many))) is PackedVocabulary
    assert type(vocabulary_of(PackedTexts.of(many[1:]))) is Vocabulary


def test_packed_texts_are_the_texts() -> None:
    """None is not the empty text."""
    texts = ["a", None, "", "äé", None]
    packed = PackedTexts.of(texts)
    assert [*packed] == texts
    assert packed[1:4] == texts[1:4]
    with pytest.raises(IndexError):
        packed[5]
