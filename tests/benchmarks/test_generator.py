"""The load generator: what it sends, and which answers it takes."""

import re

import pytest

from benchmarks.serving.generator import check, is_whole, randomly
from benchmarks.serving.requests import STAMP, BenchmarkFailed, Load, Request, Stamps, post
from benchmarks.serving.wrk import rate_of

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"items":1}'
RESULT = "Running 1s test\nRESULT requests=900 duration_us=1500000 bad={bad} failed={failed}\n"


def test_an_answer_is_whole_with_its_last_byte() -> None:
    """Answers come in pieces; the length is that of the body alone."""
    assert [is_whole(ANSWER[:end]) for end in (10, len(ANSWER) - 1, len(ANSWER))] == [
        False,
        False,
        True,
    ]


def test_an_answer_without_a_length_is_refused() -> None:
    """Its end could not be told."""
    with pytest.raises(BenchmarkFailed, match="without a length"):
        is_whole(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 503 No\r\n\r\n", b'HTTP/1.1 200 OK\r\n\r\n{"items":[]}']
)
def test_a_wrong_answer_ends_the_benchmark(answer: bytes) -> None:
    """A service that refuses, or answers nothing, would be the fastest of all."""
    with pytest.raises(BenchmarkFailed, match="a wrong answer"):
        check(answer, b'"items":[{')


def test_every_stamped_request_has_a_time_of_its_own() -> None:
    """An event that is there already is cheaper than a new one, so none is sent twice."""
    body = post("/v1/events", {"timestamp": STAMP})
    assert body.body == f'{{"timestamp":{STAMP}}}'
    sent = randomly(Load([body], ""), first_ms=1_700_000_000_000)
    times = [re.findall(rb"\d{13}", next(sent)) for _ in range(3)]
    assert times == [[b"1700000000001"], [b"1700000000002"], [b"1700000000003"]]


def test_times_are_given_out_once() -> None:
    """Also between two measurements of a run."""
    stamps = Stamps()
    first = stamps.take(10)
    assert stamps.take(1) == first + 10


def test_a_request_is_told_its_length() -> None:
    """In bytes, not in characters."""
    raw = Request("/v1/events", '{"é":1}').raw()
    assert b"POST /v1/events HTTP/1.1\r\n" in raw
    assert b"Content-Length: 8\r\n" in raw


def test_the_rate_is_answers_over_the_measured_time() -> None:
    """A run of wrk takes a little longer than it was told to."""
    assert rate_of(RESULT.format(bad=0, failed=0)) == 900 / 1.5


@pytest.mark.parametrize(("bad", "failed"), [(1, 0), (0, 1)])
def test_one_wrong_answer_of_wrk_is_no_rate(bad: int, failed: int) -> None:
    """As of our own generator."""
    output = RESULT.format(bad=bad, failed=failed) + "BAD 503 overloaded\n"
    with pytest.raises(BenchmarkFailed, match="the first: 503 overloaded"):
        rate_of(output)


def test_wrk_without_a_result_is_told_with_its_output() -> None:
    """It says itself that it could not connect."""
    with pytest.raises(BenchmarkFailed, match="unable to connect"):
        rate_of("unable to connect to 127.0.0.1:1 Connection refused\n")
