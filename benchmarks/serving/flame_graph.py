"""A flame graph as one SVG that needs no script: the root below, what it called above it.

A frame is as wide as its share of the samples, and coloured by its part. Colours follow the
reader's light or dark page; every frame says its whole name and share when it is pointed at.
"""

import colorsys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from benchmarks.serving.stacks import PARTS, REST, Frame, shares

WIDTH, MARGIN, ROW, FONT = 1_200, 10, 17, 11
TITLE_ROWS, LEGEND_COLUMNS, LEGEND_ROW = 2, 5, 18
# Of a letter to the height of the font; wide enough for any sans-serif of a reader.
LETTER = 0.64
# Frames of a smaller share are drawn as one beside each other, and without what is above them.
LEAST_SHARE = 0.003
LEAST_LETTERS = 3
HUE_STEP = 5 / 13
INK = {"light": "#1f2328", "dark": "#e6edf3"}
PAPER = {"light": "#ffffff", "dark": "#0d1117"}
# Saturation and lightness of a part's colour, by the page it lies on.
TONES = {"light": (0.62, 0.80), "dark": (0.38, 0.30)}


@dataclass(frozen=True, slots=True)
class Box:
    """A frame's place: the first sample it holds, how many, and its row from the root."""

    first: int
    row: int
    frame: Frame


def flame_graph(top: Frame, title: str) -> str:
    """Return the SVG of a tree of stacks."""
    found = [*boxes(top)]
    by_part = shares(top)
    legend_rows = -(-len(by_part) // LEGEND_COLUMNS)
    head = TITLE_ROWS * ROW + legend_rows * LEGEND_ROW
    rows = 1 + max(box.row for box in found)
    height = head + rows * ROW + 2 * MARGIN
    scale = (WIDTH - 2 * MARGIN) / top.count
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="{FONT}">',
        f"<title>{escape(title)}</title>",
        _style(),
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text x="{MARGIN}" y="{MARGIN + FONT}" font-size="{FONT + 3}">{escape(title)}</text>',
        *_legend(by_part),
    ]
    floor = height - MARGIN - ROW
    lines += [_drawn(box, scale, floor, top.count) for box in found]
    return "\n".join([*lines, "</svg>"]) + "\n"


def boxes(top: Frame) -> Iterator[Box]:
    """Yield the frames that are drawn; a frame lies above the one that called it."""
    least = LEAST_SHARE * top.count
    waiting = [Box(0, 0, top)]
    while waiting:
        box = waiting.pop()
        yield box
        first = box.first
        # By name, so that two pictures have a function at the same place.
        for child in _merged(box.frame, least):
            waiting.append(Box(first, box.row + 1, child))
            first += child.count


def _merged(frame: Frame, least: float) -> list[Frame]:
    """Return what is drawn above a frame: wide ones by name, then thin ones of a part as one."""
    wide = [child for child in frame.children.values() if child.count >= least]
    thin: dict[str, list[Frame]] = {}
    for child in frame.children.values():
        if child.count < least:
            thin.setdefault(child.part, []).append(child)
    together = [
        Frame(f"{len(some)} smaller", part, sum(child.count for child in some))
        for part, some in sorted(thin.items())
    ]
    return sorted(wide, key=lambda child: child.name) + [
        some for some in together if some.count >= least
    ]


def _drawn(box: Box, scale: float, floor: int, total: int) -> str:
    frame, x, y = box.frame, MARGIN + box.first * scale, floor - box.row * ROW
    width = frame.count * scale
    said = f"{frame.name}: {frame.count / total:.1%} ({frame.count:,} samples), {frame.part}"
    rect = (
        f'<rect class="{_css(frame.part)}" x="{x:.1f}" y="{y}" '
        f'width="{width:.1f}" height="{ROW - 1}"/>'
    )
    label = fitting(frame.name, int((width - 4) / (FONT * LETTER)))
    text = f'<text x="{x + 3:.1f}" y="{y + FONT + 1}">{escape(label)}</text>' if label else ""
    return f"<g><title>{escape(said)}</title>{rect}{text}</g>"


def fitting(name: str, letters: int) -> str:
    """Return as much of a name as fits: all, the function alone, its beginning, nothing.

    >>> fitting("service.ranker:Ranker.rank", 26), fitting("service.ranker:Ranker.rank", 12)
    ('service.ranker:Ranker.rank', 'Ranker.rank')
    >>> fitting("service.ranker:Ranker.rank", 6), fitting("service.ranker:Ranker.rank", 2)
    ('Ranke…', '')
    """
    function = name.rpartition(":")[2]
    for text in (name, function):
        if len(text) <= letters:
            return text
    return f"{function[: letters - 1]}…" if letters >= LEAST_LETTERS else ""


def _legend(by_part: Mapping[str, float]) -> Iterator[str]:
    step = (WIDTH - 2 * MARGIN) // LEGEND_COLUMNS
    for place, (part, share) in enumerate(by_part.items()):
        row, column = divmod(place, LEGEND_COLUMNS)
        x, y = MARGIN + column * step, MARGIN + TITLE_ROWS * ROW + row * LEGEND_ROW - ROW // 2
        yield f'<rect class="{_css(part)}" x="{x}" y="{y}" width="{FONT}" height="{FONT}"/>'
        yield f'<text x="{x + FONT + 5}" y="{y + FONT - 1}">{escape(part)} {share:.0%}</text>'


def _style() -> str:
    dark = "".join(_rules("dark"))
    rules = "".join(_rules("light"))
    return f"<style>{rules}@media (prefers-color-scheme: dark) {{{dark}}}</style>"


def _rules(page: str) -> Iterator[str]:
    yield f"text{{fill:{INK[page]}}}.paper{{fill:{PAPER[page]}}}"
    saturation, lightness = TONES[page]
    for place, part in enumerate(PARTS):
        # Parts that call each other are neighbours in the list; their hues are not to be.
        rgb = colorsys.hls_to_rgb(HUE_STEP * place % 1, lightness, saturation)
        yield f".{_css(part)}{{fill:#{''.join(f'{round(255 * of_it):02x}' for of_it in rgb)}}}"
    yield f".{_css(REST)}{{fill:{'#d0d7de' if page == 'light' else '#3d444d'}}}"


def _css(part: str) -> str:
    """Return a part's class: a letter and its number."""
    return f"p{[*PARTS, REST].index(part)}"
