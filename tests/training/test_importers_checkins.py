"""Check-ins: the same two users at the same two places, in every layout."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.builders import written
from tests.training.test_real_data import folder
from training.config import TrainingError
from training.importers.checkins import import_checkins

# 2012-04-03T18:00:09Z; 15,433 days and 18 hours, 0 minutes, 9 seconds after 1970.
FIRST_S = 15_433 * 86_400 + 18 * 3_600 + 9
CAFE = (40.71, -74.0)
PARK = (40.8, -73.9)


def _copy(path: Path) -> None:
    events = {
        "user_id": [1, 1, 2], "item_id": [7, 8, 7],
        "timestamp": [FIRST_S, FIRST_S + 60, FIRST_S + 120], "tz_offset_min": [-240] * 3,
    }  # fmt: skip
    places = {
        "item_id": [8, 7], "lat": [PARK[0], CAFE[0]], "lon": [PARK[1], CAFE[1]],
        "category": [None, "Café"],
    }  # fmt: skip
    pq.write_table(pa.table(events), path / "events.parquet")
    pq.write_table(pa.table(places), path / "items.parquet")


def _tsmc_line(user: int, venue: int, category: str, place: tuple[float, float], at: str) -> str:
    return f"{user}\t{venue}\tc{venue}\t{category}\t{place[0]}\t{place[1]}\t-240\t{at}"


def _tsmc(path: Path) -> None:
    lines = [
        _tsmc_line(1, 7, "Café", CAFE, "Tue Apr 03 18:00:09 +0000 2012"),
        _tsmc_line(1, 8, "", PARK, "Tue Apr 03 18:01:09 +0000 2012"),
        _tsmc_line(2, 7, "Café", CAFE, "Tue Apr 03 18:02:09 +0000 2012"),
    ]
    (path / "dataset_TSMC2014_NYC.txt").write_bytes("\n".join(lines).encode("latin-1"))


def _snap_lines() -> bytes:
    return (
        f"1\t2012-04-03T18:01:09Z\t{PARK[0]}\t{PARK[1]}\t8\n"
        f"1\t2012-04-03T18:00:09Z\t{CAFE[0]}\t{CAFE[1]}\t7\n"
        f"2\t2012-04-03T18:02:09Z\t{CAFE[0]}\t{CAFE[1]}\t7\n"
    ).encode()


def _snap(path: Path) -> None:
    (path / "Gowalla_totalCheckins.txt").write_bytes(_snap_lines())


def _snap_gz(path: Path) -> None:
    (path / "loc-gowalla_totalCheckins.txt.gz").write_bytes(gzip.compress(_snap_lines()))


@pytest.mark.parametrize("layout", [_copy, _tsmc, _snap, _snap_gz])
def test_every_layout_gives_the_same_check_ins(layout, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # a local writer
    """Who, where, when and at which coordinates agree; SNAP knows no offset and no category."""
    layout(tmp_path)
    info, events, items = written(import_checkins(tmp_path), tmp_path / "out")
    got = [(e["user_id"], e["item_id"], e["timestamp_ms"], (e["lat"], e["lon"])) for e in events]
    assert got == [
        ("1", "7", FIRST_S * 1000, CAFE),
        ("1", "8", (FIRST_S + 60) * 1000, PARK),
        ("2", "7", (FIRST_S + 120) * 1000, CAFE),
    ]
    knows_more = layout in (_copy, _tsmc)
    assert {e["event_type"] for e in events} == {"check-in"}
    assert {e["tz_offset_min"] for e in events} == {-240 if knows_more else None}
    assert items["7"]["categories"] == (["Café"] if knows_more else [])
    assert items["8"]["categories"] == []
    assert (items["8"]["lat"], items["8"]["lon"]) == PARK
    assert (info.kind, info.dropped, info.num_rows_read) == ("checkins", {}, 3)
    assert "Acknowledge" in info.licence_notice


def test_a_place_fills_in_only_for_events_without_coordinates(tmp_path: Path) -> None:
    """What was recorded with the event is nearer to the truth; an unknown place fills nothing."""
    events = {
        "user_id": ["a"] * 3, "item_id": ["x", "x", "y"], "timestamp": [FIRST_S] * 3,
        "lat": [1.5, None, None], "lon": [2.5, None, None],
    }  # fmt: skip
    places = {"item_id": ["x", "y"], "lat": [1.0, 91.0], "lon": [2.0, 2.0]}
    pq.write_table(pa.table(events), tmp_path / "events.parquet")
    pq.write_table(pa.table(places), tmp_path / "items.parquet")
    info, rows, items = written(import_checkins(tmp_path), tmp_path / "out")
    assert [(row["lat"], row["lon"]) for row in rows] == [(1.5, 2.5), (1.0, 2.0), (None, None)]
    assert (items["y"]["lat"], items["y"]["lon"]) == (None, None)
    assert info.dropped == {}


def test_lines_that_are_no_check_in_are_counted_by_rule(tmp_path: Path) -> None:
    """A cut line, a time of another form and a place at the pole's other side."""
    good = _tsmc_line(1, 7, "Bar", CAFE, "Tue Apr 03 18:00:09 +0000 2012")
    lines = [
        good,
        "1\t7\tc7\tBar",
        _tsmc_line(1, 7, "Bar", CAFE, "2012-04-03"),
        _tsmc_line(1, 7, "Bar", (140.7, -74.0), "Tue Apr 03 18:00:09 +0000 2012"),
        good,
    ]
    (tmp_path / "dataset_TSMC2014_TKY.txt").write_text("\n".join(lines) + "\n")
    info, events, _ = written(import_checkins(tmp_path), tmp_path / "out")
    assert info.dropped == {
        "bad_row": 1, "bad_time": 1, "bad_coordinates": 1, "exact_duplicate": 1,
    }  # fmt: skip
    assert (info.num_rows_read, len(events)) == (5, 1)


def test_zero_coordinates_and_the_zero_place_of_snap_are_unknown(tmp_path: Path) -> None:
    """Brightkite writes zeros where it knows nothing; nobody was in the Gulf of Guinea."""
    lines = ["1\t2010-01-01T00:00:00Z\t0.0\t0.0\tab", "1\t2010-01-02T00:00:00Z\t0\t0\t" + "0" * 32]
    (tmp_path / "Brightkite_totalCheckins.txt").write_text("\n".join(lines))
    info, events, items = written(import_checkins(tmp_path), tmp_path / "out")
    assert [(e["item_id"], e["lat"], e["lon"]) for e in events] == [("ab", None, None)]
    assert items["ab"]["lat"] is None
    assert info.dropped == {"missing_item_id": 1}


def test_what_is_no_log_of_check_ins_says_what_was_looked_for(tmp_path: Path) -> None:
    """A path that is missing, a folder of something else, a file of another name."""
    (tmp_path / "notes.txt").write_text("1\t2\n")
    with pytest.raises(TrainingError, match=r"gone: no such file.*dataset_TSMC2014_\*\.txt"):
        import_checkins(tmp_path / "gone")
    with pytest.raises(TrainingError, match=r"holds none of events\.parquet, .*totalCheckins"):
        import_checkins(tmp_path)
    with pytest.raises(TrainingError, match=r"notes\.txt: is none of events\.parquet"):
        import_checkins(tmp_path / "notes.txt")


def test_two_cities_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    """User 1 of New York is not user 1 of Tokyo; a file can be given instead."""
    _tsmc(tmp_path)
    text = (tmp_path / "dataset_TSMC2014_NYC.txt").read_bytes()
    (tmp_path / "dataset_TSMC2014_TKY.txt").write_bytes(text)
    with pytest.raises(TrainingError, match=r"NYC\.txt and dataset_TSMC2014_TKY\.txt"):
        import_checkins(tmp_path)
    assert import_checkins(tmp_path / "dataset_TSMC2014_TKY.txt").items.num_rows == 2


def test_a_damaged_copy_is_one_clear_line(tmp_path: Path) -> None:
    """No places, no column, no parquet: each is named with its file."""
    _copy(tmp_path)
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(TrainingError, match=r"items\.parquet: missing; get the whole data set"):
        import_checkins(tmp_path)
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "events.parquet")
    with pytest.raises(TrainingError, match=r"events\.parquet: no column 'item_id'; needed are"):
        import_checkins(tmp_path)
    (tmp_path / "events.parquet").write_text("no parquet")
    with pytest.raises(TrainingError, match=r"events\.parquet: cannot be read: .*get the file"):
        import_checkins(tmp_path)


@pytest.mark.data
@pytest.mark.integration
def test_every_check_in_of_new_york_has_its_place(tmp_path: Path) -> None:
    """147,938 rows at minute precision, 458 of which say the same as another; 62 bare places."""
    info, events, items = written(import_checkins(folder("foursquare-nyc")), tmp_path / "out")
    assert (info.num_rows_read, info.dropped) == (147_938, {"exact_duplicate": 458})
    assert (info.num_events, info.num_users, info.num_items) == (147_480, 1_083, 5_135)
    assert all(40 < event["lat"] < 42 and -75 < event["lon"] < -73 for event in events)
    assert sum(not item["categories"] for item in items.values()) == 62
