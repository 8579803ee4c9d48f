import inspect

import pytest

from service import errors
from service.errors import InvalidRequest, Overloaded, ServiceError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ServiceError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_carries_what_a_problem_document_needs(kind: type[ServiceError]) -> None:
    """`problems.py` maps every error in one way, so none may lack a part."""
    error = kind("item matrix: 3 rows, not 4")
    assert error.message == str(error) == "item matrix: 3 rows, not 4"
    assert 400 <= error.status < 600
    assert error.slug == error.slug.lower().replace(" ", "-")
    assert error.title


def test_slugs_are_distinct() -> None:
    """A caller tells errors apart by the slug in the problem's type."""
    assert len({kind.slug for kind in KINDS}) == len(KINDS)


def test_only_a_caller_who_should_try_again_is_told_when() -> None:
    """An invalid request stays invalid; a full queue empties."""
    assert InvalidRequest("k is 0").retry_after_s is None
    assert Overloaded("full", retry_after_s=3).retry_after_s == 3
