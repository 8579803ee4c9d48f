"""HTML pages that need nothing beside themselves: no script, no font, no picture from elsewhere.

Names of data sets, items and settings come from users, so every text that goes in is escaped;
what these functions return is HTML already and goes in as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

# Below SMALL, four decimals would leave few digits that say something; from LARGE on, too many.
SMALL, LARGE = 0.01, 10.0


def page(title: str, sections: Iterable[str]) -> str:
    """Return a whole page; `sections` are HTML."""
    template = (resources.files("training") / "report.html").read_text("utf-8")
    body = "\n".join([f"<h1>{escape(title)}</h1>", *sections])
    return Template(template).substitute(title=escape(title), body=body)


def section(heading: str, *parts: str) -> str:
    """Return a headed section; `parts` are HTML."""
    return "\n".join([f"<section>\n<h2>{escape(heading)}</h2>", *parts, "</section>"])


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f"<p>{escape(text)}</p>"


def folded(summary: str, *parts: str) -> str:
    """Return HTML parts that are shown on a click."""
    return "\n".join([f"<details><summary>{escape(summary)}</summary>", *parts, "</details>"])


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> str:
    """Return a table; numbers and [lower, upper] pairs are set as figures, the rest as text."""
    aligned = [_is_figure(value) for value in rows[0]] if rows else []
    heads = [
        f'<th scope="col"{_numeric(place < len(aligned) and aligned[place])}>{escape(name)}</th>'
        for place, name in enumerate(header)
    ]
    lines = [
        "<tr>"
        + "".join(f"<td{_numeric(_is_figure(v))}>{escape(shown(v))}</td>" for v in row)
        + "</tr>"
        for row in rows
    ]
    return (
        # A wide table scrolls on its own, which a keyboard has to reach.
        f'<div class="wide" role="group" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption>\n<thead><tr>"
        f"{''.join(heads)}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def facts(entries: Mapping[str, Any], caption: str) -> str:
    """Return a table of names and values."""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(shown(value))}</td></tr>'
        for name, value in entries.items()
    )
    return f"<table><caption>{escape(caption)}</caption>\n<tbody>\n{rows}\n</tbody></table>"


def shown(value: Any) -> str:
    """Return a value as a person reads it.

    >>> [shown(value) for value in (0.12345, 2e-05, 1234.56, 1234567, True, None, (1, 2))]
    ['0.1235', '2e-05', '1,234.6', '1,234,567', 'yes', '–', '1 to 2']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _shown_float(value)
    if isinstance(value, list | tuple) and _is_figure(value):
        return " to ".join(shown(part) for part in value)
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _shown_float(value: float) -> str:
    if value != 0 and abs(value) < SMALL:
        return f"{value:.3g}"
    return f"{value:,.1f}" if abs(value) >= LARGE else f"{value:.4f}"


def _is_figure(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(_is_figure(part) for part in value)  # noqa: PLR2004 - a pair
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(yes: bool) -> str:
    return ' class="number"' if yes else ""
