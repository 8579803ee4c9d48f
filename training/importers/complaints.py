"""What is wrong with rows of a log: how many, which lines, what they say, and what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from service.contract.events import EVENT_TYPES, MAX_ID_CHARS
from training.importers.csv_text import CsvShape, find_lines, shown
from training.importers.raw_log import Complaints
from training.importers.times import GIVEN_TIME

Rows = Sequence[Mapping[str, str]]

# By rule of the cleaner: the columns at fault, and the fix.
_FIXES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "missing_user_id": (("user_id",), "every event needs a user"),
    "missing_item_id": (("item_id",), "every event needs an item"),
    "id_too_long": (("user_id", "item_id"), f"ids have at most {MAX_ID_CHARS} characters"),
    "bad_time": (
        ("time",),
        "write times as 2026-01-31 18:30:00, with +01:00 behind if they are local, or as seconds "
        "or milliseconds since 1970",
    ),
    "future_time": (
        ("time",),
        "these lie in the future: is it the right column, and the year right?",
    ),
    "unknown_event_type": (
        ("event_type",),
        f"say what they are with --event-type-map WORD=TYPE; types: {', '.join(EVENT_TYPES)}",
    ),
    "bad_coordinates": (
        ("lat", "lon"),
        "degrees, latitude -90 to 90 and longitude -180 to 180, both or none",
    ),
    "bad_number": (
        ("value", "duration_s"),
        "numbers as 4.5, durations not negative; --decimal , reads 4,5",
    ),
}
_COUNTED = {
    "exact_duplicate": "the same user, item, type and time again; the first is kept",
    "k_core": "of users or items with too few events, as --min-user-events or -item-events say",
}


def complaints_of(sources: Mapping[str, str], shapes: Mapping[Path, CsvShape]) -> Complaints:
    """Return what makes lines of dropped rows, for a log whose columns are `sources` by role.

    `shapes` are its text files, in which lines are looked up; other logs have no lines.
    """

    def complaints(
        dropped: Mapping[str, int], examples: Mapping[str, list[dict[str, str]]]
    ) -> list[str]:
        lines = []
        for rule, number in dropped.items():
            if rule in _FIXES:
                roles, fix = _FIXES[rule]
                shown_rows = _shown_rows(examples.get(rule, ()), roles, sources, shapes)
                lines.append(f"dropped {rule}: {number:,}{shown_rows}; {fix}")
            else:
                lines.append(f"dropped {rule}: {number:,}; {_COUNTED[rule]}")
        return lines

    return complaints


def _shown_rows(
    rows: Rows, roles: Sequence[str], sources: Mapping[str, str], shapes: Mapping[Path, CsvShape]
) -> str:
    """Return examples as ` (line 5 '31.13.2026', line 9 '')`."""
    if not rows:
        return ""
    places = _places(rows, sources, shapes)
    parts = []
    for place, row in zip(places, rows, strict=True):
        values = [shown(_given(row, role)) for role in roles if role in sources]
        parts.append(f"{place}{' and '.join(values)}")
    return f" ({', '.join(parts)})"


def _given(row: Mapping[str, str], role: str) -> str:
    return row.get(GIVEN_TIME, row.get(role, "")) if role == "time" else row.get(role, "")


def _places(rows: Rows, sources: Mapping[str, str], shapes: Mapping[Path, CsvShape]) -> list[str]:
    """Return `line 5 ` for each row, with the file's name where there are several."""
    # Only what the importer leaves as it is: the type may be another word by now.
    asked = ("user_id", "item_id", "time")
    wanted = [{sources[role]: _given(row, role) for role in asked} for row in rows]
    places = [""] * len(rows)
    for path, shape in shapes.items():
        name = f"{path.name} " if len(shapes) > 1 else ""
        for place, line in enumerate(find_lines(path, shape, wanted)):
            if line is not None and not places[place]:
                places[place] = f"{name}line {line} "
    return places
