"""Axes of charts: from values to places, with round ticks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NUM_TICKS = 5
# The step between ticks is one of these times a power of ten.
NICE_STEPS = (1, 2, 2.5, 5, 10)
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `low` to `high` with labelled places; `log` takes the logarithm of what it gets.

    `low`, `high` and the ticks' places are on the scale, that is logarithms already.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at `low` and 1 at `high`."""
        place = math.log10(value) if self.log else value
        return (place - self.low) / (self.high - self.low)


def linear_axis(values: Iterable[float], *, from_zero: bool = False) -> Axis:
    """Return an axis over the values, with round ticks that reach both ends.

    >>> linear_axis([0.0, 0.9], from_zero=True).ticks[-1]
    (1.0, '1')
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    low = min(0.0, low) if from_zero else low
    if low == high:
        low, high = low - abs(low or 1) / 2, high + abs(high or 1) / 2
    step = _nice_step((high - low) / NUM_TICKS)
    first, last = math.floor(low / step + ROUNDING), math.ceil(high / step - ROUNDING)
    places = [float(f"{count * step:.12g}") for count in range(first, last + 1)]
    return Axis(places[0], places[-1], tuple((place, f"{place:g}") for place in places))


def log_axis(values: Iterable[float]) -> Axis:
    """Return a logarithmic axis over positive values, with a tick at every power of ten."""
    places = [math.log10(value) for value in values]
    low, high = math.floor(min(places)), math.ceil(max(places))
    high = max(high, low + 1)
    ticks = tuple((float(power), f"{10.0**power:g}") for power in range(low, high + 1))
    return Axis(low, high, ticks, log=True)


def marked_axis(values: Iterable[float], marks: Mapping[str, float]) -> Axis:
    """Return a logarithmic axis over positive values whose ticks are the named marks among them.

    >>> marked_axis([30.0, 4000.0], {"a second": 1.0, "a minute": 60.0, "an hour": 3600.0}).ticks
    ((1.7781512503836436, 'a minute'), (3.5563025007672873, 'an hour'))
    """
    places = [math.log10(value) for value in values]
    low, high = min(places), max(places)
    if low == high:
        low, high = low - 0.5, high + 0.5
    known = ((math.log10(value), name) for name, value in marks.items())
    ticks = tuple((place, name) for place, name in known if low <= place <= high)
    return Axis(low, high, ticks, log=True)


def hour_axis() -> Axis:
    """Return an axis of the hours of a day."""
    return Axis(0.0, 23.0, tuple((float(hour), f"{hour}:00") for hour in range(0, 24, 3)))


def named_axis(names: Sequence[str]) -> Axis:
    """Return an axis with a place for each name, at 0, 1, 2 and so on."""
    ticks = tuple((float(place), name) for place, name in enumerate(names))
    return Axis(-0.5, len(names) - 0.5, ticks)


def count_axis(last: float) -> Axis:
    """Return an axis from 1 to `last` with ticks at whole numbers."""
    step = max(1, math.ceil(last / 10))
    ticks = tuple((float(place), str(place)) for place in range(1, int(last) + 1, step))
    return Axis(1.0, max(last, 2.0), ticks)


def _nice_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(nice * power for nice in NICE_STEPS if nice * power >= least * (1 - ROUNDING))
