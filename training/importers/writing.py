"""From a raw log to a dataset on disk: clean, describe, write aside, rename."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.cleaning import Cleaned, CleanOptions, clean
from training.config import TrainingError
from training.data import (
    ARRAYS_DIR,
    DATASET_FILE,
    EVENTS_FILE,
    ITEM_SCHEMA,
    ITEMS_FILE,
    TEXT_CACHE,
    DatasetInfo,
    event_table,
    read_info,
    read_items,
    table_sha256,
    write_arrays,
)
from training.importers.raw_log import RawLog

DATASET_ENTRIES = {EVENTS_FILE, ITEMS_FILE, DATASET_FILE, ARRAYS_DIR, TEXT_CACHE}
# Fewer events have no training event in leave-one-out.
MIN_USER_EVENTS = 3
FEW_USERS = 50


def write_dataset(log: RawLog, options: CleanOptions, out: Path, source: Path) -> DatasetInfo:
    """Clean a log and write the dataset; what `write_cleaned` says besides is left out."""
    return write_cleaned(log, options, out, source)[0]


def write_cleaned(
    log: RawLog, options: CleanOptions, out: Path, source: Path
) -> tuple[DatasetInfo, list[str], list[str]]:
    """Clean a log and write the dataset, aside first, so that `out` is whole or untouched.

    Returns what was written, lines on what was dropped, and lines on what makes one doubt the log.
    Raises TrainingError when no event is left.
    """
    _check_replaceable(out)
    cleaned = clean(log.events, options)
    dropped = log.dropped | cleaned.dropped
    said = [f"dropped {rule}: {rows:,}" for rule, rows in dropped.items()]
    if log.complaints is not None:
        said = log.complaints(dropped, cleaned.examples)
    if cleaned.events.num_rows == 0:
        raise TrainingError(
            f"{source}: no event is left of {cleaned.num_rows_read} rows: {'; '.join(said)}"
        )
    info = _describe(log, cleaned, dropped, out, source)
    _write(info, cleaned.events, _with_events(log.items, cleaned.events), out)
    return info, said, doubts(info, cleaned.events)


def doubts(info: DatasetInfo, events: pa.Table) -> list[str]:
    """Return what one should look at before training on a log: too little, or all of one kind."""
    found = []
    if info.num_users == 1:
        user = events["user_id"][0].as_py()
        found.append(f"all events are of one user, {user!r}: is it the right --user-id-column?")
    if info.num_items == 1:
        item = events["item_id"][0].as_py()
        found.append(f"all events are on one item, {item!r}: is it the right --item-id-column?")
    counts = events.group_by("user_id").aggregate([("item_id", "count")])["item_id_count"]
    num_able = pc.sum(pc.greater_equal(counts, MIN_USER_EVENTS)).as_py() or 0
    if num_able == 0:
        found.append(
            f"no user has {MIN_USER_EVENTS} events or more, so that nothing can be trained: one is "
            "learned from, one validates, one tests; is it the right --user-id-column?"
        )
    elif num_able < FEW_USERS:
        found.append(
            f"only {num_able:,} users have {MIN_USER_EVENTS} events or more: a model of so few "
            f"knows little; from {FEW_USERS} on figures begin to mean something"
        )
    negative = pc.sum(pc.less(events["value"], 0)).as_py() or 0
    if negative:
        found.append(
            f"{negative:,} values are negative (the least is {pc.min(events['value']).as_py():g}) "
            "and kept; if that stands for `not rated`, leave those cells empty"
        )
    return found


def hold_items_out(dataset: Path, share: float, seed: int, out: Path) -> DatasetInfo:
    """Write a dataset without the events of a share of the items, drawn with a seed.

    What is trained on it never met these items: not as targets, in histories or as wrong answers.
    Users with fewer than MIN_USER_EVENTS events left are left out. Raises TrainingError for a share
    that takes nothing or leaves nothing, and when `out` is no place for a dataset.
    """
    if out.resolve() == dataset.resolve():
        raise TrainingError(f"{out}: is the dataset itself; give --out a folder of its own")
    _check_replaceable(out)
    info, events = read_info(dataset), pq.read_table(dataset / EVENTS_FILE)
    ids = sorted(events["item_id"].unique().to_pylist())
    num_held = round(share * len(ids))
    if not 0 < num_held < len(ids):
        raise TrainingError(f"share = {share!r} must take some of {len(ids)} items and leave some")
    held = np.random.default_rng(seed).choice(ids, num_held, replace=False)
    kept = events.filter(pc.invert(pc.is_in(events["item_id"], pa.array(held.tolist()))))
    counts = kept.group_by("user_id").aggregate([("item_id", "count")])
    many = counts.filter(pc.greater_equal(counts["item_id_count"], MIN_USER_EVENTS))["user_id"]
    kept = kept.filter(pc.is_in(kept["user_id"], many.combine_chunks()))
    if not kept.num_rows:
        raise TrainingError(f"share = {share!r}: no user has {MIN_USER_EVENTS} events left")
    pairs = kept.select(["user_id", "item_id"]).group_by(["user_id", "item_id"]).aggregate([])
    smaller = replace(
        info,
        name=out.name,
        num_events=kept.num_rows,
        num_users=len(many),
        num_items=len(kept["item_id"].unique()),
        dropped=info.dropped | {"held_out_item": events.num_rows - kept.num_rows},
        repeat_share=round(1 - pairs.num_rows / kept.num_rows, 6),
        data_sha256=table_sha256(kept),
    )
    _write(smaller, kept, _with_events(read_items(dataset), kept), out)
    return smaller


def _write(info: DatasetInfo, events: pa.Table, items: pa.Table, out: Path) -> None:
    """Write a dataset aside, then put it in the place of what was there."""
    aside = out.with_name(out.name + ".writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    pq.write_table(events, aside / EVENTS_FILE, compression="zstd")
    pq.write_table(items, aside / ITEMS_FILE, compression="zstd")
    write_arrays(aside / ARRAYS_DIR, event_table(events))
    (aside / DATASET_FILE).write_text(info.to_json(), encoding="utf-8")
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)


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


def _describe(
    log: RawLog, cleaned: Cleaned, dropped: dict[str, int], out: Path, source: Path
) -> DatasetInfo:
    events = cleaned.events
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
