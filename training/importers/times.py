"""Times as people write them: the order of day and month, the hour's zone, and the unit.

Times that are unmistakable are read by the cleaner. What is here looks at the shapes of a text
column ("9" for every digit), reads the rest in Python, and names the option where a time could
mean two things.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import daft
import pyarrow as pa
from daft import DataType, Series, col
from daft.functions import regexp_extract, regexp_replace, strip, try_cast

from training.cleaning import MIN_MS
from training.config import TrainingError
from training.importers.csv_text import shown

DateOrder = Literal["day-first", "month-first"]
GIVEN_TIME = "given_time"
MAX_SHAPES = 500
MAX_MONTH = 12
# What a text or a table's own column holds.
Moment = str | datetime | date
# Numbers of seconds below this lie before March 1973: counters or Excel's days, not times.
MIN_SECONDS = 100_000_000
_EXCEL_DAYS = (20_000, 80_000)
_EPOCH = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
# A date and time in one number; 12 digits would else be milliseconds of the seventies.
_COMPACT = re.compile(r"((?:19|20)\d\d)(0\d|1[0-2])([0-3]\d)(?:[T ]?(\d\d)(\d\d)(\d\d)?)?")
# An offset without minutes is read here: the cleaner would take the time and lose the offset.
_NATIVE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?)?")
# What Excel makes of a long number: most of its digits are gone.
_SHORTENED = re.compile(r"\d([.,]\d{1,7})?[eE]\+?\d+")
_DATE = re.compile(
    r"(?P<a>\d{1,4})(?P<sep>[./-])(?P<b>\d{1,2})(?P=sep)(?P<c>\d{1,4})"
    r"(?:(?:,\s*|\s+|T)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)"
    r"(?:[.,](?P<part>\d{1,9}))?)?(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
    r"(?:\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?)?"
)
_YEAR_DIGITS = 4
_READ_AS_UTC = (
    "times {} have no offset and are read as UTC; if they are local, add "
    "--time-zone Europe/Berlin (or yours), so that the hour of day is right"
)


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """What was said of the times; None leaves it to the column, which must then be clear."""

    zone: str | None = None
    date_order: DateOrder | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """Times of one shape: one of them, and their largest first and second number."""

    example: str
    first: int
    second: int
    least: float | None
    most: float | None


def read_times(
    frame: daft.DataFrame, options: TimeOptions
) -> tuple[daft.DataFrame, tuple[str, ...]]:
    """Return the frame with the column `time` so that the cleaner reads it, and what was guessed.

    A column that is read here keeps its texts as GIVEN_TIME; offsets that a zone gives become the
    column `tz_offset_min`, unless there is one. Raises TrainingError for a column that could mean
    two things.
    """
    zone = _zone(options.zone)
    kind = frame.schema()["time"].dtype
    if kind.is_timestamp() or kind.is_date():
        return _read_typed(frame, zone)
    # Numbers of a table are looked at as those of a csv file are: 20260131 is a date in both.
    texts = frame.with_column("time", col("time").cast(DataType.string()))
    shapes = _shapes(texts)
    if kind.is_string():
        _check_whole(shapes)
    _check_numbers(shapes)
    order, notes = _date_order(shapes, options.date_order)
    notes += _zone_notes(shapes, options.zone)
    numbers = [shape for shape in shapes if _is_number(shape.example)]
    small = [s for s in numbers if s.least is not None and s.least < MIN_MS]
    large = [s for s in numbers if s.most is not None and s.most >= MIN_MS]
    if small and large:
        notes.append(
            f"times are partly seconds ({small[0].example}) and partly smaller units "
            f"({large[0].example}); each is read by its size"
        )
    if zone is None and all(_reads_natively(shape.example) for shape in shapes):
        return frame, tuple(notes)
    return _in_python(texts, order, zone), tuple(notes)


def _read_typed(
    frame: daft.DataFrame, zone: ZoneInfo | None
) -> tuple[daft.DataFrame, tuple[str, ...]]:
    """Return times of a table's own type as `read_times` does; their own zone gives offsets too."""
    kind = frame.schema()["time"].dtype
    own = kind.timezone if kind.is_timestamp() else None
    if zone is not None:
        return _in_python(frame, None, zone), ()
    if own is not None and own not in ("UTC", "Z", "Etc/UTC", "+00:00"):
        return _in_python(frame, None, None), ()
    notes = (
        ()
        if own is not None or "tz_offset_min" in frame.column_names
        else (_READ_AS_UTC.format("that are typed as such"),)
    )
    return frame.with_column("time", col("time").cast(DataType.timestamp("ms", own))), notes


def parse_time(
    text: Moment, order: DateOrder | None, zone: ZoneInfo | None
) -> tuple[int, int | None] | None:
    """Return (ms since 1970 in UTC, offset in minutes or None), or None for what is no time.

    >>> parse_time("31.01.2026 18:30", "day-first", ZoneInfo("Europe/Berlin"))
    (1769880600000, 60)
    """
    try:
        moment = _moment(text.strip(), order) if isinstance(text, str) else _started(text)
        if moment is None:
            return None
        known = moment.utcoffset() not in (None, timedelta(0))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone or UTC)
            known = zone is not None
        elif zone is not None and not known:
            moment, known = moment.astimezone(zone), True
        offset = moment.utcoffset() or timedelta(0)
        minutes = round(offset.total_seconds() / 60) if known else None
        return round(moment.timestamp() * 1000), minutes
    except (ValueError, OverflowError):
        return None


def _started(moment: date) -> datetime:
    """Return a time as it is, and a day at its begin."""
    if isinstance(moment, datetime):
        return moment
    return datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001  # the zone comes later


def _moment(text: str, order: DateOrder | None) -> datetime | None:
    if compact := _COMPACT.fullmatch(text):
        return datetime(*[int(part) for part in compact.groups() if part])  # type: ignore[arg-type]  # noqa: DTZ001  # 3, 5 or 6 numbers; the zone comes later
    if _EPOCH.fullmatch(text):
        number = float(text)
        while number >= MIN_MS:
            number /= 1000
        return datetime.fromtimestamp(number, UTC)
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day = _year_month_day(match, order)
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= MAX_MONTH:
            return None
        hour = hour % 12 + (12 if match["half"] in "Pp" else 0)
    microseconds = int((match["part"] or "0").ljust(6, "0")[:6])
    return datetime(
        year, month, day, hour, int(match["minute"] or 0), int(match["second"] or 0),
        microseconds, _offset(match["zone"]),
    )  # fmt: skip


def _year_month_day(match: re.Match[str], order: DateOrder | None) -> tuple[int, int, int]:
    first, second, third = int(match["a"]), int(match["b"]), int(match["c"])
    if len(match["a"]) == _YEAR_DIGITS:
        return first, second, third
    year = third if len(match["c"]) == _YEAR_DIGITS else 2000 + third
    return (year, first, second) if order == "month-first" else (year, second, first)


def _offset(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text[0] not in "+-":
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].strip(":") or 0)
    sign = -1 if text[0] == "-" else 1
    return timezone(sign * timedelta(hours=hours, minutes=minutes))


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise TrainingError(
            f"--time-zone {name}: is unknown; name one as Europe/Berlin or America/New_York"
        ) from exc


def _shapes(frame: daft.DataFrame) -> list[_Shape]:
    """Return the shapes of a column's texts, the most frequent first."""
    text = strip(col("time"))
    number = try_cast(text, DataType.float64())
    table = (
        frame.where(col("time").not_null())
        .select(
            text.alias("text"),
            regexp_replace(text, r"\d", "9").alias("shape"),
            try_cast(regexp_extract(text, r"^(\d+)\D(\d+)", 1), DataType.int64()).alias("first"),
            try_cast(regexp_extract(text, r"^(\d+)\D(\d+)", 2), DataType.int64()).alias("second"),
            number.alias("number"),
        )
        .groupby("shape")
        .agg(
            col("text").min().alias("example"),
            col("text").count().alias("rows"),
            col("first").max(),
            col("second").max(),
            col("number").min().alias("least"),
            col("number").max().alias("most"),
        )
        .sort("rows", desc=True)
        .limit(MAX_SHAPES)
        .to_pylist()
    )
    return [
        _Shape(r["example"], r["first"] or 0, r["second"] or 0, r["least"], r["most"])
        for r in table
    ]


def _is_number(text: str) -> bool:
    return bool(_EPOCH.fullmatch(text)) and not _COMPACT.fullmatch(text)


def _reads_natively(text: str) -> bool:
    """Say whether the cleaner reads such a text, or nobody can."""
    return _is_number(text) or bool(_NATIVE.fullmatch(text)) or not _could_be_time(text)


def _could_be_time(text: str) -> bool:
    return bool(_COMPACT.fullmatch(text) or _DATE.fullmatch(text))


def _check_whole(shapes: Sequence[_Shape]) -> None:
    """Raise TrainingError where a text is a number without its last digits."""
    for shape in shapes:
        if _SHORTENED.fullmatch(shape.example):
            raise TrainingError(
                f"times such as {shown(shape.example)} have lost their last digits, as Excel "
                "writes long numbers; give the cells the format 0 and save the file again"
            )


def _check_numbers(shapes: Sequence[_Shape]) -> None:
    """Raise TrainingError where numbers stand that cannot be times."""
    numbers = [s for s in shapes if _is_number(s.example) and s.most is not None]
    if not numbers or max(s.most or 0 for s in numbers) >= MIN_SECONDS:
        return
    example = numbers[0].example
    days = _EXCEL_DAYS[0] < float(example) < _EXCEL_DAYS[1]
    fix = (
        "they look like Excel's day numbers: give the cells the format yyyy-mm-dd hh:mm:ss and "
        "save the file again"
        if days
        else "if they only count the order, add a column of real times"
    )
    raise TrainingError(
        f"times such as {shown(example)} are no seconds, milliseconds or microseconds since 1970; "
        f"{fix}, or name another column with --time-column"
    )


def _date_order(
    shapes: Sequence[_Shape], given: DateOrder | None
) -> tuple[DateOrder | None, list[str]]:
    """Return whether the day or the month is first in dates as 31/01/2026."""
    dates = [s for s in shapes if (m := _DATE.fullmatch(s.example)) and len(m["a"]) < _YEAR_DIGITS]
    if not dates or given is not None:
        return given, []
    day_first = [s for s in dates if s.first > MAX_MONTH]
    month_first = [s for s in dates if s.second > MAX_MONTH]
    if day_first and month_first:
        raise TrainingError(
            f"in some dates the first number is a day (it reaches {max(s.first for s in dates)}), "
            f"in some the second ({max(s.second for s in dates)}), as in "
            f"{shown(day_first[0].example)}; write all alike, as 2026-01-31 18:30:00, or add "
            "--date-order day-first (or month-first), which drops and counts those that do not fit"
        )
    example = dates[0].example
    if month_first:
        return "month-first", [f"dates: month first, as {shown(example)}"]
    # 24-01-15 may be the 24th of January or of the year 2024; 31-01-15 is of no year yet.
    years = [s for s in day_first if _has_short_year(s.example) and "." not in s.example]
    if years and max(s.first for s in years) <= datetime.now(UTC).year % 100:
        raise TrainingError(
            f"dates such as {shown(years[0].example)} may begin with the day or the year; add "
            "--date-order day-first, or write them as 2026-01-31"
        )
    if day_first or all("." in s.example for s in dates):
        return "day-first", [f"dates: day first, as {shown(example)}"]
    raise TrainingError(
        f"dates such as {shown(example)} may begin with the day or the month; add "
        "--date-order day-first or --date-order month-first"
    )


def _has_short_year(text: str) -> bool:
    match = _DATE.fullmatch(text)
    return match is not None and len(match["c"]) < _YEAR_DIGITS


def _zone_notes(shapes: Sequence[_Shape], zone: str | None) -> list[str]:
    if zone is not None:
        return []
    without = [s.example for s in shapes if _lacks_offset(s.example)]
    if not without:
        return []
    return [_READ_AS_UTC.format(f"as {shown(without[0])}")]


def _lacks_offset(text: str) -> bool:
    match = _DATE.fullmatch(text)
    if match is not None:
        return match["zone"] is None
    return bool(_COMPACT.fullmatch(text))


def _in_python(
    frame: daft.DataFrame, order: DateOrder | None, zone: ZoneInfo | None
) -> daft.DataFrame:
    """Read the column one text at a time, in Python."""
    kind = DataType.struct({"ms": DataType.int64(), "offset": DataType.int32()})
    arrow = pa.struct([("ms", pa.int64()), ("offset", pa.int32())])
    nothing = {"ms": None, "offset": None}

    def read(texts: Series) -> pa.Array:
        pairs = [None if t is None else parse_time(t, order, zone) for t in texts.to_pylist()]
        rows = [{"ms": p[0], "offset": p[1]} if p else nothing for p in pairs]
        return pa.array(rows, arrow)

    parsed = daft.func.batch(return_dtype=kind)(read)(col("time"))
    read_frame = frame.with_column("parsed", parsed)
    columns = {
        GIVEN_TIME: col("time"),
        "time": col("parsed").get("ms").cast(DataType.timestamp("ms")),
    }
    if "tz_offset_min" not in frame.column_names:
        columns["tz_offset_min"] = col("parsed").get("offset")
    return read_frame.with_columns(columns).exclude("parsed")
