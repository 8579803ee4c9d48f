"""Cleaning: every rule drops what it names, counts it, and nothing else."""

from pathlib import Path
from typing import Any

import daft
import pytest

from training.cleaning import ROW, CleanOptions, clean

NOW_MS = 1_700_000_000_000
GOOD: dict[str, Any] = {
    "user_id": "u", "item_id": "i", "time": "1600000000", "event_type": "view",
    "value": None, "lat": None, "lon": None, "duration_s": None, "event_id": None,
}  # fmt: skip


def cleaned(*rows: dict[str, Any], **options: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Clean rows that are good unless overridden; returns (events, dropped)."""
    full = [GOOD | {"item_id": f"i{place}"} | row for place, row in enumerate(rows)]
    columns: dict[str, Any] = {name: [row[name] for row in full] for name in GOOD}
    schema = {
        name: daft.DataType.float64() if name in {"lat", "lon"} else daft.DataType.string()
        for name in GOOD
    }
    frame = daft.from_pydict(columns | {ROW: list(range(len(rows)))})
    frame = frame.select(ROW, *[daft.col(name).cast(kind) for name, kind in schema.items()])
    result = clean(frame, CleanOptions(now_ms=NOW_MS, **options))
    return result.events.to_pylist(), result.dropped


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ({"user_id": None}, "missing_user_id"),
        ({"user_id": "  "}, "missing_user_id"),
        ({"item_id": ""}, "missing_item_id"),
        ({"item_id": "x" * 129}, "id_too_long"),
        ({"time": None}, "bad_time"),
        ({"time": "yesterday"}, "bad_time"),
        ({"time": "0"}, "bad_time"),
        ({"time": "nan"}, "bad_time"),
        ({"time": "1800000000"}, "future_time"),
        ({"event_type": "blink"}, "unknown_event_type"),
        ({"lat": 91.0, "lon": 0.0}, "bad_coordinates"),
        ({"lat": 1.0}, "bad_coordinates"),
        ({"lat": float("nan"), "lon": 1.0}, "bad_coordinates"),
        ({"value": "many"}, "bad_number"),
        ({"value": "inf"}, "bad_number"),
        ({"duration_s": "-1"}, "bad_number"),
    ],
)
def test_a_bad_row_is_dropped_under_its_rule(bad: dict[str, Any], rule: str) -> None:
    """The good row beside it stays."""
    events, dropped = cleaned({}, bad)
    assert [event["item_id"] for event in events] == ["i0"]
    assert dropped == {rule: 1}


def test_exact_duplicates_go_and_repeats_stay() -> None:
    """The same place an hour later is a visit of its own."""
    same = {"item_id": "cafe"}
    events, dropped = cleaned(same, same, same | {"time": "1600003600"})
    assert len(events) == 2
    assert dropped == {"exact_duplicate": 1}


def test_a_client_event_id_is_one_event() -> None:
    """A retry with another value is still the same event of the same user."""
    first = {"event_id": "e1", "value": "1"}
    events, dropped = cleaned(first, first | {"value": "2"}, first | {"user_id": "v"})
    assert [(event["user_id"], event["value"]) for event in events] == [("u", 1.0), ("v", 1.0)]
    assert dropped == {"exact_duplicate": 1}


@pytest.mark.parametrize(
    ("time", "timestamp_ms", "offset_min"),
    [
        ("1600000000", 1_600_000_000_000, None),
        ("1600000000123", 1_600_000_000_123, None),
        ("1600000000123456", 1_600_000_000_123, None),
        ("2020-09-13T12:26:40Z", 1_600_000_000_000, None),
        ("2020-09-13T14:26:40+02:00", 1_600_000_000_000, 120),
        ("2020-09-13T07:56:40.5-04:30", 1_600_000_000_500, -270),
    ],
)
def test_times_are_read_in_all_forms(time: str, timestamp_ms: int, offset_min: int | None) -> None:
    """Seconds, milliseconds, microseconds and RFC 3339, whose offset is kept."""
    (event,), _ = cleaned({"time": time})
    assert event["timestamp_ms"] == timestamp_ms
    assert event["tz_offset_min"] == offset_min


def test_events_are_ordered_by_user_time_and_source_order() -> None:
    """Ties keep the order of the file, and a late line goes where its time says."""
    events, _ = cleaned(
        {"time": "1600000002"}, {"time": "1600000001"}, {"time": "1600000001"}, {"user_id": "a"}
    )
    assert [event["item_id"] for event in events] == ["i3", "i1", "i2", "i0"]


def test_the_k_core_is_applied_until_nothing_more_drops() -> None:
    """Dropping item z leaves user b one event, and then none of b's."""
    rows = [
        {"user_id": user, "item_id": item, "time": str(1_600_000_000 + place)}
        for place, (user, item) in enumerate(zip("aaccbb", "xyxyxz", strict=True))
    ]
    events, dropped = cleaned(*rows, min_user_events=2, min_item_events=2)
    assert {event["user_id"] for event in events} == {"a", "c"}
    assert dropped == {"k_core": 2}


def test_numeric_columns_are_taken_too(tmp_path: Path) -> None:
    """Parquet logs have typed columns: integer ids, float seconds."""
    frame = daft.from_pydict(
        {"user_id": [7], "item_id": [9], "time": [1_600_000_000.25], "event_type": ["view"]}
    )
    result = clean(frame.with_column(ROW, daft.lit(0)), CleanOptions(now_ms=NOW_MS))
    (event,) = result.events.to_pylist()
    assert (event["user_id"], event["item_id"]) == ("7", "9")
    assert event["timestamp_ms"] == 1_600_000_000_250
