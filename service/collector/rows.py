"""From entries of the stream to rows of a table; the columns are those the importer knows."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from service.contract.events import MAX_TIMESTAMP_MS
from service.store.stream import StreamEntry

Tree: TypeAlias = Literal["events", "exposures"]
EVENTS: Tree = "events"
EXPOSURES: Tree = "exposures"
KEY_BYTES = 16
MAX_OFFSET_MIN = 1_440

_TIME = pa.timestamp("ms", tz="UTC")
# `timestamp` is typed as a time, so that no reader has to guess its unit.
EVENT_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", _TIME),
        ("tz_offset_min", pa.int32()),
        ("value", pa.float64()),
        ("duration_s", pa.float64()),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
        ("recommendation_id", pa.string()),
        # A flat JSON object.
        ("context", pa.string()),
    ]
)
# `exposure` is the whole entry as JSON; the columns beside it are what rows are found by.
EXPOSURE_SCHEMA = pa.schema(
    [
        ("recommendation_id", pa.string()),
        ("user_id", pa.string()),
        ("timestamp", _TIME),
        ("exposure", pa.string()),
    ]
)
SCHEMAS = {EVENTS: EVENT_SCHEMA, EXPOSURES: EXPOSURE_SCHEMA}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one tree; `values` are in the order of the tree's schema."""

    tree: Tree
    user_id: str | None
    timestamp_ms: int
    values: tuple[Any, ...]
    # What an event that comes again is known by; None for rows that cannot come again.
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class EraseMark:
    """Rows of this user up to this time have to go; `user` is `user_hash` of the id."""

    user: str
    before_ms: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that gives no row: `unknown` has no field we know, `invalid` cannot be read."""

    reason: Literal["unknown", "invalid"]
    detail: str


def parse_entry(entry: StreamEntry) -> Row | EraseMark | Skipped:
    """Return what an entry says; its content never is in `Skipped.detail`, for the logs' sake."""
    for name, parse in _PARSERS.items():
        if name in entry.fields:
            try:
                return parse(_object(json.loads(entry.fields[name])), entry)
            except (ValueError, TypeError, KeyError, OverflowError) as exc:
                return Skipped("invalid", f"{name}: {type(exc).__name__}")
    return Skipped("unknown", "no known field")


def event_key(user_id: str, event_id: str) -> bytes:
    """Return what an event is known by: an event id is one event of its user."""
    text = f"{user_id}\0{event_id}"
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def table_of(tree: Tree, rows: Sequence[Row]) -> pa.Table:
    """Return rows of one tree, at least one, as a table of its schema."""
    schema = SCHEMAS[tree]
    columns = zip(*(row.values for row in rows), strict=True)
    arrays = [pa.array(list(c), field.type) for c, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _event(fields: dict[str, Any], _: StreamEntry) -> Row:
    user_id, event_id = _text(fields["user_id"]), _text(fields["event_id"])
    timestamp_ms = _whole(fields["timestamp_ms"], MAX_TIMESTAMP_MS)
    offset, context = fields.get("tz_offset_min"), fields.get("context")
    values = (
        event_id,
        user_id,
        _text(fields["item_id"]),
        _text(fields["event_type"]),
        timestamp_ms,
        None if offset is None else _whole(offset, MAX_OFFSET_MIN),
        *(_number(fields.get(name)) for name in ("value", "duration_s", "lat", "lon")),
        _known_text(fields.get("recommendation_id")),
        None if context is None else json.dumps(context, ensure_ascii=False),
    )
    return Row(EVENTS, user_id, timestamp_ms, values, event_key(user_id, event_id))


def _exposure(fields: dict[str, Any], entry: StreamEntry) -> Row:
    user_id = _known_text(fields.get("user_id"))
    values = (
        _known_text(fields.get("recommendation_id")),
        user_id,
        entry.id.ms,
        entry.fields["exposure"].decode(),
    )
    return Row(EXPOSURES, user_id, entry.id.ms, values)


def _mark(fields: dict[str, Any], _: StreamEntry) -> EraseMark:
    return EraseMark(_text(fields["user"]), _whole(fields["before_ms"], MAX_TIMESTAMP_MS))


_Parser: TypeAlias = Callable[[dict[str, Any], StreamEntry], Row | EraseMark]
_PARSERS: Mapping[str, _Parser] = {"event": _event, "exposure": _exposure, "erase": _mark}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _whole(value: Any, limit: int) -> int:
    """Return a whole number that fits its column; one that does not would hold up its batch."""
    number = int(value)
    if abs(number) > limit:
        raise ValueError("out of range")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # a lone surrogate cannot be stored; it raises a ValueError
    return value


def _known_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
