"""Heat maps as inline SVG: a share of each cell's colour says its value, a title says it in words.

The colour is laid over the page's ground, so a map reads in light and dark alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from training.figures import cut, figure, text
from training.pages import shown

CELL, GAP, GUTTER, HEAD = 18.0, 22.0, 230.0, 38.0
LABEL_LENGTH = 34
# A week's hours are wider than they are high.
WEEK_CELL, WEEK_ROW, WEEK_GUTTER, WEEK_HEAD = 26.0, 24.0, 60.0, 22.0


@dataclass(frozen=True, slots=True)
class Panel:
    """One map: a name, and shares from 0 to 1 by row and column, None where there is none."""

    name: str
    values: Sequence[Sequence[float | None]]


def panel_rows(
    title: str,
    said: str,
    rows: Sequence[Sequence[Panel]],
    labels: tuple[Sequence[str], Sequence[str]],
    *,
    note: str,
) -> str:
    """Return maps in rows that share the labels of their rows and of their columns.

    The labels of columns are short; those of rows are cut and tell all of themselves on hover. The
    first column sums up what is not shown: it does not set the scale, and is full above it.
    """
    row_names, column_names = labels
    high = HEAD + len(row_names) * CELL + GAP
    wide = len(column_names) * CELL + GAP
    most = max(value or 0.0 for row in rows for p in row for line in p.values for value in line[1:])
    marks: list[str] = []
    for at, row in enumerate(rows):
        top = at * high + HEAD
        marks += [_row_label(name, top + place * CELL) for place, name in enumerate(row_names)]
        for place, panel in enumerate(row):
            left = GUTTER + place * wide
            marks += _panel(panel, left, top, labels, most)
    size = (GUTTER + max(len(row) for row in rows) * wide, len(rows) * high)
    return figure(title, said, marks, size=size, note=note)


def week_map(title: str, said: str, days: Sequence[Sequence[float]], *, note: str) -> str:
    """Return a map of a value by day, from Monday, and hour."""
    names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    most = max(max(hours) for hours in days) or 1.0
    marks = [
        text(WEEK_GUTTER + (hour + 0.5) * WEEK_CELL, WEEK_HEAD - 7, f"{hour}")
        for hour in range(len(days[0]))
    ]
    for at, (name, hours) in enumerate(zip(names, days, strict=True)):
        top = WEEK_HEAD + at * WEEK_ROW
        marks.append(text(WEEK_GUTTER - 8, top + WEEK_ROW * 0.7, name, "end"))
        marks += [
            _cell(
                (WEEK_GUTTER + hour * WEEK_CELL, top),
                (WEEK_CELL - 1, WEEK_ROW - 1),
                value / most,
                f"{name} {hour}:00, {shown(value)}",
            )
            for hour, value in enumerate(hours)
        ]
    size = (WEEK_GUTTER + len(days[0]) * WEEK_CELL, WEEK_HEAD + len(days) * WEEK_ROW)
    return figure(title, said, marks, size=size, note=note)


def _panel(
    panel: Panel,
    left: float,
    top: float,
    labels: tuple[Sequence[str], Sequence[str]],
    most: float,
) -> list[str]:
    row_names, column_names = labels
    middle = left + len(column_names) * CELL / 2
    marks = [text(middle, top - 22, panel.name)]
    marks += [
        text(left + (place + 0.5) * CELL, top - 6, name) for place, name in enumerate(column_names)
    ]
    for row, line in enumerate(panel.values):
        for column, value in enumerate(line):
            if value is not None:
                said = f"{row_names[row]} to {column_names[column]}: {shown(value)}"
                place = (left + column * CELL, top + row * CELL)
                marks.append(
                    _cell(place, (CELL - 1, CELL - 1), min(1.0, value / (most or 1.0)), said)
                )
    return marks


def _row_label(name: str, top: float) -> str:
    label = text(GUTTER - 8, top + CELL * 0.72, cut(name, LABEL_LENGTH), "end")
    return f"<g><title>{escape(name)}</title>{label}</g>"


def _cell(place: tuple[float, float], size: tuple[float, float], share: float, said: str) -> str:
    return (
        f'<rect class="cell" x="{place[0]:g}" y="{place[1]:g}" width="{size[0]:g}" '
        f'height="{size[1]:g}"/>'
        f'<rect class="heat" fill-opacity="{share:.2f}" x="{place[0]:g}" y="{place[1]:g}" '
        f'width="{size[0]:g}" height="{size[1]:g}"><title>{escape(said)}</title></rect>'
    )
