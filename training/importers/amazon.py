"""Amazon reviews: normalised copies here, the public files in `amazon_public`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from training.data import EVENTS_FILE, ITEMS_FILE
from training.importers.amazon_public import (
    RatingColumns,
    products_beside,
    read_products,
    read_ratings,
    read_reviews,
)
from training.importers.amazon_text import item_row
from training.importers.files import find_log, read_parquet
from training.importers.raw_log import RawLog, item_table, raw_frame

AMAZON_NOTICE = (
    "Amazon reviews: for research use. Acknowledge J. McAuley et al., Image-based Recommendations "
    "on Styles and Substitutes, SIGIR 2015 (2014 data); J. Ni, J. Li and J. McAuley, Justifying "
    "Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects, EMNLP 2019 (2018 "
    "data); Y. Hou et al., Bridging Language and Items for Retrieval and Recommendation, 2024 "
    "(2023 data)."
)
EXAMPLES_FILE = "examples.parquet"
_SPLITS = ("train", "valid", "test")


def import_amazon(path: Path, rating_columns: RatingColumns = "auto") -> RawLog:
    """Read Amazon ratings, reviews or one of two parquet copies: a file or its folder.

    `rating_columns` is the order of a csv without header. Raises TrainingError when there is no
    log, or its columns cannot be told apart.
    """
    layouts: dict[str, Callable[[Path], RawLog]] = {
        EVENTS_FILE: _parquet_copy,
        EXAMPLES_FILE: _examples,
        "*.json*": _reviews,
        "*.csv*": partial(_ratings, columns=rating_columns),
    }
    pattern, log = find_log(path, list(layouts), "Amazon ratings or reviews", beside="meta_*")
    return layouts[pattern](log)


def _parquet_copy(path: Path) -> RawLog:
    events = read_parquet(path, ("user_id", "item_id", "timestamp"))
    described = read_parquet(path.with_name(ITEMS_FILE), ("item_id", "category_id"))
    pairs = described.select(["item_id", "category_id"]).to_pylist()
    items = [
        {"item_id": str(pair["item_id"]), "categories": [str(pair["category_id"])]}
        for pair in pairs
    ]
    columns = {"user_id": events["user_id"], "item_id": events["item_id"]}
    if "rating" in events.column_names:
        columns["value"] = events["rating"]
    return _amazon(columns | {"time": events["timestamp"]}, items)


def _examples(path: Path) -> RawLog:
    """Read next-item examples without times: their order is the time axis, a second per event."""
    table = read_parquet(path, ("user_id", "split", "history", "item_id"))
    rank = {name: place for place, name in enumerate(_SPLITS)}
    by_user: dict[str, list[tuple[list[int], int]]] = defaultdict(list)
    for row in sorted(table.to_pylist(), key=lambda row: rank.get(row["split"], len(rank))):
        by_user[row["user_id"]].append((row["history"], row["item_id"]))
    rows = [
        (user_id, item_id, second)
        for user_id, examples in by_user.items()
        for second, item_id in enumerate(_sequence(examples), start=1)
    ]
    columns = {
        name: pa.chunked_array([[row[place] for row in rows]])
        for place, name in enumerate(("user_id", "item_id", "time"))
    }
    described = read_parquet(path.with_name(ITEMS_FILE), ("item_id", "title")).to_pylist()
    items = (
        item_row(
            row["item_id"],
            title=row["title"],
            description=row.get("description"),
            brand=row.get("brand"),
            categories=row.get("categories"),
        )
        for row in described
    )
    return _amazon(columns, items, time_axis="order")


def _sequence(examples: Sequence[tuple[list[int], int]]) -> list[int]:
    """Return one user's items in order: histories are cut in front, so examples are chained."""
    sequence: list[int] = []
    for history, item_id in examples:
        if sequence[-len(history) :] == history:
            sequence = [*sequence, item_id]
        else:
            sequence = max(sequence, [*history, item_id], key=len)
    return sequence


def _ratings(path: Path, columns: RatingColumns) -> RawLog:
    table, num_bad = read_ratings(path, columns)
    return _with_products(table, path, num_bad)


def _reviews(path: Path) -> RawLog:
    return _with_products(read_reviews(path), path, 0)


def _with_products(table: pa.Table, path: Path, num_bad: int) -> RawLog:
    columns = {name: table[name] for name in ("user_id", "item_id", "value", "time")}
    products = products_beside(path)
    wanted = set(pc.unique(table["item_id"]).to_pylist()) if products else set()
    return _amazon(columns, read_products(products, wanted) if products else (), num_bad)


def _amazon(
    columns: Mapping[str, pa.ChunkedArray],
    items: Iterable[Mapping[str, object]],
    num_bad: int = 0,
    *,
    time_axis: Literal["time", "order"] = "time",
) -> RawLog:
    """Return a log of ratings; what has no rating is a purchase."""
    if "value" in columns:
        types = pc.if_else(pc.is_valid(columns["value"]), "rating", "purchase")
    else:
        types = pa.chunked_array([pa.repeat("purchase", len(columns["user_id"]))])
    return RawLog(
        "amazon",
        raw_frame({**columns, "event_type": types}),
        item_table(items),
        time_axis=time_axis,
        licence_notice=AMAZON_NOTICE,
        dropped={"bad_row": num_bad} if num_bad else {},
    )
