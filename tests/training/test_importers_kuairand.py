"""KuaiRand: a row is an impression; the click, the watch time and the watched share are told."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.builders import written
from tests.training.test_real_data import folder
from training.config import TrainingError
from training.importers.kuairand import import_kuairand

HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
TIME_MS = 1_650_882_384_975


def _line(user: int, video: int, time_ms: int, *, click: int, watched: tuple[object, int]) -> str:
    shown = f"{user},{video},20220425,1826,{time_ms}"
    return f"{shown},{click},0,0,0,0,0,0,{watched[0]},{watched[1]},0,0,0,0,1"


def _public(path: Path) -> None:
    data = path / "data"
    data.mkdir()
    standard = [
        HEADER,
        _line(5, 70, TIME_MS, click=1, watched=(3_000, 2_000)),
        _line(5, 71, TIME_MS + 1, click=0, watched=(0, 0)),
    ]
    (data / "log_standard_4_22_to_5_08_pure.csv").write_text("\n".join(standard) + "\n")
    random = [HEADER, _line(6, 70, TIME_MS + 2, click=0, watched=(500, 2_000))]
    (data / "log_random_4_22_to_5_08_pure.csv").write_text("\n".join(random) + "\n")
    features = [
        "video_id,author_id,video_type,upload_dt,video_duration,tag",
        '70,9,NORMAL,2022-04-10,2000.0,"39,68"',
        "71,9,NORMAL,2022-04-10,,",
        "99,9,NORMAL,2022-04-10,1.0,3",
    ]
    (data / "video_features_basic_pure.csv").write_text("\n".join(features) + "\n")


def _copy(path: Path) -> None:
    log = {
        "user_id": [5, 5, 6], "item_id": [70, 71, 70], "timestamp": [TIME_MS // 1000] * 3,
        "time_ms": [TIME_MS, TIME_MS + 1, TIME_MS + 2], "play_time_ms": [3_000, 0, 500],
        "duration_ms": [2_000, 0, 2_000], "is_click": [1, 0, 0], "tab": [1, 1, 1],
    }  # fmt: skip
    pq.write_table(pa.table(log), path / "events.parquet")
    videos = {"item_id": [70, 71, 99], "tag": ["39,68", None, "3"]}
    pq.write_table(pa.table(videos), path / "items.parquet")


@pytest.mark.parametrize("layout", [_public, _copy])
def test_an_impression_tells_the_click_and_what_was_watched(layout, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # a local writer
    """3 s of a video of 2 s are 1.5 of it; of a video of unknown length no share is known."""
    layout(tmp_path)
    info, events, items = written(import_kuairand(tmp_path), tmp_path / "out")
    names = ("user_id", "item_id", "event_type", "timestamp_ms", "duration_s", "value")
    assert [tuple(event[name] for name in names) for event in events] == [
        ("5", "70", "click", TIME_MS, 3.0, 1.5),
        ("5", "71", "view", TIME_MS + 1, 0.0, None),
        ("6", "70", "view", TIME_MS + 2, 0.5, 0.25),
    ]
    assert {event["tz_offset_min"] for event in events} == {8 * 60}
    assert items["70"]["categories"] == ["39", "68"]
    assert items["71"]["categories"] == []
    assert items.keys() == {"70", "71"}
    assert (info.kind, info.dropped) == ("kuairand", {})
    assert "CC BY-SA 4.0" in info.licence_notice


def test_one_log_can_be_given_without_features(tmp_path: Path) -> None:
    """Videos are then known by their id; a line of another width is counted, and so a repeat."""
    path = tmp_path / "log_standard_1k.csv"
    line = _line(5, 70, TIME_MS, click=1, watched=(1_000, 2_000))
    path.write_text("\n".join([HEADER, line, "5,70,20220425", line]) + "\n")
    info, events, items = written(import_kuairand(path), tmp_path / "out")
    assert info.dropped == {"bad_row": 1, "exact_duplicate": 1}
    assert (len(events), items["70"]["categories"]) == (1, [])


@pytest.mark.parametrize("name", ["gone", "empty", "other.csv"])
def test_what_is_no_log_says_what_was_looked_for(name: str, tmp_path: Path) -> None:
    """Missing, empty and misnamed alike."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text(HEADER)
    with pytest.raises(TrainingError, match=rf"{name}: no KuaiRand log; .*log_standard_\*\.csv"):
        import_kuairand(tmp_path / name)


def test_a_damaged_log_is_one_clear_line(tmp_path: Path) -> None:
    """A number that is none, a column that is missing, a copy without its videos."""
    log = tmp_path / "log_random_1k.csv"
    log.write_text("\n".join([HEADER, _line(5, 70, TIME_MS, click=1, watched=("long", 1))]) + "\n")
    with pytest.raises(TrainingError, match=r"log_random_1k\.csv: cannot be read: .*'long'"):
        import_kuairand(tmp_path)
    log.write_text("user_id,video_id\n5,70\n")
    with pytest.raises(TrainingError, match=r"log_random_1k\.csv: cannot be read: .*'time_ms'"):
        import_kuairand(tmp_path)
    _copy(tmp_path)
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(TrainingError, match=r"items\.parquet: missing"):
        import_kuairand(tmp_path)


@pytest.mark.data
@pytest.mark.integration
def test_kuairand_pure_is_whole(tmp_path: Path) -> None:
    """5,877 rows agree in every column of the log; one more in all that is imported here."""
    info, events, items = written(import_kuairand(folder("kuairand-pure")), tmp_path / "out")
    assert (info.num_rows_read, info.dropped) == (228_329, {"exact_duplicate": 5_877 + 1})
    assert (info.num_events, info.num_users, info.num_items) == (222_451, 25_156, 6_361)
    assert {event["event_type"] for event in events} == {"click", "view"}
    assert all(event["value"] is None or event["value"] >= 0 for event in events)
    assert all(item["categories"] for item in items.values())
