"""A figure around a drawing: caption, legend, and what it shows in words."""

from collections.abc import Sequence
from html import escape

NUM_COLOURS = 8


def figure(
    title: str,
    said: str,
    marks: Sequence[str],
    names: Sequence[str] = (),
    *,
    size: tuple[float, float],
    note: str = "",
) -> str:
    """Return SVG marks as a figure of a size (width, height) in the drawing's own units.

    `said` is what the marks show, for those who cannot see them; `names` are the legend's, in the
    order of the colours; `note` says in the caption how the figures were computed.
    """
    keys = "".join(
        f'<li><span class="key {colour(place)}"></span>{escape(name)}</li>'
        for place, name in enumerate(names)
    )
    label = escape(f"{title}. {said}.")
    told = f'<span class="note">{escape(note)}</span>' if note else ""
    legend = f'\n<ul class="legend">{keys}</ul>' if names else ""
    return (
        f"<figure><figcaption>{escape(title)}{told}</figcaption>\n"
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {size[0]:g} {size[1]:g}">\n'
        f"{chr(10).join(marks)}\n</svg>{legend}</figure>"
    )


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """Return a text whose baseline is at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def colour(place: int) -> str:
    """Return the class of a series' colour, by its place among the series."""
    return f"s{place % NUM_COLOURS}"


def cut(words: str, longest: int) -> str:
    """Return a text of at most so many characters, the last an ellipsis where it was cut.

    >>> cut("Pizza Place", 7)
    'Pizza …'
    """
    return words if len(words) <= longest else words[: longest - 1] + "…"
