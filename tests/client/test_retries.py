"""When a call is tried again, and when not."""

import email.utils
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sojourn_client import NoAnswer, RateLimited, Refused, Retries, Sojourn, Unavailable
from sojourn_client.http import retry_after_s
from sojourn_client.retries import jittered_s
from tests.client.answering import DOWN, LIST, LOST, Answering, event, problem

FINE = httpx.Response(200, json=LIST)
BUSY = problem(503, "overloaded", retry_after=1)


@pytest.mark.parametrize("failure", [LOST, DOWN, BUSY], ids=str)
def test_a_failure_that_passes_is_tried_again(failure: httpx.Response | Exception) -> None:
    """The caller need not know."""
    service = Answering(failure, failure, FINE)
    waits: list[float] = []
    with service.sojourn(sleep=waits.append) as client:
        assert client.recommend(user_id="anna").recommendation_id == "r-1"
    assert len(service.requests) == 3
    assert len(waits) == 2


def test_a_repeated_post_of_events_has_the_same_ids() -> None:
    """So the service knows it."""
    service = Answering(LOST)
    with service.sojourn() as client:
        client.post_events([event()])
    assert [request.content for request in service.requests] == [service.requests[0].content] * 2


@pytest.mark.parametrize("call", [lambda c: c.activate("v"), lambda c: c.roll_back()])
@pytest.mark.parametrize("failure", [LOST, BUSY], ids=str)
def test_a_switch_is_never_tried_again(
    call: Callable[[Sojourn], Any], failure: httpx.Response | Exception
) -> None:
    """A second rollback would go forth again."""
    service = Answering(failure)
    with service.sojourn() as client, pytest.raises((NoAnswer, Unavailable)):
        call(client)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "failure", [problem(503, "bundle-refused"), problem(500, "internal"), problem(404, "not-found")]
)
def test_what_will_not_pass_is_not_tried_again(failure: httpx.Response) -> None:
    """The service marks what is worth a retry with Retry-After."""
    service = Answering(failure)
    with service.sojourn() as client, pytest.raises(Refused):
        client.recommend()
    assert len(service.requests) == 1


def test_the_last_error_is_raised_after_the_last_try() -> None:
    """With what was said in it."""
    service = Answering(default=BUSY)
    with service.sojourn(sleep=lambda _: None) as client, pytest.raises(Unavailable):
        client.recommend()
    assert len(service.requests) == 4


def test_retry_after_is_waited_for_and_never_beyond_the_deadline() -> None:
    """A wait that would end too late is not begun."""
    waits: list[float] = []
    soon, late = problem(429, "rate-limited", retry_after=7), problem(429, "rate-limited")
    late.headers["Retry-After"] = "31"
    with Answering(soon, FINE).sojourn(sleep=waits.append) as client:
        client.recommend()
    refusing = Answering(late).sojourn(sleep=waits.append)
    with refusing as client, pytest.raises(RateLimited) as caught:
        client.recommend()
    assert waits == [7.0]
    assert caught.value.retry_after_s == 31


def test_retries_of_all_calls_have_one_budget() -> None:
    """Of 3, ten failing calls get three retries together: 10 + 3 requests."""
    service = Answering(default=LOST)
    with service.sojourn(retries=Retries(base_s=0, budget=3)) as client:
        for _ in range(10):
            with pytest.raises(NoAnswer):
                client.recommend()
    assert len(service.requests) == 13


def test_a_wait_is_drawn_between_nothing_and_twice_the_last_one() -> None:
    """With base 1 s and cap 5 s the third wait is below 4 s, and the hundredth below 5 s."""
    third = [jittered_s(1, 5, 3) for _ in range(2_000)]
    assert 0 <= min(third) < 0.2
    assert 3.8 < max(third) <= 4
    assert max(jittered_s(1, 5, 100) for _ in range(2_000)) <= 5


def test_retry_after_may_be_a_date() -> None:
    """RFC 9110 allows both; what is neither says nothing."""
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert retry_after_s(in_a_minute) == pytest.approx(60, abs=2)
    assert retry_after_s("soon") is None
    assert retry_after_s("5") == 5


def test_no_answer_says_whether_the_call_can_have_been_done() -> None:
    """Who switched a model wants to know."""
    for failure, was_sent in ((LOST, True), (DOWN, False)):
        with Answering(failure).sojourn() as client, pytest.raises(NoAnswer) as caught:
            client.roll_back()
        assert caught.value.was_sent is was_sent


@pytest.mark.parametrize("address", ["sojourn.test", "ftp://sojourn.test", ""])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    """Else it is found out in a thread."""
    with pytest.raises(ValueError, match="base_url"):
        Sojourn(address)
