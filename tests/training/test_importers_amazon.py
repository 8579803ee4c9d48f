"""Amazon: ratings, reviews and two normalised copies; products as plain text."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.builders import written
from tests.training.test_real_data import folder
from training.config import TrainingError
from training.importers.amazon import import_amazon
from training.importers.amazon_text import plain_text

ANNA, BERT = "A1AAAAAAAAAAAA", "A2BBBBBBBBBBBB"
SOAP, BOOK = "B0000SOAP1", "000100039X"
DAY_S = 1_380_000_000 // 86_400 * 86_400
RATINGS = [(ANNA, SOAP, 5.0, DAY_S), (BERT, BOOK, 2.0, DAY_S + 86_400)]


def _ratings_2014(path: Path) -> None:
    lines = [f"{user},{item},{value},{time}" for user, item, value, time in RATINGS]
    (path / "ratings_Beauty.csv").write_text("\n".join(lines) + "\n")


def _ratings_2018(path: Path) -> None:
    lines = [f"{item},{user},{value},{time}" for user, item, value, time in RATINGS]
    (path / "All_Beauty.csv").write_text("\n".join(lines) + "\n")


def _ratings_2023(path: Path) -> None:
    lines = ["user_id,parent_asin,rating,timestamp"]
    lines += [f"{user},{item},{value},{time * 1000}" for user, item, value, time in RATINGS]
    (path / "All_Beauty.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def _reviews_2014(path: Path) -> None:
    rows = [
        {
            "reviewerID": user, "asin": item, "overall": value, "unixReviewTime": time,
            "helpful": [0, 1], "reviewText": "Fine.",
        }
        for user, item, value, time in RATINGS
    ]  # fmt: skip
    lines = "\n".join(json.dumps(row) for row in rows)
    (path / "reviews_Beauty_5.json").write_text(lines + "\n")


def _reviews_2023(path: Path) -> None:
    rows = [
        {
            "user_id": user, "asin": "B0VARIANT1", "parent_asin": item, "rating": value,
            "timestamp": time * 1000, "images": [],
        }
        for user, item, value, time in RATINGS
    ]  # fmt: skip
    lines = "\n".join(json.dumps(row) for row in rows)
    (path / "All_Beauty.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


def _copy(path: Path) -> None:
    names = ("user_id", "item_id", "rating", "timestamp")
    columns = {name: [row[place] for row in RATINGS] for place, name in enumerate(names)}
    pq.write_table(pa.table(columns), path / "events.parquet")
    items = {"item_id": [SOAP, BOOK], "category_id": [3, 4]}
    pq.write_table(pa.table(items), path / "items.parquet")


LAYOUTS = [_ratings_2014, _ratings_2018, _ratings_2023, _reviews_2014, _reviews_2023, _copy]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_ratings(layout, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # a local writer
    """Three editions order and name their columns in three ways; no option is needed."""
    layout(tmp_path)
    info, events, _ = written(import_amazon(tmp_path), tmp_path / "out")
    got = [(e["user_id"], e["item_id"], e["value"], e["timestamp_ms"] // 1000) for e in events]
    assert got == RATINGS
    assert {e["event_type"] for e in events} == {"rating"}
    assert {e["tz_offset_min"] for e in events} == {None}
    assert (info.kind, info.dropped, info.time_axis) == ("amazon", {}, "time")
    assert "Acknowledge" in info.licence_notice


def test_an_option_says_what_the_ids_do_not(tmp_path: Path) -> None:
    """Ids that look like no ASIN need the order; guessing would swap users and items."""
    path = tmp_path / "ratings_Own.csv"
    path.write_text(f"soap,anna,5.0,{DAY_S}\nsoap,bert\n")
    with pytest.raises(TrainingError, match="say which with --rating-columns user-item"):
        import_amazon(path)
    info, events, _ = written(import_amazon(path, "item-user"), tmp_path / "out")
    assert [(event["user_id"], event["item_id"]) for event in events] == [("anna", "soap")]
    assert info.dropped == {"bad_row": 1}


def test_what_has_no_rating_is_a_purchase(tmp_path: Path) -> None:
    """In a copy without the column, and in a review that lacks one."""
    columns = {"user_id": [1], "item_id": [2], "timestamp": [DAY_S]}
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    pq.write_table(pa.table({"item_id": [2], "category_id": [3]}), tmp_path / "items.parquet")
    _, (event,), items = written(import_amazon(tmp_path), tmp_path / "out")
    assert (event["event_type"], event["value"]) == ("purchase", None)
    assert items["2"]["categories"] == ["3"]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"reviewerID": "a", "asin": "b", "unixReviewTime": DAY_S}))
    _, (event,), _ = written(import_amazon(path), tmp_path / "out2")
    assert (event["event_type"], event["value"]) == ("purchase", None)


def test_products_beside_the_log_describe_its_items(tmp_path: Path) -> None:
    """2014 writes Python literals with nested categories, 2018 json with lists of texts."""
    _reviews_2014(tmp_path)
    soap = {
        "asin": SOAP, "title": "Soap &amp; Brush", "description": "It's <b>soft</b>.",
        "brand": "Foam", "categories": [["Beauty", "Bath"], ["Beauty"]],
    }  # fmt: skip
    book = {"asin": BOOK, "title": "Book", "description": ["One.", "Two."], "category": ["Books"]}
    lines = [repr(soap), json.dumps(book), json.dumps({"asin": "B0UNSOLD01", "title": "x"})]
    (tmp_path / "meta_Beauty.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "meta_Other.json").write_text("of another log")
    _, _, items = written(import_amazon(tmp_path), tmp_path / "out")
    assert items.keys() == {SOAP, BOOK}
    assert items[SOAP]["title"] == "Soap & Brush"
    assert items[SOAP]["text"] == "Foam\nIt's soft ."
    assert items[SOAP]["categories"] == ["Beauty", "Bath"]
    assert (items[BOOK]["text"], items[BOOK]["categories"]) == ("One. Two.", ["Books"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("['a', \"it's\"]", "a it's"),
        ("['cut off, and', 'then", "['cut off, and', 'then"),
        ("['a \\d b']", "a \\d b"),
        ("[3/4 inch] bolt", "[3/4 inch] bolt"),
        ("x &lt; y,<br />\n z", "x < y, z"),
        ("FEATURES: <> Zero", "FEATURES: <> Zero"),
        (["a", None, ["b"]], "a b"),
        ("", ""),
        (None, ""),
    ],
)
def test_descriptions_become_plain_text(value: object, text: str) -> None:
    """Lists written as text are read, never run; what is no list stays as it is."""
    assert plain_text(value) == text


def _examples(path: Path, rows: list[tuple[str, str, list[int], int]]) -> None:
    names = ("user_id", "split", "history", "item_id")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    pq.write_table(pa.table(columns), path / "examples.parquet")
    items = {
        "item_id": [1], "title": ["Bolt"], "description": ["['Hard.', 'Long.']"],
        "brand": ["Acme"], "categories": [""],
    }  # fmt: skip
    pq.write_table(pa.table(items), path / "items.parquet")


def test_examples_are_chained_into_each_users_order(tmp_path: Path) -> None:
    """Histories lose their first items, here after three; the order is the time axis."""
    rows = [
        ("a", "test", [2, 2, 3], 1),
        ("a", "valid", [1, 2, 2], 3),
        ("b", "test", [4], 5),
    ]
    _examples(tmp_path, rows)
    info, events, items = written(import_amazon(tmp_path), tmp_path / "out")
    got = [(e["user_id"], e["item_id"], e["timestamp_ms"]) for e in events]
    first = [("a", item, 1000 * place) for place, item in enumerate("12231", start=1)]
    assert got == [*first, ("b", "4", 1000), ("b", "5", 2000)]
    assert (info.time_axis, {e["event_type"] for e in events}) == ("order", {"purchase"})
    assert (items["1"]["title"], items["1"]["text"]) == ("Bolt", "Acme\nHard. Long.")


def test_of_examples_that_do_not_chain_the_longest_counts(tmp_path: Path) -> None:
    """Two that cannot be joined leave no order between them."""
    _examples(tmp_path, [("a", "valid", [1, 2], 3), ("a", "valid", [7], 8)])
    _, events, _ = written(import_amazon(tmp_path), tmp_path / "out")
    assert [event["item_id"] for event in events] == ["1", "2", "3"]


def test_what_is_no_log_says_what_was_looked_for(tmp_path: Path) -> None:
    """Products alone are no log; two logs in a folder are not mixed."""
    (tmp_path / "meta_Beauty.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"holds none of events\.parquet, examples\.parquet"):
        import_amazon(tmp_path)
    _ratings_2014(tmp_path)
    _ratings_2018(tmp_path)
    with pytest.raises(TrainingError, match=r"All_Beauty\.csv and ratings_Beauty\.csv"):
        import_amazon(tmp_path)


def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    """A header without users, a review that is no json, a product list that is cut off."""
    path = tmp_path / "x.csv"
    path.write_text("asin,rating,timestamp\nB0000SOAP1,5,1\n")
    with pytest.raises(TrainingError, match=r"x\.csv: no column reviewerID or user_id; there"):
        import_amazon(path)
    path.write_text("")
    with pytest.raises(TrainingError, match=r"x\.csv: neither of the first two columns"):
        import_amazon(path)
    reviews = tmp_path / "reviews_Beauty.json"
    reviews.write_text("{'reviewerID': 'a'}\n")
    with pytest.raises(TrainingError, match=r"reviews_Beauty\.json: cannot be read: .*JSON"):
        import_amazon(reviews)
    _reviews_2014(tmp_path)
    products = tmp_path / "meta_Beauty.json"
    products.write_text('{"asin": "x"}\n{"asin": ')
    with pytest.raises(TrainingError, match=r"meta_Beauty\.json: line 2 is no json object"):
        import_amazon(tmp_path / "reviews_Beauty_5.json")
    products.rename(tmp_path / "meta_Beauty.json.gz")
    with pytest.raises(TrainingError, match=r"meta_Beauty\.json\.gz: cannot be read"):
        import_amazon(tmp_path / "reviews_Beauty_5.json")


@pytest.mark.data
@pytest.mark.integration
def test_grocery_is_whole(tmp_path: Path) -> None:
    """121,892 purchases at day precision; every item has its category."""
    info, events, items = written(import_amazon(folder("amazon-grocery")), tmp_path / "out")
    assert (info.num_rows_read, info.dropped) == (121_892, {})
    assert (info.num_events, info.num_users, info.num_items) == (121_892, 14_681, 8_687)
    assert {event["event_type"] for event in events} == {"purchase"}
    assert all(event["timestamp_ms"] % 86_400_000 == 0 for event in events)
    assert all(len(item["categories"]) == 1 for item in items.values())


@pytest.mark.data
@pytest.mark.integration
def test_industrial_has_an_order_and_texts(tmp_path: Path) -> None:
    """9,065 examples of 3,285 users chain into 22,743 purchases; 15 texts are broken lists."""
    info, _, items = written(import_amazon(folder("amazon-industrial")), tmp_path / "out")
    assert (info.num_events, info.num_users, info.num_items) == (22_743, 3_285, 3_541)
    assert (info.time_axis, info.dropped) == ("order", {})
    assert all(item["title"] for item in items.values())
    texts = [item["text"] or "" for item in items.values()]
    assert sum("\n['" in text or '\n["' in text for text in texts) == 15
