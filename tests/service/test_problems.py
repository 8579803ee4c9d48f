import json
from typing import ClassVar

import pytest

from service.errors import BodyTooLarge, FieldError, InvalidRequest, Overloaded, ServiceError
from service.problems import (
    FieldProblem,
    field_problems,
    internal_problem,
    printable,
    problem_response,
    service_problem,
    shown,
)


class Renamed(ServiceError):
    """An error of the tree that no handler has heard of."""

    status: ClassVar[int] = 409
    slug: ClassVar[str] = "renamed"
    title: ClassVar[str] = "Renamed"


def test_an_error_of_the_tree_is_rendered_from_what_it_says_itself() -> None:
    """A new error needs no change here."""
    response = service_problem(Renamed("item 7 is item 8 now"))
    assert (response.status_code, response.media_type) == (409, "application/problem+json")
    assert json.loads(bytes(response.body)) == {
        "type": "urn:sojourn:problem:renamed",
        "title": "Renamed",
        "status": 409,
        "detail": "item 7 is item 8 now",
        "instance": None,
    }


def test_an_overload_says_when_to_come_back() -> None:
    """In whole seconds, as the header wants."""
    response = service_problem(Overloaded("full", retry_after_s=7))
    assert response.headers["retry-after"] == "7"


def test_an_error_that_waiting_does_not_mend_has_no_retry_after() -> None:
    """A client would try for ever."""
    response = service_problem(BodyTooLarge("too large"))
    assert "retry-after" not in response.headers
    assert response.headers["connection"] == "close"


def test_wrong_fields_of_an_invalid_request_are_listed() -> None:
    """Also those that the recommender finds."""
    error = InvalidRequest("no", errors=[FieldError("k", "must be less")])
    body = json.loads(bytes(service_problem(error).body))
    assert body["errors"] == [{"field": "k", "value": "", "fix": "must be less"}]


def test_a_bug_says_nothing_about_itself() -> None:
    """What went wrong is for the log."""
    body = json.loads(bytes(internal_problem().body))
    assert set(body) == {"type", "title", "status", "detail", "instance"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (None, "null"),
        (True, "true"),
        (0, "0"),
        ("ten", "'ten'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_values_are_shown_as_printable_text(value: object, text: str) -> None:
    """Numbers that JSON lacks and half characters included."""
    assert shown(value) == text


def test_a_long_value_is_cut() -> None:
    """A caller knows what was sent; the log and the answer need not hold a megabyte of it."""
    assert len(shown("x" * 10_000)) == 80


def test_half_a_character_can_be_sent_back() -> None:
    """UTF-8 has no lone surrogates, yet JSON lets a client write one."""
    assert printable("a\ud800") == r"a\ud800"
    assert problem_response(422, "x", "\ud800").body


def test_at_most_20_wrong_fields_are_listed() -> None:
    """A thousand wrong candidates are wrong for one reason."""
    errors = [{"loc": ("body", "k", n), "msg": "m", "type": "t", "input": n} for n in range(50)]
    found = field_problems(errors)
    assert len(found) == 20
    assert found[1] == FieldProblem(field="k.1", value="1", fix="m")
