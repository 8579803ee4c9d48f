"""Anybody's event log: parquet, csv or jsonl, whose columns are named by options."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import daft
import pyarrow as pa
from daft import DataType, col, lit
from daft.functions import monotonically_increasing_id

from service.contract.errors import InvalidField
from service.contract.events import EVENT_TYPES, parse_timestamp
from service.contract.items import attributes_json, check_attributes, parse_attributes
from service.contract.opening import parse_opening_hours
from training.cleaning import RAW_COLUMNS, ROW
from training.config import TrainingError
from training.data import ITEM_SCHEMA
from training.importers.raw_log import RawLog

ATTRIBUTE_PREFIX = "attributes."
OPTIONAL_COLUMNS = (
    "event_type", "event_id", "tz_offset_min", "value", "duration_s", "lat", "lon",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """Which of the log's columns are which; None where the log has none.

    `event_type_default` is the type of events without one; `delimiter` is for csv.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    time: str = "timestamp"
    event_type: str | None = None
    event_id: str | None = None
    tz_offset_min: str | None = None
    value: str | None = None
    duration_s: str | None = None
    lat: str | None = None
    lon: str | None = None
    event_type_default: str = "view"
    delimiter: str = ","
    items_file: Path | None = None


def import_events(path: Path, columns: ColumnOptions) -> RawLog:
    """Read anybody's log: a parquet, csv or jsonl file, or a folder of such files.

    Raises TrainingError when the file cannot be read or a named column is not in it.
    """
    if columns.event_type_default not in EVENT_TYPES:
        raise TrainingError(
            f"event type {columns.event_type_default!r} is unknown; there are "
            + ", ".join(EVENT_TYPES)
        )
    frame = _read_frame(path, columns.delimiter)
    columns = _with_own_names(columns, frame.column_names)
    wanted = {name: getattr(columns, name) for name in RAW_COLUMNS}
    chosen = {name: source for name, source in wanted.items() if source is not None}
    _check_columns(path, frame.column_names, chosen)
    raw = frame.select(*[col(source).alias(name) for name, source in chosen.items()])
    kind = lit(columns.event_type_default)
    if "event_type" in chosen:
        text = col("event_type").cast(DataType.string())
        raw = raw.with_column("event_type", text.fill_null(kind))
    else:
        raw = raw.with_column("event_type", kind)
    items = ITEM_SCHEMA.empty_table()
    if columns.items_file is not None:
        items = _read_items_file(columns.items_file, columns.delimiter)
    return RawLog("events", raw.with_column(ROW, monotonically_increasing_id()), items)


def _with_own_names(columns: ColumnOptions, present: Iterable[str]) -> ColumnOptions:
    """Name the columns of a log that has all of ours: it is one that `service collect` wrote.

    A log with some of them may mean something else, and has to be told about.
    """
    if not set(OPTIONAL_COLUMNS) <= set(present):
        return columns
    return replace(
        columns,
        event_type=columns.event_type or "event_type",
        event_id=columns.event_id or "event_id",
        tz_offset_min=columns.tz_offset_min or "tz_offset_min",
        value=columns.value or "value",
        duration_s=columns.duration_s or "duration_s",
        lat=columns.lat or "lat",
        lon=columns.lon or "lon",
    )


def _read_frame(path: Path, delimiter: str) -> daft.DataFrame:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    by_suffix = {
        suffix: [str(file) for file in files if file.is_file() and file.suffix.lower() in suffixes]
        for suffix, suffixes in _SUFFIXES.items()
    }
    present = [suffix for suffix, found in by_suffix.items() if found]
    if len(present) != 1:
        seen = f"holds {' and '.join(present)} files together" if present else "holds no log"
        raise TrainingError(f"{path}: {seen}; give parquet, csv or jsonl files of one kind")
    names = by_suffix[present[0]]
    try:
        return _READERS[present[0]](names, delimiter)
    except (OSError, ValueError, daft.exceptions.DaftCoreException) as exc:
        raise TrainingError(f"{path}: cannot be read as {present[0]}: {exc}") from exc


def _read_csv(names: list[str], delimiter: str) -> daft.DataFrame:
    """Read csv with every column as text, so that an id such as 007 stays what it is."""
    headers = {name: _csv_header(Path(name), delimiter) for name in names}
    first = headers[names[0]]
    for name, header in headers.items():
        # Columns are taken by place, so files in another order would swap them silently.
        if header != first:
            raise TrainingError(f"{name}: its columns are not those of {names[0]}, in their order")
    schema = {column: DataType.string() for column in first}
    return daft.read_csv(names, delimiter=delimiter, schema=schema, infer_schema=False)


def _csv_header(path: Path, delimiter: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader(stream, delimiter=delimiter), [])


_SUFFIXES = {
    "parquet": {".parquet", ".pq"},
    "csv": {".csv", ".tsv"},
    "jsonl": {".jsonl", ".ndjson"},
}
_READERS: Mapping[str, Callable[[list[str], str], daft.DataFrame]] = {
    "parquet": lambda names, _: daft.read_parquet(names),
    "csv": _read_csv,
    "jsonl": lambda names, _: daft.read_json(names),
}


def _check_columns(path: Path, present: Iterable[str], chosen: Mapping[str, str]) -> None:
    names = list(present)
    for option, source in chosen.items():
        if source not in names:
            raise TrainingError(
                f"{path}: no column {source!r} for {option}; there are {', '.join(names)}; "
                f"name yours with --{option.replace('_', '-')}-column"
            )


def _read_items_file(path: Path, delimiter: str) -> pa.Table:
    """Read items: `item_id` and any other column of ITEM_SCHEMA; categories split at `|`.

    Columns `attributes.` with a name become attributes; `released_at` is RFC 3339 or milliseconds.
    """
    frame = _read_frame(path, delimiter)
    _check_columns(path, frame.column_names, {"item_id": "item_id"})
    files = path.rglob("*") if path.is_dir() else [path]
    as_text = any(file.suffix.lower() in _SUFFIXES["csv"] for file in files)
    rows = [_item_row(path, row, as_text=as_text) for row in frame.to_pylist()]
    return pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)


def _item_row(path: Path, raw: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    """Return a row of ITEM_SCHEMA, or raise TrainingError naming the item and the field.

    `as_text` says that the table has texts only, as csv: numbers are then found among them.
    """
    given = {name: value for name, value in raw.items() if value not in (None, "")}
    row: dict[str, Any] = {name: given.get(name) for name in ITEM_SCHEMA.names}
    row["item_id"] = str(raw["item_id"])
    if not isinstance(row["categories"], list):
        row["categories"] = [name for name in str(row["categories"] or "").split("|") if name]
    for place in ("lat", "lon"):
        row[place] = None if row[place] is None else float(row[place])
    try:
        row |= _described(given, _number_or_text if as_text else _as_it_is)
    except InvalidField as exc:
        raise TrainingError(f"{path}: item {row['item_id']}: {exc}") from exc
    return row


def _described(given: dict[str, Any], typed: Callable[[Any], Any]) -> dict[str, Any]:
    """Return attributes, hours and release of an item; raises InvalidField."""
    named = {
        name.removeprefix(ATTRIBUTE_PREFIX): typed(value)
        for name, value in given.items()
        if name.startswith(ATTRIBUTE_PREFIX)
    }
    attributes = parse_attributes(given.get("attributes")) | check_attributes(named)
    if "opening_hours" in given:
        parse_opening_hours(str(given["opening_hours"]))
    row: dict[str, Any] = {"attributes": attributes_json(attributes)}
    if "released_at" in given:
        row["released_at_ms"] = _released_ms(typed(given["released_at"]))
    return row


def _released_ms(value: Any) -> int:
    """Return ms since 1970 of RFC 3339 text, whole milliseconds, or a table's own time."""
    known = value.isoformat() if isinstance(value, date) else value
    if not isinstance(known, str | int) or isinstance(known, bool):
        raise InvalidField("released_at", value, "must be RFC 3339 or whole milliseconds")
    try:
        return parse_timestamp(known)[0]
    except InvalidField as exc:
        raise InvalidField("released_at", exc.value, exc.fix) from exc


def _as_it_is(value: Any) -> Any:
    return value


def _number_or_text(text: str) -> str | int | float | bool:
    """Return what a text of a csv file stands for.

    >>> [_number_or_text(text) for text in ("5", "2.50", "true", "007", "red")]
    [5, 2.5, True, '007', 'red']
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text
