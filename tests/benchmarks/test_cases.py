"""What the parts of a run make of what they measured."""

import pytest

from benchmarks.serving.cases import share_kept
from benchmarks.serving.metrics import encoded_windows_in
from service.metrics import Metrics


def test_counts_are_read_from_the_services_own_metrics() -> None:
    """By the names that the service gives them."""
    metrics = Metrics()
    metrics.encoded_windows.labels("kept").inc(3)
    text = metrics.render()[0].decode()
    assert encoded_windows_in(text) == {"encoder": 0.0, "kept": 3.0}


@pytest.mark.parametrize(("kept", "encoder", "share"), [(30, 10, 0.75), (0, 5, 0.0), (0, 0, 0.0)])
def test_the_share_is_of_what_came_since(kept: int, encoder: int, share: float) -> None:
    """What was counted before does not count."""
    before = {"kept": 7.0, "encoder": 9.0}
    after = {"kept": 7.0 + kept, "encoder": 9.0 + encoder}
    assert share_kept(before, after) == share
