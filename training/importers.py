"""Importers: public formats and anybody's event log become a dataset."""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import daft
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from daft import DataType, col, lit
from daft.functions import monotonically_increasing_id

from service.contract.events import EVENT_TYPES
from training.cleaning import RAW_COLUMNS, ROW, Cleaned, CleanOptions, clean
from training.config import TrainingError
from training.data import (
    DATASET_FILE,
    EVENTS_FILE,
    ITEM_SCHEMA,
    ITEMS_FILE,
    DatasetInfo,
    table_sha256,
)

MOVIELENS_NOTICE = (
    "MovieLens data: (c) GroupLens, University of Minnesota. For research use; not to be "
    "redistributed without permission; no endorsement by the university is implied. Acknowledge "
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), "
    "2015."
)


@dataclass(frozen=True, slots=True)
class RawLog:
    """What an importer found: a raw frame for `clean`, items, and how times are to be read."""

    kind: str
    events: daft.DataFrame
    items: pa.Table
    time_axis: Literal["time", "order"] = "time"
    licence_notice: str = ""
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """Which of the log's columns are which; None where the log has none.

    `event_type_default` is the type of events without one; `delimiter` is for csv.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    time: str = "timestamp"
    event_type: str | None = None
    event_id: str | None = None
    tz_offset_min: str | None = None
    value: str | None = None
    duration_s: str | None = None
    lat: str | None = None
    lon: str | None = None
    event_type_default: str = "view"
    delimiter: str = ","
    items_file: Path | None = None


def import_events(path: Path, columns: ColumnOptions) -> RawLog:
    """Read anybody's log: a parquet, csv or jsonl file, or a folder of such files.

    Raises TrainingError when the file cannot be read or a named column is not in it.
    """
    if columns.event_type_default not in EVENT_TYPES:
        raise TrainingError(
            f"event type {columns.event_type_default!r} is unknown; there are "
            + ", ".join(EVENT_TYPES)
        )
    frame = _read_frame(path, columns.delimiter)
    wanted = {name: getattr(columns, name) for name in RAW_COLUMNS}
    chosen = {name: source for name, source in wanted.items() if source is not None}
    _check_columns(path, frame.column_names, chosen)
    raw = frame.select(*[col(source).alias(name) for name, source in chosen.items()])
    kind = lit(columns.event_type_default)
    if "event_type" in chosen:
        text = col("event_type").cast(DataType.string())
        raw = raw.with_column("event_type", text.fill_null(kind))
    else:
        raw = raw.with_column("event_type", kind)
    items = ITEM_SCHEMA.empty_table()
    if columns.items_file is not None:
        items = _read_items_file(columns.items_file, columns.delimiter)
    return RawLog("events", raw.with_column(ROW, monotonically_increasing_id()), items)


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


def write_dataset(log: RawLog, options: CleanOptions, out: Path, source: Path) -> DatasetInfo:
    """Clean a log and write the dataset, aside first, so that `out` is whole or untouched."""
    _check_replaceable(out)
    cleaned = clean(log.events, options)
    if cleaned.events.num_rows == 0:
        raise TrainingError(
            f"{source}: no event is left of {cleaned.num_rows_read} rows; dropped: "
            + json.dumps(log.dropped | cleaned.dropped)
        )
    info = _describe(log, cleaned, out, source)
    aside = out.with_name(out.name + ".writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    pq.write_table(cleaned.events, aside / EVENTS_FILE, compression="zstd")
    pq.write_table(_with_events(log.items, cleaned.events), aside / ITEMS_FILE, compression="zstd")
    (aside / DATASET_FILE).write_text(info.to_json(), encoding="utf-8")
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return info


def _check_replaceable(out: Path) -> None:
    """Raise TrainingError unless `out` is new, empty, or a dataset and nothing else."""
    if not out.name or (out.exists() and not out.is_dir()):
        raise TrainingError(f"{out}: give --out a folder of its own")
    others = {path.name for path in out.glob("*")} - {EVENTS_FILE, ITEMS_FILE, DATASET_FILE}
    if others:
        raise TrainingError(
            f"{out}: holds {min(others)}, which is no part of a dataset and would be lost; "
            "give --out a folder of its own"
        )


def _describe(log: RawLog, cleaned: Cleaned, out: Path, source: Path) -> DatasetInfo:
    events = cleaned.events
    dropped = log.dropped | cleaned.dropped
    pairs = events.select(["user_id", "item_id"]).group_by(["user_id", "item_id"]).aggregate([])
    return DatasetInfo(
        name=out.name,
        kind=log.kind,
        time_axis=log.time_axis,
        num_rows_read=cleaned.num_rows_read + sum(log.dropped.values()),
        num_events=events.num_rows,
        num_users=len(events["user_id"].unique()),
        num_items=len(events["item_id"].unique()),
        dropped=dropped,
        repeat_share=round(1 - pairs.num_rows / events.num_rows, 6),
        data_sha256=table_sha256(events),
        licence_notice=log.licence_notice,
        source={"path": source.name},
    )


def _with_events(items: pa.Table, events: pa.Table) -> pa.Table:
    """Return a row for every item that has an event, in order of id, described where known."""
    known = {row["item_id"]: row for row in items.to_pylist()}
    blank = dict.fromkeys(ITEM_SCHEMA.names)
    ids = sorted(events["item_id"].unique().to_pylist())
    rows = [known.get(item_id, blank | {"item_id": item_id, "categories": []}) for item_id in ids]
    return pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)


def _read_frame(path: Path, delimiter: str) -> daft.DataFrame:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    by_suffix = {
        suffix: [str(file) for file in files if file.is_file() and file.suffix.lower() in suffixes]
        for suffix, suffixes in _SUFFIXES.items()
    }
    present = [suffix for suffix, found in by_suffix.items() if found]
    if len(present) != 1:
        seen = f"holds {' and '.join(present)} files together" if present else "holds no log"
        raise TrainingError(f"{path}: {seen}; give parquet, csv or jsonl files of one kind")
    names = by_suffix[present[0]]
    try:
        return _READERS[present[0]](names, delimiter)
    except (OSError, ValueError, daft.exceptions.DaftCoreException) as exc:
        raise TrainingError(f"{path}: cannot be read as {present[0]}: {exc}") from exc


def _read_csv(names: list[str], delimiter: str) -> daft.DataFrame:
    """Read csv with every column as text, so that an id such as 007 stays what it is."""
    headers = {name: _csv_header(Path(name), delimiter) for name in names}
    first = headers[names[0]]
    for name, header in headers.items():
        # Columns are taken by place, so files in another order would swap them silently.
        if header != first:
            raise TrainingError(f"{name}: its columns are not those of {names[0]}, in their order")
    schema = {column: DataType.string() for column in first}
    return daft.read_csv(names, delimiter=delimiter, schema=schema, infer_schema=False)


def _csv_header(path: Path, delimiter: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader(stream, delimiter=delimiter), [])


_SUFFIXES = {
    "parquet": {".parquet", ".pq"},
    "csv": {".csv", ".tsv"},
    "jsonl": {".jsonl", ".ndjson"},
}
_READERS: Mapping[str, Callable[[list[str], str], daft.DataFrame]] = {
    "parquet": lambda names, _: daft.read_parquet(names),
    "csv": _read_csv,
    "jsonl": lambda names, _: daft.read_json(names),
}


def _check_columns(path: Path, present: Iterable[str], chosen: Mapping[str, str]) -> None:
    names = list(present)
    for option, source in chosen.items():
        if source not in names:
            raise TrainingError(
                f"{path}: no column {source!r} for {option}; there are {', '.join(names)}; "
                f"name yours with --{option.replace('_', '-')}-column"
            )


def _read_items_file(path: Path, delimiter: str) -> pa.Table:
    """Read items: `item_id` and any other column of ITEM_SCHEMA; categories split at `|`."""
    frame = _read_frame(path, delimiter)
    _check_columns(path, frame.column_names, {"item_id": "item_id"})
    names = [name for name in ITEM_SCHEMA.names if name in frame.column_names]
    rows = frame.select(*names).to_pylist()
    for row in rows:
        row["item_id"] = str(row["item_id"])
        if not isinstance(row.get("categories"), list):
            row["categories"] = [c for c in str(row.get("categories") or "").split("|") if c]
        for place in ("lat", "lon"):
            value = row.get(place)
            row[place] = float(value) if value not in (None, "") else None
    return pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)


def _movielens(
    events: daft.DataFrame, items: Iterable[tuple[str, str, list[str]]], **more: object
) -> RawLog:
    raw = events.with_column("event_type", lit("rating"))
    if ROW not in raw.column_names:
        raw = raw.with_column(ROW, monotonically_increasing_id())
    rows = [
        dict.fromkeys(ITEM_SCHEMA.names)
        | {"item_id": item_id, "title": title, "categories": categories}
        for item_id, title, categories in items
    ]
    table = pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)
    return RawLog("movielens", raw, table, licence_notice=MOVIELENS_NOTICE, **more)  # type: ignore[arg-type]  # time_axis and dropped only


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
