"""MovieLens in any of its layouts."""

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import daft
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from daft import col, lit
from daft.functions import monotonically_increasing_id

from service.contract.items import attributes_json
from training.cleaning import ROW
from training.config import TrainingError
from training.data import EVENTS_FILE, ITEM_SCHEMA, ITEMS_FILE
from training.importers.raw_log import RawLog

MOVIELENS_NOTICE = (
    "MovieLens data: (c) GroupLens, University of Minnesota. For research use; not to be "
    "redistributed without permission; no endorsement by the university is implied. Acknowledge "
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), "
    "2015."
)


def import_movielens(path: Path) -> RawLog:
    """Read MovieLens in any of its layouts.

    Known are u.data, ratings.dat, ratings.csv, RecBole's .inter and a parquet copy
    (events.parquet with `order` where times are incomplete). Each rating is one event.
    """
    if not path.is_dir():
        raise TrainingError(f"{path}: no such folder; give the one that holds the MovieLens files")
    for pattern, layout in _LAYOUTS.items():
        found = sorted(path.glob(pattern))
        if found:
            return layout(found[0])
    raise TrainingError(f"{path}: holds none of {', '.join(_LAYOUTS)}: not a MovieLens folder")


def _movielens(
    events: daft.DataFrame, items: Iterable[tuple[str, str, list[str]]], **more: object
) -> RawLog:
    raw = events.with_column("event_type", lit("rating"))
    if ROW not in raw.column_names:
        raw = raw.with_column(ROW, monotonically_increasing_id())
    rows = [
        dict.fromkeys(ITEM_SCHEMA.names)
        | {"item_id": item_id, "title": title, "categories": categories, **_year(title)}
        for item_id, title, categories in items
    ]
    table = pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)
    return RawLog("movielens", raw, table, licence_notice=MOVIELENS_NOTICE, **more)  # type: ignore[arg-type]  # time_axis and dropped only


def _year(title: str) -> dict[str, str | None]:
    """Return the attribute `year` of a title such as "Toy Story (1995)"."""
    found = re.search(r"\((\d{4})\)\s*$", title)
    return {"attributes": attributes_json({"year": float(found[1])})} if found else {}


def _columns(frame: daft.DataFrame, names: tuple[str, str, str, str]) -> daft.DataFrame:
    wanted = ("user_id", "item_id", "value", "time")
    pairs = zip(names, wanted, strict=True)
    return frame.select(*[col(source).alias(name) for source, name in pairs])


def _numbered_csv(path: Path, delimiter: str, places: tuple[int, ...]) -> daft.DataFrame:
    """Read a csv without header; `places` are the columns, from 1, of user, item, rating, time."""
    frame = daft.read_csv(str(path), delimiter=delimiter, has_headers=False)
    names = tuple(f"column_{place}" for place in places)
    return _columns(frame, names)  # type: ignore[arg-type]  # four by construction


def _u_data(path: Path) -> RawLog:
    names = [line.split("|") for line in _lines(path.with_name("u.genre"))]
    genres = [name[0] for name in names if name[0]]
    rows = (line.split("|") for line in _lines(path.with_name("u.item")))
    items = (
        (row[0], row[1], [g for g, on in zip(genres, row[5:], strict=True) if on == "1"])
        for row in rows
    )
    return _movielens(_numbered_csv(path, "\t", (1, 2, 3, 4)), items)


def _ratings_dat(path: Path) -> RawLog:
    # The separator is `::`, which one-character readers see as an empty column in between.
    rows = (line.split("::") for line in _lines(path.with_name("movies.dat")))
    items = ((row[0], row[1], row[2].split("|")) for row in rows)
    return _movielens(_numbered_csv(path, ":", (1, 3, 5, 7)), items)


def _ratings_csv(path: Path) -> RawLog:
    frame = daft.read_csv(str(path))
    with path.with_name("movies.csv").open(encoding="utf-8", newline="") as stream:
        items = [
            (row["movieId"], row["title"], row["genres"].split("|"))
            for row in csv.DictReader(stream)
        ]
    return _movielens(_columns(frame, ("userId", "movieId", "rating", "timestamp")), items)


def _atomic_inter(path: Path) -> RawLog:
    frame = daft.read_csv(str(path), delimiter="\t")
    typed = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    items = []
    for line in _lines(path.with_suffix(".item"))[1:]:
        item_id, title, year, genres = line.split("\t")
        items.append((item_id, f"{title} ({year})" if year else title, genres.split(" ")))
    return _movielens(_columns(frame, typed), items)


def _parquet_copy(path: Path) -> RawLog:
    table = pq.read_table(path)
    item_rows = pq.read_table(path.with_name(ITEMS_FILE)).to_pylist()
    items = ((str(r["item_id"]), r["title"], (r["genres"] or "").split("|")) for r in item_rows)
    axis: Literal["time", "order"] = "time"
    dropped = {}
    if "order" in table.column_names and table["timestamp"].null_count:
        # Complete order, incomplete times: the order becomes the time axis, a second per event.
        axis = "order"
        known = table.filter(table["order"].is_valid())
        dropped = {"no_order": table.num_rows - known.num_rows}
        order = known["order"].to_numpy().astype(np.int64) + 1
        table = known.set_column(known.column_names.index("timestamp"), "timestamp", [order])
    frame = _columns(daft.from_arrow(table), ("user_id", "item_id", "rating", "timestamp"))
    return _movielens(frame, items, time_axis=axis, dropped={k: v for k, v in dropped.items() if v})


_LAYOUTS: Mapping[str, Callable[[Path], RawLog]] = {
    "u.data": _u_data,
    "ratings.dat": _ratings_dat,
    "ratings.csv": _ratings_csv,
    "*.inter": _atomic_inter,
    EVENTS_FILE: _parquet_copy,
}


def _lines(path: Path) -> list[str]:
    """Return a file's lines; MovieLens before 20M is Latin-1, RecBole's copy is UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return data.decode("latin-1").splitlines()
