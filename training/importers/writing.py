"""From a raw log to a dataset on disk: clean, describe, write aside, rename."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.cleaning import Cleaned, CleanOptions, clean
from training.config import TrainingError
from training.data import (
    ARRAYS_DIR,
    DATASET_FILE,
    EVENTS_FILE,
    ITEM_SCHEMA,
    ITEMS_FILE,
    DatasetInfo,
    event_table,
    table_sha256,
    write_arrays,
)
from training.importers.raw_log import RawLog

DATASET_ENTRIES = {EVENTS_FILE, ITEMS_FILE, DATASET_FILE, ARRAYS_DIR}


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
    write_arrays(aside / ARRAYS_DIR, event_table(cleaned.events))
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
    others = {path.name for path in out.glob("*")} - DATASET_ENTRIES
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
