"""Import and split of the real data sets in SOJOURN_DATA (default ../shared/data)."""

import os
from pathlib import Path

import pytest

from training.cleaning import CleanOptions
from training.data import DatasetInfo, read_dataset
from training.importers.events import ColumnOptions, import_events
from training.importers.movielens import import_movielens
from training.importers.writing import write_dataset
from training.splits import leave_one_out

pytestmark = [pytest.mark.data, pytest.mark.integration]
ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOJOURN_DATA", ROOT.parent / "shared" / "data"))


def folder(name: str) -> Path:
    """Return a data set's folder, or skip and say which one is missing and where it goes."""
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"{path} is missing; name the folder that holds {name} in SOJOURN_DATA")
    return path


def imported(name: str, out: Path) -> DatasetInfo:
    """Import one of the MovieLens copies."""
    path = folder(name)
    return write_dataset(import_movielens(path), CleanOptions(), out, path)


def test_movielens_100k_is_whole_and_has_times(tmp_path: Path) -> None:
    """The published size: 100,000 ratings of 943 users on 1,682 films."""
    info = imported("ml-100k", tmp_path / "out")
    assert (info.num_events, info.num_users, info.num_items) == (100_000, 943, 1_682)
    assert (info.time_axis, info.dropped, info.repeat_share) == ("time", {}, 0.0)


def test_movielens_1m_has_its_order_and_a_case_for_every_user(tmp_path: Path) -> None:
    """598 ratings of rare films have no order; the rest is the 999,611 that papers use."""
    info = imported("ml-1m", tmp_path / "out")
    assert (info.num_events, info.num_users, info.num_items) == (999_611, 6_040, 3_416)
    assert (info.time_axis, info.dropped) == ("order", {"no_order": 598})
    events, _ = read_dataset(tmp_path / "out")
    split = leave_one_out(events)
    assert len(split.test) == len(split.validation) == 6_040
    assert split.sha256.startswith("b80df96ba943")


def test_the_exact_duplicates_of_kuairand_are_found(tmp_path: Path) -> None:
    """5,877 rows agree in every column of the log; one more in all that is imported here."""
    path = folder("kuairand-pure") / "events.parquet"
    columns = ColumnOptions(time="time_ms", value="play_time_ms", event_type_default="play")
    info = write_dataset(import_events(path, columns), CleanOptions(), tmp_path / "out", path)
    assert info.num_rows_read == 228_329
    assert info.dropped == {"exact_duplicate": 5_877 + 1}


def test_check_ins_keep_their_repeats_and_their_local_offset(tmp_path: Path) -> None:
    """Most check-ins of New York are revisits, at hours that are local."""
    path = folder("foursquare-nyc") / "events.parquet"
    columns = ColumnOptions(tz_offset_min="tz_offset_min", event_type_default="check-in")
    info = write_dataset(import_events(path, columns), CleanOptions(), tmp_path / "out", path)
    events, _ = read_dataset(tmp_path / "out")
    assert info.num_users == 1_083
    assert info.repeat_share > 0.5
    assert set(events.window.tz_offsets_min.tolist()) == {-300, -240}
