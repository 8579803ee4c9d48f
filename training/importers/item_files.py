"""A file of items beside a log: titles, texts, places, hours, and attributes to filter by."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.contract.errors import InvalidField
from service.contract.events import parse_timestamp
from service.contract.items import attributes_json, check_attributes, parse_attributes
from service.contract.opening import parse_opening_hours
from training.config import TrainingError
from training.data import ITEM_SCHEMA
from training.importers.tables import read_table

ATTRIBUTE_PREFIX = "attributes."


def read_items_file(path: Path, delimiter: str | None, encoding: str | None) -> pa.Table:
    """Read items: `item_id` and any other column of ITEM_SCHEMA; categories split at `|`.

    Columns `attributes.` with a name become attributes; `released_at` is RFC 3339 or milliseconds.
    """
    table = read_table(path, delimiter, encoding)
    present = table.frame.column_names
    if "item_id" not in present:
        raise TrainingError(
            f"{path}: no column 'item_id'; there are {', '.join(present)}; name the one of the "
            "items' ids item_id"
        )
    as_text = bool(table.shapes)
    rows = [_item_row(path, row, as_text=as_text) for row in table.frame.to_pylist()]
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
        row[place] = None if row[place] is None else _degrees(path, row["item_id"], row[place])
    try:
        row |= _described(given, _number_or_text if as_text else _as_it_is)
    except InvalidField as exc:
        raise TrainingError(f"{path}: item {row['item_id']}: {exc}") from exc
    return row


def _degrees(path: Path, item_id: str, given: Any) -> float:
    try:
        return float(given)
    except ValueError as exc:
        raise TrainingError(
            f"{path}: item {item_id}: {given!r} is no latitude or longitude; write degrees as 48.85"
        ) from exc


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
