"""The bijection of ids and indices."""

import pytest

from service.contract.errors import ContractError
from service.contract.vocabulary import Vocabulary


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
