"""What an importer hands over: a raw frame for the cleaner, items, and how times are read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import daft
import numpy as np
import pyarrow as pa

from training.cleaning import ROW
from training.data import ITEM_SCHEMA

MAX_LAT, MAX_LON = 90, 180


# Dropped rows by rule, and examples as they came, to lines for the reader.
Complaints = Callable[[Mapping[str, int], Mapping[str, list[dict[str, str]]]], list[str]]


@dataclass(frozen=True, slots=True)
class RawLog:
    """What an importer found: a raw frame for `clean`, items, and how times are to be read.

    `notes` say what was guessed, and `complaints` makes lines of the rows that were dropped: how
    many by which rule, with examples, to what is to be done about them.
    """

    kind: str
    events: daft.DataFrame
    items: pa.Table
    time_axis: Literal["time", "order"] = "time"
    licence_notice: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    complaints: Complaints | None = None


def raw_frame(columns: Mapping[str, pa.ChunkedArray]) -> daft.DataFrame:
    """Return arrays of one length, named as RAW_COLUMNS, as a raw frame in their order."""
    table = pa.table(dict(columns))
    return daft.from_arrow(table.append_column(ROW, pa.array(np.arange(table.num_rows))))


def item_table(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Return items as ITEM_SCHEMA; what a row leaves out is unknown."""
    blank = dict.fromkeys(ITEM_SCHEMA.names) | {"categories": []}
    return pa.Table.from_pylist([blank | dict(row) for row in rows], schema=ITEM_SCHEMA)


def place(lat: object, lon: object) -> dict[str, object]:
    """Return coordinates as columns of an item: both, or none if either is off the globe."""
    try:
        degrees = float(str(lat)), float(str(lon))
    except ValueError:
        return {"lat": None, "lon": None}
    on_globe = abs(degrees[0]) <= MAX_LAT and abs(degrees[1]) <= MAX_LON  # NaN is neither
    return {"lat": degrees[0], "lon": degrees[1]} if on_globe else {"lat": None, "lon": None}
