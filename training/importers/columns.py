"""Which column is which: as told, else by names and content where these leave no doubt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.contract.events import EVENT_TYPES
from training.cleaning import RAW_COLUMNS
from training.config import TrainingError
from training.importers.csv_text import shown
from training.importers.times import MIN_SECONDS, parse_time
from training.importers.words import TYPE_WORDS, VAGUE_TYPE_WORDS, names_of, plain

REQUIRED = ("user_id", "item_id", "time")
OPTIONAL_COLUMNS = tuple(role for role in RAW_COLUMNS if role not in REQUIRED)
NUMBERS = ("value", "duration_s", "lat", "lon")
# Names an optional column that shall not be used.
NONE = "-"
OWN_NAMES = {"user_id": "user_id", "item_id": "item_id", "time": "timestamp"}
ROLE_NAMES = {"user_id": "the user's", "item_id": "the item's", "time": "the time's"}
MAX_SHOWN_TYPES = 8
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")

Sample = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """Which of the log's columns are which; what is None is found out, or the log has none.

    `event_type_default` is the type of events without one, `event_type_map` translates the log's
    own words; `delimiter`, `encoding` and `decimal` are for csv, None where the file shows them.
    """

    user_id: str | None = None
    item_id: str | None = None
    time: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    tz_offset_min: str | None = None
    value: str | None = None
    duration_s: str | None = None
    lat: str | None = None
    lon: str | None = None
    event_type_default: str = "view"
    event_type_map: tuple[tuple[str, str], ...] = ()
    delimiter: str | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    time_zone: str | None = None
    date_order: Literal["day-first", "month-first"] | None = None
    items_file: Path | None = None


def option_of(role: str) -> str:
    """Return the option that names a role's column."""
    return f"--{role.replace('_', '-')}-column"


def find_columns(
    path: Path, columns: ColumnOptions, sample: Sample
) -> tuple[dict[str, str], list[str]]:
    """Return the column of each role, and what was guessed, for the reader.

    `sample` has the first values of every column, as text. Raises TrainingError, which lists the
    columns and the option, where one was named that is not there, or none is clear.
    """
    chosen = _named(path, columns, sample)
    guessed = []
    for role in REQUIRED:
        if role not in chosen:
            chosen[role] = _required(path, role, sample, tuple(chosen.values()))
            guessed.append(role)
    if set(OPTIONAL_COLUMNS) <= set(sample):
        # All of ours: a log that `service collect` wrote.
        own = {role: role for role in OPTIONAL_COLUMNS if getattr(columns, role) is None}
        return own | chosen, []
    for role in ("event_type", *NUMBERS):
        if getattr(columns, role) is None:
            found = _optional(role, sample, tuple(chosen.values()))
            if found is not None:
                chosen[role] = found
                guessed.append(role)
    if ("lat" in chosen) != ("lon" in chosen) and not (columns.lat or columns.lon):
        chosen = {role: name for role, name in chosen.items() if role not in ("lat", "lon")}
    return chosen, _said(chosen, guessed, sample)


def event_types(
    path: Path, column: str, values: Sequence[str], columns: ColumnOptions
) -> tuple[dict[str, str], list[str]]:
    """Return our type for each of a column's values that is not one, and what was guessed.

    A column that was named may hold others, which are dropped and counted; for one that was found
    by its name this raises TrainingError, since then nobody said that they are types of events.
    """
    given = dict(columns.event_type_map)
    for word, kind in given.items():
        if kind not in EVENT_TYPES:
            raise TrainingError(
                f"--event-type-map {word}={kind}: {kind!r} is no type of event; there are "
                + ", ".join(EVENT_TYPES)
            )
    ours = {word: given.get(word) or TYPE_WORDS.get(plain(word)) for word in values}
    unknown = [w for w in values if not ours[w] and w not in EVENT_TYPES and w.strip()]
    if unknown and columns.event_type is None:
        options = " ".join(f"--event-type-map '{word}=view'" for word in unknown[:MAX_SHOWN_TYPES])
        raise TrainingError(
            f"{path}: column {column!r} looks like the types of events, but these are not known: "
            f"{', '.join(map(shown, unknown[:MAX_SHOWN_TYPES]))}; say what they are, as {options} "
            f"(types: {', '.join(EVENT_TYPES)}), or leave the column out: "
            f"{option_of('event_type')} {NONE}"
        )
    used = {word: kind for word, kind in ours.items() if kind and word != kind}
    said = ", ".join(f"{word} = {kind}" for word, kind in used.items() if word not in given)
    return used, [f"event types: {said}"] if said else []


def decimal_comma(
    path: Path, given: str | None, chosen: Mapping[str, str], sample: Sample
) -> tuple[set[str], list[str]]:
    """Return the roles whose numbers are written as 4,5, and what was guessed.

    Raises TrainingError where 1,234 may be either.
    """
    if given is not None:
        return set(NUMBERS) if given == "," else set(), []
    found, notes = set(), []
    for role in NUMBERS:
        values = [v for v in sample.get(chosen.get(role, ""), ()) if v.strip()]
        commas = [v for v in values if "," in v]
        if not commas or not all(_COMMA_NUMBER.fullmatch(v.strip()) for v in values):
            continue
        if all(_THOUSANDS.fullmatch(v.strip()) for v in commas):
            raise TrainingError(
                f"{path}: {shown(commas[0])} in column {chosen[role]!r} may be a thousand or a "
                "fraction; add --decimal , (a comma before the fraction) or --decimal ."
            )
        found.add(role)
        notes.append(f"numbers: a comma before the fraction, as {commas[0]}")
    # One column of a file may have commas and another points.
    return found, notes[:1]


def _named(path: Path, columns: ColumnOptions, sample: Sample) -> dict[str, str]:
    """Return the columns that the caller named; NONE leaves one out that need not be there."""
    given = {role: name for role in RAW_COLUMNS if (name := getattr(columns, role)) is not None}
    named = {r: name for r, name in given.items() if name != NONE or r in REQUIRED}
    for role, name in named.items():
        if name not in sample:
            raise TrainingError(
                f"{path}: no column {name!r} for {role}; there are {_shown_columns(sample)}; "
                f"name yours with {option_of(role)}"
            )
    return named


def _required(path: Path, role: str, sample: Sample, taken: Sequence[str]) -> str:
    free = [name for name in sample if name not in taken]
    if OWN_NAMES[role] in free:
        return OWN_NAMES[role]
    fit = {name: names_of(role, name) for name in free}
    for rank in (2, 1):
        best = [name for name in free if fit[name] == rank]
        if len(best) == 1:
            return best[0]
        if best:
            raise TrainingError(
                f"{path}: {' and '.join(map(repr, best))} may both be {ROLE_NAMES[role]} column; "
                f"say which with {option_of(role)}"
            )
    timed = [name for name in free if role == "time" and _holds_times(sample[name])]
    if len(timed) == 1:
        return timed[0]
    raise TrainingError(
        f"{path}: no column {OWN_NAMES[role]!r} for {role}, and none is clearly "
        f"{ROLE_NAMES[role]}; add {option_of(role)} with one of {_shown_columns(sample)}"
        + (_NO_HEADER if _looks_like_data(sample) else "")
    )


_NO_HEADER = "; line 1 looks like an event: put a line of column names above it"


def _looks_like_data(sample: Sample) -> bool:
    return any(_NUMBER.fullmatch(name) or parse_time(name, "day-first", None) for name in sample)


def _shown_columns(sample: Sample) -> str:
    """Return the columns, each with its first value."""
    first = {name: next((v for v in values if v), "") for name, values in sample.items()}
    return ", ".join(f"{name} ({shown(value)})" for name, value in first.items())


def _holds_times(values: Sequence[str]) -> bool:
    known = [value for value in values if value.strip()]
    if not known:
        return False
    return all(_is_recent(parse_time(value, "day-first", None), value) for value in known)


def _is_recent(moment: tuple[int, int | None] | None, text: str) -> bool:
    if moment is None:
        # Which of day and month is first, another part finds out.
        moment = parse_time(text, "month-first", None)
    return moment is not None and moment[0] >= MIN_SECONDS * 1000


def _optional(role: str, sample: Sample, taken: Sequence[str]) -> str | None:
    """Return the only column that has the name of a role and its content."""
    free = [name for name in sample if name not in taken]
    fit = [name for name in free if names_of(role, name) and _suits(role, sample[name])]
    if role == "event_type" and not fit:
        vague = [name for name in free if plain(name) in VAGUE_TYPE_WORDS]
        fit = [name for name in vague if _all_types(sample[name])]
    return fit[0] if len(fit) == 1 else None


def _suits(role: str, values: Sequence[str]) -> bool:
    known = [value.strip() for value in values if value.strip()]
    if role == "event_type":
        # Numbers are somebody's codes, and cannot be guessed.
        return bool(known) and not all(_NUMBER.fullmatch(value) for value in known)
    return bool(known) and all(
        _NUMBER.fullmatch(value) or _COMMA_NUMBER.fullmatch(value) for value in known
    )


def _all_types(values: Sequence[str]) -> bool:
    known = [value for value in values if value.strip()]
    return bool(known) and all(v in EVENT_TYPES or plain(v) in TYPE_WORDS for v in known)


def _said(chosen: Mapping[str, str], guessed: Sequence[str], sample: Sample) -> list[str]:
    """Return what a person has to know of the guesses; nothing where all names are ours."""
    ours = OWN_NAMES | {role: role for role in OPTIONAL_COLUMNS}
    if all(chosen[role] == ours[role] for role in guessed if role in REQUIRED) and not any(
        role in guessed for role in OPTIONAL_COLUMNS if role in chosen
    ):
        return []
    told = [f"{role} = {name!r}" for role, name in chosen.items()]
    unused = [repr(name) for name in sample if name not in chosen.values()]
    lines = [f"columns: {', '.join(told)}"]
    if unused:
        lines.append(f"columns not used: {', '.join(unused)}")
    return lines
