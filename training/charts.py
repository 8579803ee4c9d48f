"""Charts as inline SVG, drawn by hand: lines, bars with intervals, dots.

Colours are classes s0, s1, … of the page's style, so that a chart follows the reader's light or
dark setting. Each chart says in words what it shows, and every mark says its value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from training.chart_axes import Axis, count_axis, linear_axis, named_axis
from training.figures import colour, figure, text
from training.pages import shown

Points: TypeAlias = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 720.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 12.0, 12.0, 44.0
BAR_SHARE = 0.8
# The line on which what is predicted happens.
DIAGONAL = "as predicted"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar's height and its interval."""

    value: float
    low: float
    high: float


def line_chart(
    title: str,
    series: Mapping[str, Points],
    x_label: str,
    *,
    x: Axis | None = None,
    note: str = "",
) -> str:
    """Return lines over an axis, or over a whole-numbered one, such as epochs.

    `note` says in the caption how the figures were computed.
    """
    points = [point for line in series.values() for point in line]
    last = max((place for place, _ in points), default=1.0)
    x = count_axis(last) if x is None else x
    y = linear_axis(value for _, value in points)
    marks = [
        mark
        for place, (name, line) in enumerate(series.items())
        for mark in (_line(line, place, x, y), *_dots(name, line, place, x, y))
    ]
    said = "; ".join(_said(name, line, x_label) for name, line in series.items() if line)
    return _figure(title, said, [*_frame(x, y, x_label), *marks], list(series), note)


def bar_chart(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[Bar]], *, note: str = ""
) -> str:
    """Return bars side by side in each group, with their intervals."""
    x = named_axis(groups)
    y = linear_axis((bar.high for bars in series.values() for bar in bars), from_zero=True)
    marks = [
        mark
        for place, (name, bars) in enumerate(series.items())
        for group, bar in enumerate(bars)
        for mark in _bar(f"{name}, {groups[group]}", bar, (group, place, len(series)), x, y)
    ]
    said = "; ".join(
        f"{name}: " + ", ".join(f"{groups[at]} {shown(bar.value)}" for at, bar in enumerate(bars))
        for name, bars in series.items()
    )
    return _figure(title, said, [*_frame(x, y, ""), *marks], list(series), note)


def reliability_chart(title: str, points: Sequence[tuple[float, Bar, int]], *, note: str) -> str:
    """Return what happened, with its interval, over what was predicted, beside the diagonal.

    `points` are of (predicted, observed, cases); both axes are probabilities from 0.
    """
    x = linear_axis((at for at, _, _ in points), from_zero=True)
    y = linear_axis((bar.high for _, bar, _ in points), from_zero=True)
    end = min(x.high, y.high)
    marks = [f'<path class="diagonal" d="{_path([(0.0, 0.0), (end, end)], x, y)}"/>']
    marks += [mark for point in points for mark in _reliability(point, x, y)]
    said = "; ".join(map(_said_of_bin, points))
    frame = _frame(x, y, "predicted probability")
    return _figure(title, said, [*frame, *marks], ["observed share", DIAGONAL], note)


def dot_chart(
    title: str, series: Mapping[str, Points], x: Axis, x_label: str, steps: Points = ()
) -> str:
    """Return dots by series, every series after the first hollow, and a line through `steps`."""
    y = linear_axis(value for line in (*series.values(), steps) for _, value in line)
    marks = [
        mark
        for place, (name, points) in enumerate(series.items())
        for mark in _dots(name, points, place, x, y, hollow=place > 0)
    ]
    line = [_line(steps, 0, x, y)] if steps else []
    said = "; ".join(f"{len(points)} {name}" for name, points in series.items())
    return _figure(title, said, [*_frame(x, y, x_label), *line, *marks], list(series), "")


def _at(axis: Axis, value: float, start: float, end: float) -> float:
    return start + axis.share(value) * (end - start)


def _x(axis: Axis, value: float) -> float:
    return _at(axis, value, LEFT, WIDTH - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _at(axis, value, HEIGHT - BOTTOM, TOP)


def _frame(x: Axis, y: Axis, x_label: str) -> list[str]:
    """Return the grid, both scales and the label of the x axis."""
    plain_x, plain_y = Axis(x.low, x.high, x.ticks), Axis(y.low, y.high, y.ticks)
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    marks = []
    for place, label in y.ticks:
        at = _y(plain_y, place)
        marks.append(f'<path class="grid" d="M{LEFT:g} {at:.1f}H{right:g}"/>')
        marks.append(text(LEFT - 8, at + 4, label, "end"))
    marks += [text(_x(plain_x, place), base + 18, label) for place, label in x.ticks]
    marks.append(f'<path class="axis" d="M{LEFT:g} {base:g}H{right:g}"/>')
    return [*marks, text((LEFT + right) / 2, HEIGHT - 8, x_label)]


def _line(points: Points, place: int, x: Axis, y: Axis) -> str:
    path = " ".join(f"{_x(x, at):.1f},{_y(y, value):.1f}" for at, value in points)
    return f'<polyline class="line {colour(place)}" points="{path}"/>'


def _dots(
    name: str, points: Points, place: int, x: Axis, y: Axis, *, hollow: bool = False
) -> list[str]:
    kind = f"dot {colour(place)}{' open' if hollow else ''}"
    return [
        f'<circle class="{kind}" cx="{_x(x, at):.1f}" cy="{_y(y, value):.1f}" r="3">'
        f"<title>{escape(name)}: {escape(shown(value))}</title></circle>"
        for at, value in points
    ]


def _bar(name: str, bar: Bar, at: tuple[int, int, int], x: Axis, y: Axis) -> list[str]:
    """Return a bar and its interval; `at` is its group, its place there and the group's size."""
    group, place, size = at
    width = BAR_SHARE / size
    left = _x(x, group - BAR_SHARE / 2 + place * width)
    right = _x(x, group - BAR_SHARE / 2 + (place + 0.9) * width)
    top, base, middle = _y(y, bar.value), _y(y, 0.0), (left + right) / 2
    said = f"{name}: {shown(bar.value)}, {shown((bar.low, bar.high))}"
    return [
        f'<rect class="bar {colour(place)}" x="{left:.1f}" y="{top:.1f}" '
        f'width="{right - left:.1f}" height="{base - top:.1f}">'
        f"<title>{escape(said)}</title></rect>",
        _interval(bar, middle, y),
    ]


def _interval(bar: Bar, at: float, y: Axis) -> str:
    return f'<path class="error" d="M{at:.1f} {_y(y, bar.low):.1f}V{_y(y, bar.high):.1f}"/>'


def _said(name: str, line: Points, x_label: str) -> str:
    (first, start), (last, end) = line[0], line[-1]
    return (
        f"{name} from {shown(start)} at {x_label} {first:g} to {shown(end)} at {last:g}, between "
        f"{shown(min(value for _, value in line))} and {shown(max(value for _, value in line))}"
    )


def _reliability(point: tuple[float, Bar, int], x: Axis, y: Axis) -> list[str]:
    at, bar, _ = point
    place = _x(x, at)
    return [
        _interval(bar, place, y),
        f'<circle class="dot s0" cx="{place:.1f}" cy="{_y(y, bar.value):.1f}" r="4">'
        f"<title>{escape(_said_of_bin(point))}</title></circle>",
    ]


def _said_of_bin(point: tuple[float, Bar, int]) -> str:
    at, bar, cases = point
    return f"predicted {shown(at)}, observed {shown(bar.value)}, {shown(cases)} cases"


def _path(points: Points, x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{_x(x, at):.1f} {_y(y, value):.1f}" for at, value in points)


def _figure(title: str, said: str, marks: Sequence[str], names: Sequence[str], note: str) -> str:
    return figure(title, said, marks, names, size=(WIDTH, HEIGHT), note=note)
