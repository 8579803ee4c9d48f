"""Importers: each layout gives the same events; mistakes name the fix."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.cleaning import CleanOptions
from training.config import TrainingError
from training.data import EVENTS_FILE, read_dataset, read_items
from training.importers.events import ColumnOptions, import_events
from training.importers.movielens import import_movielens
from training.importers.raw_log import RawLog
from training.importers.writing import write_dataset


def _u_data(folder: Path) -> None:
    (folder / "u.data").write_text(
        "1\t20\t4\t880000002\n1\t10\t5\t880000001\n2\t10\t3\t880000003\n"
    )
    (folder / "u.genre").write_text("unknown|0\nDrama|1\n\n")
    films = ["10|Caf\xe9 (1990)|01-Jan-1990||url|0|1", "20|Boat (1991)|||url|0|0"]
    (folder / "u.item").write_bytes("\n".join(films).encode("latin-1"))


def _ratings_dat(folder: Path) -> None:
    lines = ["1::20::4::880000002", "1::10::5::880000001", "2::10::3::880000003"]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    films = "10::Caf\xe9 (1990)::Drama\n20::Boat (1991)::(no genres listed)\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))


def _ratings_csv(folder: Path) -> None:
    lines = ["userId,movieId,rating,timestamp", "1,20,4.0,880000002", "1,10,5.0,880000001"]
    (folder / "ratings.csv").write_text("\n".join([*lines, "2,10,3.0,880000003"]) + "\n")
    films = 'movieId,title,genres\n10,Caf\xe9 (1990),Drama\n20,"Boat (1991)",\n'
    (folder / "movies.csv").write_text(films, encoding="utf-8")


def _inter(folder: Path) -> None:
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += ["1\t20\t4\t880000002", "1\t10\t5\t880000001", "2\t10\t3\t880000003"]
    (folder / "x.inter").write_text("\n".join(lines) + "\n")
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    films = f"{head}\n10\tCaf\xe9\t1990\tDrama\n20\tBoat\t1991\t\n"
    (folder / "x.item").write_text(films, encoding="utf-8")


def _parquet(folder: Path) -> None:
    columns = {
        "user_id": [1, 1, 2], "item_id": [20, 10, 10], "rating": [4, 5, 3],
        "timestamp": [880000002, 880000001, 880000003],
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "events.parquet")
    titles = ["Caf\xe9 (1990)", "Boat (1991)"]
    films = {"item_id": [10, 20], "title": titles, "genres": ["Drama", ""]}
    pq.write_table(pa.table(films), folder / "items.parquet")


@pytest.mark.parametrize("layout", [_u_data, _ratings_dat, _ratings_csv, _inter, _parquet])
def test_every_movielens_layout_gives_the_same_events(layout, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # a local writer
    """Ids, times, ratings, titles and genres agree, whatever file carries them."""
    layout(tmp_path)
    out = tmp_path / "out"
    info = write_dataset(import_movielens(tmp_path), CleanOptions(), out, tmp_path)
    rows = pq.read_table(out / EVENTS_FILE).to_pylist()
    got = [(r["user_id"], r["item_id"], r["timestamp_ms"], r["value"]) for r in rows]
    assert got == [
        ("1", "10", 880_000_001_000, 5.0),
        ("1", "20", 880_000_002_000, 4.0),
        ("2", "10", 880_000_003_000, 3.0),
    ]
    first, second = read_items(out).to_pylist()
    assert (first["title"], first["categories"]) == ("Caf\xe9 (1990)", ["Drama"])
    assert (second["title"], second["attributes"]) == ("Boat (1991)", '{"year": 1991.0}')
    assert (info.num_users, info.num_items, info.time_axis) == (2, 2, "time")


def test_incomplete_times_make_the_order_the_time_axis(tmp_path: Path) -> None:
    """As in a copy of ML-1M: order is complete, times are not; rows without order are counted."""
    columns = {
        "user_id": [1, 1, 1], "item_id": [1, 2, 3], "rating": [4, 4, 4],
        "order": [1, 0, None], "timestamp": [None, 5, 6],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    films = {"item_id": [1], "title": ["A"], "genres": ["Drama"]}
    pq.write_table(pa.table(films), tmp_path / "items.parquet")
    info = write_dataset(import_movielens(tmp_path), CleanOptions(), tmp_path / "o", tmp_path)
    events, _ = read_dataset(tmp_path / "o")
    assert info.time_axis == "order"
    assert info.dropped == {"no_order": 1}
    assert [events.items.id(int(item)) for item in events.window.items] == ["2", "1"]


def _import(path: Path, out: Path, **columns: str) -> list[dict[str, object]]:
    log: RawLog = import_events(path, ColumnOptions(**columns))  # type: ignore[arg-type]  # names only
    write_dataset(log, CleanOptions(), out, path)
    return pq.read_table(out / EVENTS_FILE).to_pylist()  # type: ignore[no-any-return]  # pyarrow is untyped


COLLECTED: dict[str, list[Any]] = {
    "event_id": ["e1"], "user_id": ["anna"], "item_id": ["soap"], "event_type": ["purchase"],
    "timestamp": [880_000_001_000], "tz_offset_min": [60], "value": [2.5], "duration_s": [1.5],
    "lat": [48.5], "lon": [2.5],
}  # fmt: skip


def test_a_log_with_all_of_our_columns_needs_no_options(tmp_path: Path) -> None:
    """What the collector writes; an option for another column still wins."""
    log = tmp_path / "log" / "day=1997-11-20"
    log.mkdir(parents=True)
    pq.write_table(pa.table(COLLECTED | {"price": [9.0]}), log / "p0.parquet")
    (log / ".p1.parquet.writing").write_bytes(b"half a file")
    (row,) = _import(log.parent, tmp_path / "out")
    expected = {name: values[0] for name, values in COLLECTED.items()}
    expected["timestamp_ms"] = expected.pop("timestamp")
    assert row == expected
    (named,) = _import(log.parent, tmp_path / "out", value="price")
    assert named["value"] == 9.0


def test_of_a_log_with_some_of_our_columns_those_are_taken_that_are_clear(tmp_path: Path) -> None:
    """Somebody else's `value` may be anything; a place is a place."""
    some = {name: values for name, values in COLLECTED.items() if name != "event_id"}
    pq.write_table(pa.table(some), tmp_path / "log.parquet")
    (row,) = _import(tmp_path / "log.parquet", tmp_path / "out")
    assert (row["event_type"], row["value"], row["lat"]) == ("purchase", None, 48.5)


def test_csv_columns_are_named_by_options_and_ids_stay_text(tmp_path: Path) -> None:
    """An item 007 is not the item 7, and `;` is a separator people use."""
    path = tmp_path / "log.csv"
    path.write_text("wer;was;wann\nanna;007;2020-09-13T14:26:40+02:00\n", encoding="utf-8")
    columns = {"user_id": "wer", "item_id": "was", "time": "wann", "delimiter": ";"}
    (row,) = _import(path, tmp_path / "out", **columns)
    assert (row["user_id"], row["item_id"], row["tz_offset_min"]) == ("anna", "007", 120)
    assert row["event_type"] == "view"


def test_jsonl_and_parquet_give_what_csv_gives(tmp_path: Path) -> None:
    """One cleaner behind three readers."""
    rows = [{"user_id": "a", "item_id": "1", "timestamp": 1_600_000_000, "kind": "click"}]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,kind\na,1,1600000000,click\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    results = [
        _import(tmp_path / f"log.{kind}", tmp_path / f"out-{kind}", event_type="kind")
        for kind in ("jsonl", "csv", "parquet")
    ]
    assert results[0] == results[1] == results[2]
    assert results[0][0]["event_type"] == "click"


ITEM_HEADER = "item_id,title,attributes.price,attributes.brand,attributes.new,opening_hours,"


def items_of(log: Path, items: Path, out: Path) -> list[dict[str, object]]:
    """Import a log with a file of items and return what became of them."""
    write_dataset(import_events(log, ColumnOptions(items_file=items)), CleanOptions(), out, log)
    return read_items(out).to_pylist()  # type: ignore[no-any-return]  # pyarrow is untyped


def test_items_bring_attributes_hours_and_their_release(tmp_path: Path) -> None:
    """In csv all is text: 5 is a number, 007 a brand. What a table types itself stays so."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\na,1,1600000000\na,2,1600000000\n")
    text = tmp_path / "items.csv"
    text.write_text(
        f"{ITEM_HEADER}released_at\n"
        "1,A,5,007,true,Mo-Fr 09:00-18:00,2026-01-31T18:00:00Z\n2,B,,,,,\n"
    )
    row = {
        "item_id": "1", "title": "A", "attributes.price": 5, "attributes.brand": "007",
        "attributes.new": True, "opening_hours": "Mo-Fr 09:00-18:00",
        "released_at": 1_769_882_400_000,
    }  # fmt: skip
    typed = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist([row, {"item_id": "2", "title": "B"}]), typed)
    first, second = items_of(log, text, tmp_path / "out")
    assert json.loads(str(first["attributes"])) == {"price": 5.0, "brand": "007", "new": True}
    assert (first["opening_hours"], first["released_at_ms"]) == (
        "Mo-Fr 09:00-18:00",
        1_769_882_400_000,
    )
    assert (second["attributes"], second["opening_hours"], second["released_at_ms"]) == (None,) * 3
    assert items_of(log, typed, tmp_path / "typed") == [first, second]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,A,5,x,true,sometimes,", "item 1: opening_hours: 'sometimes' must be opening hours"),
        ("1,A,5,x,true,24/7,yesterday", "item 1: released_at: 'yesterday' must be RFC 3339"),
        ("1,A,5,x,true,24/7,1.5", "item 1: released_at: 1.5 must be RFC 3339"),
        (f"1,A,5,{'x' * 300},true,24/7,", "item 1: attributes.brand: .* at most 256 characters"),
    ],
)
def test_an_item_that_says_what_cannot_be_read_is_named(
    tmp_path: Path, line: str, reason: str
) -> None:
    """The service would refuse the bundle; here the row can still be mended."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\na,1,1600000000\n")
    items = tmp_path / "items.csv"
    items.write_text(f"{ITEM_HEADER}released_at\n{line}\n")
    with pytest.raises(TrainingError, match=reason):
        items_of(log, items, tmp_path / "out")


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    """The message says which option names yours."""
    path = tmp_path / "log.csv"
    path.write_text("who,item_id,timestamp\na,1,1600000000\n")
    with pytest.raises(TrainingError, match=r"no column 'user_id'.*--user-id-column.*who \('a'\)"):
        import_events(path, ColumnOptions())


def test_an_unknown_default_type_lists_the_vocabulary(tmp_path: Path) -> None:
    """The vocabulary is closed; the list is short enough to show."""
    with pytest.raises(TrainingError, match="'blink' is unknown; there are view, click"):
        import_events(tmp_path, ColumnOptions(event_type_default="blink"))


def test_a_log_without_one_good_row_is_refused_and_nothing_written(tmp_path: Path) -> None:
    """The counts say which rule took them."""
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\na,1,never\n")
    with pytest.raises(TrainingError, match=r"no event is left of 1 rows.*bad_time"):
        _import(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_one_folder_must_agree_in_their_columns(tmp_path: Path) -> None:
    """Columns are taken by place: in another order they would be swapped silently."""
    log = tmp_path / "log"
    log.mkdir()
    (log / "a.csv").write_text("user_id,item_id,timestamp\na,1,1600000000\n")
    (log / "b.csv").write_text("item_id,user_id,timestamp\n1,b,1600000000\n")
    with pytest.raises(TrainingError, match=r"b\.csv: its columns are not those of .*a\.csv"):
        import_events(log, ColumnOptions())


@pytest.mark.parametrize("other", ["log.csv", "precious.txt"])
def test_a_folder_that_holds_anything_else_is_not_replaced(tmp_path: Path, other: str) -> None:
    """`--out` is replaced as a whole: the source log itself may lie there."""
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\na,1,1600000000\n")
    out = tmp_path / "out"
    _import(path, out)
    _import(path, out)
    (out / other).write_text("mine")
    with pytest.raises(TrainingError, match=rf"holds {other}, which is no part of a dataset"):
        _import(path, out)
    assert (out / other).read_text() == "mine"
    assert (out / EVENTS_FILE).is_file()


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_that_is_no_log_says_what_is_wanted(name: str, tmp_path: Path) -> None:
    """Missing and empty alike."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="parquet, csv or jsonl"):
        import_events(tmp_path / name, ColumnOptions())
    with pytest.raises(TrainingError, match=r"MovieLens|no such folder"):
        import_movielens(tmp_path / name)
