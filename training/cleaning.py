"""Cleaning: raw columns become typed events, every dropped row is counted under one rule.

Runs on Daft, so the same plan runs on one machine or a cluster. A raw frame has a row number
(`row`) and any of the columns of RAW_COLUMNS, of any type; ids may be numbers or text, times
numbers or text.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import daft
import pyarrow as pa
from daft import DataType, Expression, col, lit
from daft.functions import is_nan, length, regexp_extract, strip, try_cast, when

from service.contract.events import EVENT_TYPES, MAX_ID_CHARS, MAX_TIMESTAMP_MS
from training.data import EVENT_SCHEMA

RAW_COLUMNS = (
    "user_id", "item_id", "time", "event_type", "event_id", "tz_offset_min", "value",
    "duration_s", "lat", "lon",
)  # fmt: skip
ROW = "row"
# Numbers above these are milliseconds, microseconds and nanoseconds: as seconds they lie past the
# year 5000.
MIN_MS = 100_000_000_000
_MIN_US = 100_000_000_000_000
_MIN_NS = 100_000_000_000_000_000
_OFFSET = r"T?\d\d:\d\d.*([+-])(\d\d):?(\d\d)$"
FUTURE_TOLERANCE_MS = 86_400_000
_GIVEN = "given"
_SEPARATOR = "\x1d"


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """How strictly events are taken.

    `min_user_events` and `min_item_events` are a k-core, applied until nothing more drops; 0 is
    off. `now_ms` is what counts as the future, the clock's time if 0. Of each rule so many of the
    rows that it dropped are shown.
    """

    min_user_events: int = 0
    min_item_events: int = 0
    now_ms: int = 0
    num_examples: int = 0


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Clean events, ordered by user, time and source order, and the rows dropped by rule.

    `examples` has, by rule, some dropped rows as they came: a text for each raw column.
    """

    events: pa.Table
    num_rows_read: int
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)


def clean(raw: daft.DataFrame, options: CleanOptions) -> Cleaned:
    """Type, check, deduplicate and order a raw log; see DROP_RULES for what drops a row."""
    now_ms = options.now_ms or time.time_ns() // 1_000_000
    given = [name for name in raw.column_names if name != ROW] if options.num_examples else []
    typed = _typed(raw, given).with_column("rule", _drop_rule(now_ms + FUTURE_TOLERANCE_MS))
    # Of good rows, what was given need not be kept.
    typed = typed.with_column(
        _GIVEN,
        when(col("rule").is_null(), lit(None).cast(DataType.string())).otherwise(col(_GIVEN)),
    ).collect()
    counts = typed.groupby("rule").agg(col(ROW).count().alias("rows")).to_pydict()
    by_rule = dict(zip(counts["rule"], counts["rows"], strict=True))
    dropped = {rule: by_rule[rule] for rule in DROP_RULES if by_rule.get(rule)}
    examples = _examples(typed, dropped, given, options.num_examples)
    kept = typed.where(col("rule").is_null()).exclude("rule", _GIVEN)
    events = _deduplicated(kept, dropped)
    events = _k_core(events, options, dropped)
    ordered = events.sort(["user_id", "timestamp_ms", ROW]).exclude(ROW).to_arrow()
    table = ordered.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    return Cleaned(table, sum(by_rule.values()), dropped, examples)


def _examples(
    typed: daft.DataFrame, dropped: dict[str, int], given: Sequence[str], number: int
) -> dict[str, list[dict[str, str]]]:
    """Return the first rows that each rule dropped, as they came."""
    if not number:
        return {}
    found = {}
    for rule in dropped:
        rows = typed.where(col("rule") == lit(rule)).sort(ROW).limit(number).to_pydict()[_GIVEN]
        # What the log holds of the separator itself is left to the last column.
        parts = [row.split(_SEPARATOR, len(given) - 1) for row in rows]
        found[rule] = [dict(zip(given, each, strict=True)) for each in parts]
    return found


DROP_RULES = (
    "missing_user_id", "missing_item_id", "id_too_long", "bad_time", "future_time",
    "unknown_event_type", "bad_coordinates", "bad_number",
)  # fmt: skip


def _drop_rule(latest_ms: int) -> Expression:
    """Return the first rule that a typed row breaks, null for a good row."""
    too_long = reduce(
        lambda a, b: a | b,
        [length(col(name)) > lit(MAX_ID_CHARS) for name in ("user_id", "item_id")],
    )
    outside = (col("lat").abs() > lit(90)) | (col("lon").abs() > lit(180))
    half = col("lat").is_null() != col("lon").is_null()
    bad_time = col("timestamp_ms").is_null() | (col("timestamp_ms") <= lit(0))
    checks = {
        "missing_user_id": _blank("user_id"),
        "missing_item_id": _blank("item_id"),
        "id_too_long": too_long,
        "bad_time": bad_time | (col("timestamp_ms") > lit(MAX_TIMESTAMP_MS)),
        "future_time": col("timestamp_ms") > lit(latest_ms),
        "unknown_event_type": ~col("event_type").is_in(list(EVENT_TYPES)),
        "bad_coordinates": col("bad_place") | half | outside.fill_null(lit(False)),
        "bad_number": col("bad_number") | (col("duration_s") < lit(0)).fill_null(lit(False)),
    }
    chain = when(checks[DROP_RULES[0]], lit(DROP_RULES[0]))
    for rule in DROP_RULES[1:]:
        chain = chain.when(checks[rule], lit(rule))
    return chain.otherwise(None)


def _typed(raw: daft.DataFrame, given: Sequence[str]) -> daft.DataFrame:
    """Return the frame with every column of EVENT_SCHEMA, `row`, `bad_place`, `bad_number`.

    What the columns `given` held is joined in `_GIVEN`.
    """
    types = {name: raw.schema()[name].dtype for name in raw.column_names}
    texts = ("user_id", "item_id", "event_id", "event_type")
    columns = [col(ROW), *[_text(name, types) for name in texts]]
    columns += [
        _timestamp_ms(types).alias("timestamp_ms"),
        _offset_min(types).alias("tz_offset_min"),
    ]
    for name in ("value", "duration_s", "lat", "lon"):
        columns.append(_number(name, types).alias(name))
    columns.append((_unreadable("lat", types) | _unreadable("lon", types)).alias("bad_place"))
    bad_number = _unreadable("value", types) | _unreadable("duration_s", types)
    texts_given = [col(name).cast(DataType.string()).fill_null("") for name in given]
    joined = reduce(lambda a, b: a + lit(_SEPARATOR) + b, texts_given or [lit("")])
    return raw.select(*columns, bad_number.alias("bad_number"), joined.alias(_GIVEN))


def _text(name: str, types: dict[str, DataType]) -> Expression:
    if name not in types:
        return lit(None).cast(DataType.string()).alias(name)
    text = strip(col(name).cast(DataType.string()))
    if name == "event_id":
        text = when(length(text) == 0, lit(None)).otherwise(text)
    return text.alias(name)


def _timestamp_ms(types: dict[str, DataType]) -> Expression:
    kind = types["time"]
    if kind.is_timestamp():
        return col("time").cast(DataType.timestamp("ms")).cast(DataType.int64())
    if kind.is_string():
        moment = try_cast(col("time"), DataType.timestamp("ms", "UTC")).cast(DataType.int64())
        return moment.fill_null(_scaled_ms(try_cast(col("time"), DataType.float64())))
    return _scaled_ms(col("time").cast(DataType.float64()))


def _scaled_ms(number: Expression) -> Expression:
    """Return whole ms of a number of seconds, ms, microseconds or nanoseconds since 1970."""
    scaled = (
        when(number >= lit(_MIN_NS), number / 1_000_000)
        .when(number >= lit(_MIN_US), number / 1000)
        .when(number >= lit(MIN_MS), number)
        .otherwise(number * 1000)
    )
    return when(is_nan(scaled), lit(None)).otherwise(scaled.round().cast(DataType.int64()))


def _offset_min(types: dict[str, DataType]) -> Expression:
    if "tz_offset_min" in types:
        return try_cast(col("tz_offset_min"), DataType.int32())
    if not types["time"].is_string():
        return lit(None).cast(DataType.int32())
    parts = [regexp_extract(col("time"), _OFFSET, group) for group in (1, 2, 3)]
    hours, minutes = (try_cast(part, DataType.int32()) for part in parts[1:])
    total = hours * 60 + minutes
    return when(parts[0] == "-", lit(0) - total).otherwise(total).cast(DataType.int32())


def _number(name: str, types: dict[str, DataType]) -> Expression:
    if name not in types:
        return lit(None).cast(DataType.float64())
    number = try_cast(col(name), DataType.float64())
    return when(is_nan(number) | _infinite(number), lit(None)).otherwise(number)


def _unreadable(name: str, types: dict[str, DataType]) -> Expression:
    """Say where a number was given and is none: text, NaN or infinite."""
    if name not in types:
        return lit(False)
    given = col(name).not_null()
    if types[name].is_string():
        given = given & (length(strip(col(name))) > lit(0))
    wrong: Expression = (given & _number(name, types).is_null()).fill_null(lit(False))
    return wrong


def _infinite(number: Expression) -> Expression:
    return number.abs() >= lit(float("inf"))


def _blank(name: str) -> Expression:
    return col(name).is_null() | (length(col(name)) == lit(0))


def _deduplicated(events: daft.DataFrame, dropped: dict[str, int]) -> daft.DataFrame:
    """Keep the first of rows that agree in every column; a repeat at another time stays.

    A client's event id is one event of its user, whatever else the rows say.
    """
    # One text key: grouping by columns that are null throughout takes Daft 0.7 quadratic time.
    names = [name for name in EVENT_SCHEMA.names if name != "event_id"]
    texts = [col(name).cast(DataType.string()).fill_null("") for name in names]
    whole = reduce(lambda a, b: a + lit("\x1f") + b, texts)
    by_id = col("user_id") + lit("\x1e") + col("event_id")
    keyed = events.with_column("key", by_id.fill_null(whole))
    first = keyed.groupby("key").agg(col(ROW).min()).select(ROW)
    unique = events.join(first, on=ROW, how="semi").collect()
    if (number := events.count_rows() - len(unique)) > 0:
        dropped["exact_duplicate"] = number
    return unique


def _k_core(
    events: daft.DataFrame, options: CleanOptions, dropped: dict[str, int]
) -> daft.DataFrame:
    """Drop users and items below the core until none is; returns the frame collected."""
    limits = {"user_id": options.min_user_events, "item_id": options.min_item_events}
    before, size = len(events), -1
    while size != len(events):
        size = len(events)
        for name, least in limits.items():
            if least > 1:
                counts = events.groupby(name).agg(col(ROW).count().alias("events"))
                kept = counts.where(col("events") >= lit(least)).select(name)
                events = events.join(kept, on=name, how="semi").collect()
    if before > len(events):
        dropped["k_core"] = before - len(events)
    return events
