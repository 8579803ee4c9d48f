"""What the serving benchmark makes of its measurements, worked by hand."""

import pytest

from benchmarks.serving.statistics import Arrivals, Spread, percentile, ratio


def test_a_ratio_is_taken_within_each_round() -> None:
    """A round in which the whole machine was slow must count as one round, not as two figures."""
    ours, theirs = Spread((50.0, 10.0, 60.0)), Spread((100.0, 20.0, 100.0))
    assert ratio(ours, theirs).rounds == (50 / 100, 10 / 20, 60 / 100)
    assert ratio(ours, theirs).median == 0.5


def test_rounds_that_do_not_match_have_no_ratio() -> None:
    """A round that one side lacks was not measured in turn."""
    with pytest.raises(ValueError, match="shorter"):
        ratio(Spread((1.0, 2.0)), Spread((1.0,)))


def test_a_spread_says_its_median_and_its_ends() -> None:
    """Of four rounds the median lies between the two in the middle."""
    document = Spread((4.0, 1.0, 2.0, 8.0)).document()
    assert document["median"] == (2 + 4) / 2
    assert (document["min"], document["max"]) == (1.0, 8.0)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (0.99, 10.0), (0.0, 1.0)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    """By nearest rank: of ten values the ninth is the first that 90 % do not pass."""
    assert percentile([float(value) for value in range(10, 0, -1)], share) == expected


def test_latency_counts_from_when_a_request_was_due() -> None:
    """A request that had to wait for its turn has waited, whenever it was sent in the end."""
    arrivals = Arrivals(due_s=[1.0, 2.0], sent_s=[1.0, 2.5], answered_s=[1.25, 3.0])
    assert arrivals.latencies_ms() == [250.0, 1_000.0]
    figures = arrivals.figures()
    assert figures["max_ms"] == 1_000.0
    assert figures["share_sent_late"] == 1 / 2
