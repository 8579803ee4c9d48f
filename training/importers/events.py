"""Anybody's event log: parquet, csv or jsonl; its columns are found out, or named by options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import daft
from daft import DataType, Expression, col, lit
from daft.functions import monotonically_increasing_id, regexp_replace, strip, when

from service.contract.events import EVENT_TYPES
from training.cleaning import RAW_COLUMNS, ROW
from training.config import TrainingError
from training.data import ITEM_SCHEMA
from training.importers.columns import (
    NUMBERS,
    ColumnOptions,
    decimal_comma,
    event_types,
    find_columns,
)
from training.importers.complaints import complaints_of
from training.importers.item_files import read_items_file
from training.importers.raw_log import RawLog
from training.importers.tables import read_table
from training.importers.times import TimeOptions, read_times

__all__ = ["ColumnOptions", "import_events"]

SAMPLE_ROWS = 1_000
MAX_EVENT_TYPES = 50


def import_events(path: Path, columns: ColumnOptions) -> RawLog:
    """Read anybody's log: a parquet, csv or jsonl file, or a folder of such files.

    Columns that were not named are found by name and content where these leave no doubt. Raises
    TrainingError, which names the fix, when a file cannot be read or could mean two things.
    """
    if columns.event_type_default not in EVENT_TYPES:
        raise TrainingError(
            f"event type {columns.event_type_default!r} is unknown; there are "
            + ", ".join(EVENT_TYPES)
        )
    table = read_table(path, columns.delimiter, columns.encoding)
    sample = _sample(table.frame)
    chosen, notes = find_columns(path, columns, sample)
    comma, comma_notes = decimal_comma(path, columns.decimal, chosen, sample)
    sources = {role: chosen[role] for role in RAW_COLUMNS if role in chosen}
    raw = table.frame.select(*[col(name).alias(role) for role, name in sources.items()])
    raw = raw.with_column(ROW, monotonically_increasing_id())
    raw = raw.with_columns({r: _with_point(r) for r in NUMBERS if r in comma and r in sources})
    raw, type_notes = _with_types(path, raw, chosen, columns)
    try:
        raw, time_notes = read_times(raw, TimeOptions(columns.time_zone, columns.date_order))
    except TrainingError as exc:
        raise TrainingError(f"{path}: column {chosen['time']!r}: {exc}") from exc
    items = ITEM_SCHEMA.empty_table()
    if columns.items_file is not None:
        items = read_items_file(columns.items_file, columns.delimiter, columns.encoding)
    return RawLog(
        "events",
        raw,
        items,
        notes=(*table.notes, *notes, *comma_notes, *type_notes, *time_notes),
        complaints=complaints_of(sources, table.shapes),
    )


def _sample(frame: daft.DataFrame) -> dict[str, list[str]]:
    """Return the first values of every column as text, none as an empty one."""
    rows: Mapping[str, list[Any]] = frame.limit(SAMPLE_ROWS).to_pydict()
    return {
        name: ["" if value is None else str(value) for value in values]
        for name, values in rows.items()
    }


def _with_types(
    path: Path, raw: daft.DataFrame, chosen: Mapping[str, str], columns: ColumnOptions
) -> tuple[daft.DataFrame, list[str]]:
    """Return the frame with a type for every event: the log's, in our words, or the default."""
    default = lit(columns.event_type_default)
    if "event_type" not in raw.column_names:
        return raw.with_column("event_type", default), []
    text = strip(col("event_type").cast(DataType.string()))
    raw = raw.with_column("event_type", text)
    distinct = raw.select("event_type").distinct().limit(MAX_EVENT_TYPES).to_pydict()
    words = sorted(word for word in distinct["event_type"] if word)
    names, notes = event_types(path, chosen["event_type"], words, columns)
    kind = when(col("event_type") == lit(""), default)
    for word, ours in names.items():
        kind = kind.when(col("event_type") == lit(word), lit(ours))
    known = kind.otherwise(col("event_type")).fill_null(default)
    return raw.with_column("event_type", known), notes


def _with_point(name: str) -> Expression:
    """Return numbers as 1.234,5 with a point before the fraction and none else."""
    bare = regexp_replace(strip(col(name)), r"\.", "")
    return regexp_replace(bare, ",", ".").alias(name)
