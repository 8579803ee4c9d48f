"""Times that would be read wrongly without a word: of csv files, and of tables with types."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.cleaning import CleanOptions, clean
from training.config import TrainingError
from training.importers.events import ColumnOptions, import_events

HEAD = "user_id,item_id,timestamp\n"
EVENING = datetime(2024, 1, 31, 18, 30, tzinfo=UTC)
# In winter.
BERLIN_HOURS = 1


def times_of(path: Path, **options: str) -> list[tuple[datetime, int | None]]:
    """Return the moments and offsets of a log's events."""
    log = import_events(path, ColumnOptions(**options))  # type: ignore[arg-type]  # texts only
    rows = clean(log.events, CleanOptions()).events.to_pylist()
    return [
        (datetime.fromtimestamp(row["timestamp_ms"] / 1000, UTC), row["tz_offset_min"])
        for row in rows
    ]


def csv_of(folder: Path, *times: str) -> Path:
    """Write a log of one user with these times."""
    path = folder / "log.csv"
    path.write_text(HEAD + "".join(f"a,{at},{t}\n" for at, t in enumerate(times)))
    return path


def table_of(folder: Path, times: pa.Array) -> Path:
    """Write a parquet log of one user with these times."""
    path = folder / "log.parquet"
    items = [str(at) for at in range(len(times))]
    pq.write_table(
        pa.table({"user_id": ["a"] * len(times), "item_id": items, "timestamp": times}), path
    )
    return path


@pytest.mark.parametrize("day", ["24-01-15", "22/12/20"])
def test_a_short_year_at_either_end_is_asked_for(day: str, tmp_path: Path) -> None:
    """24-01-15 was read as a day of 2015."""
    with pytest.raises(TrainingError, match="may begin with the day or the year; add --date-order"):
        import_events(csv_of(tmp_path, day), ColumnOptions())
    assert times_of(csv_of(tmp_path, "24-01-15"), date_order="day-first")[0][0].year == 2015


def test_a_short_year_that_can_only_be_last_is_read(tmp_path: Path) -> None:
    """Points part the day first, and what reaches 31 is no year that has been."""
    assert times_of(csv_of(tmp_path, "31.01.24 18:30")) == [(EVENING, None)]
    assert times_of(csv_of(tmp_path, "31/01/24"))[0][0].day == 31


def test_a_date_and_minutes_in_one_number_are_no_milliseconds(tmp_path: Path) -> None:
    """As milliseconds, 202401311830 lies in 1976."""
    assert times_of(csv_of(tmp_path, "202401311830")) == [(EVENING, None)]


def test_an_offset_of_hours_is_kept(tmp_path: Path) -> None:
    """The local hour is what a model reads."""
    found = times_of(csv_of(tmp_path, "2024-01-31T18:30:00+05", "2024-01-31T18:30:00+05:30"))
    assert sorted(offset or 0 for _, offset in found) == [300, 330]


def test_a_number_that_excel_shortened_is_refused(tmp_path: Path) -> None:
    """1.7067E+12 is any time of eleven days."""
    with pytest.raises(TrainingError, match="have lost their last digits, as Excel"):
        import_events(csv_of(tmp_path, "1.7067E+12"), ColumnOptions())


def test_numbers_of_a_table_are_looked_at_as_those_of_a_csv_file(tmp_path: Path) -> None:
    """20240131 is a day, and 1, 2, 3 only an order; both were seconds of 1970."""
    found = times_of(table_of(tmp_path, pa.array([20240131])))
    assert found == [(datetime(2024, 1, 31, tzinfo=UTC), None)]
    with pytest.raises(TrainingError, match="only count the order"):
        import_events(table_of(tmp_path, pa.array([1, 2, 3])), ColumnOptions())
    seconds = int(EVENING.timestamp())
    assert times_of(table_of(tmp_path, pa.array([seconds]))) == [(EVENING, None)]
    # A table of floats has all digits, though as a text it may have few.
    nanoseconds = float(seconds // 10**6 * 10**6) * 1e9
    assert times_of(table_of(tmp_path, pa.array([nanoseconds])))[0][0].year == 2024


def test_days_of_a_table_are_days(tmp_path: Path) -> None:
    """Their numbers, days since 1970, were read as seconds."""
    found = times_of(table_of(tmp_path, pa.array([date(2024, 1, 31)])))
    assert found == [(datetime(2024, 1, 31, tzinfo=UTC), None)]


def test_a_zone_is_heeded_for_times_of_a_table(tmp_path: Path) -> None:
    """--time-zone was ignored for all but texts; without one, the reader hears of it."""
    naive = pa.array([datetime(2024, 1, 31, 18, 30)], pa.timestamp("us"))  # noqa: DTZ001  # that is the point
    path = table_of(tmp_path, naive)
    found = times_of(path, time_zone="Europe/Berlin")
    assert found == [(EVENING.replace(hour=18 - BERLIN_HOURS), 60)]
    assert "read as UTC" in " ".join(import_events(path, ColumnOptions()).notes)
    known = pa.array([EVENING], pa.timestamp("ms", "UTC"))
    path = table_of(tmp_path, known)
    assert times_of(path, time_zone="Europe/Berlin") == [(EVENING, 60)]
    assert times_of(path) == [(EVENING, None)]
    assert import_events(path, ColumnOptions()).notes == ()


def test_the_zone_of_a_tables_column_gives_the_offset(tmp_path: Path) -> None:
    """A column of local times says what the local hour was."""
    local = pa.array([EVENING], pa.timestamp("us", "Europe/Berlin"))
    assert times_of(table_of(tmp_path, local)) == [(EVENING, 60)]
