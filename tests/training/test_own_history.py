"""Counting in the user's own window, worked by hand."""

import numpy as np
import pytest

from service.contract.features import Arrays, RequestPoint, encode_windows
from tests.training import builders
from training.dataset import past_window
from training.own_history import OwnFrequency, OwnTransitions, OwnTransitionsAtHour

HOUR_MS = 3_600_000


def arrays(hour: int | None = None) -> Arrays:
    """One user who did a b a b a c a, an hour apart from 12:00 UTC on, and asks at an hour."""
    events = builders.events(["abababaacaz"[:6] + "ca" + "z"], step_ms=HOUR_MS)
    window = past_window(events, 8, 20)
    noon = builders.START_MS // (24 * HOUR_MS) * 24 * HOUR_MS
    point = RequestPoint() if hour is None else RequestPoint(noon + (48 + hour) * HOUR_MS)
    return encode_windows([window], [point], 10)


def fitted(kind: type[OwnFrequency]) -> OwnFrequency:
    """The scorer with a popularity that never decides here."""
    events = builders.events(["abcz"])
    return kind(events, np.ones(len(events), bool))


def test_frequency_counts_the_window() -> None:
    """A b a b a b c a: three a and one more, three b, one c."""
    scores = fitted(OwnFrequency).score(arrays())[0]
    assert scores[1:4].round(2).tolist() == [4.0, 3.0, 1.0]


def test_transitions_count_what_followed_the_last_item() -> None:
    """After a came b three times; a and c themselves count a hundredth for being there."""
    scores = fitted(OwnTransitions).score(arrays())[0]
    assert scores[1:4] == pytest.approx([0.04, 3.0, 0.01], abs=1e-3)


def test_the_hour_of_the_request_decides_between_events() -> None:
    """Of three b after a only those within an hour of the request keep their whole weight."""
    blind = fitted(OwnTransitionsAtHour).score(arrays())[0]
    assert blind[2] == pytest.approx(3.0, abs=1e-3)
    start_hour = builders.START_MS // HOUR_MS % 24
    timed = fitted(OwnTransitionsAtHour).score(arrays(start_hour + 1))[0]
    assert timed[2] == pytest.approx(1.0 + 2 * 0.1, abs=1e-3)
