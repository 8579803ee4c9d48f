"""A map of many named points as inline SVG: colour by group, titles on hover, a few written out."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from training.chart_axes import linear_axis
from training.figures import colour, cut, figure, text

WIDTH, HEIGHT, EDGE = 720.0, 520.0, 14.0
RADIUS = 3.0
# About what a letter of 12 units takes, and a line: labels that would overlap are left out.
LETTER, LINE = 6.4, 14.0
LABEL_LENGTH = 28
NUM_LABELS = 14


@dataclass(frozen=True, slots=True)
class Point:
    """A place, the group it belongs to, by number, and what it is called."""

    x: float
    y: float
    group: int
    name: str


def point_map(
    title: str, said: str, points: Sequence[Point], groups: Sequence[str], *, note: str
) -> str:
    """Return points, the last drawn lowest; the first of them are labelled where there is room."""
    x = linear_axis(point.x for point in points)
    y = linear_axis(point.y for point in points)
    places = [
        (
            EDGE + x.share(point.x) * (WIDTH - 2 * EDGE),
            HEIGHT - EDGE - y.share(point.y) * (HEIGHT - 2 * EDGE),
        )
        for point in points
    ]
    marks = [
        f'<circle class="point {colour(point.group)}" cx="{left:.1f}" cy="{top:.1f}" '
        f'r="{RADIUS:g}"><title>{escape(f"{point.name} ({groups[point.group]})")}</title></circle>'
        for point, (left, top) in zip(reversed(points), reversed(places), strict=True)
    ]
    return figure(
        title,
        said,
        [*marks, *_labels(points, places)],
        groups,
        size=(WIDTH, HEIGHT),
        note=note,
    )


def _labels(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> list[str]:
    """Return the first points' names, without any that would cover another."""
    taken: list[tuple[float, float, float]] = []
    marks = []
    for point, (x, y) in zip(points, places, strict=True):
        words = cut(point.name, LABEL_LENGTH)
        width = len(words) * LETTER
        left = x + 6 if x + 6 + width < WIDTH else x - 6 - width
        free = all(
            abs(y - top) >= LINE or left > start + length or start > left + width
            for start, top, length in taken
        )
        if free and y > LINE:
            taken.append((left, y, width))
            marks.append(f'<g class="label">{text(left, y + 4, words, "start")}</g>')
        if len(marks) == NUM_LABELS:
            break
    return marks
