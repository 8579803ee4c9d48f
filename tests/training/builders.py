"""Small event logs for the training tests: valid unless overridden."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.cleaning import CleanOptions
from training.config import RunConfig, load_run_config
from training.data import (
    EVENT_SCHEMA,
    EVENTS_FILE,
    DatasetInfo,
    EventTable,
    event_table,
    read_items,
)
from training.importers.events import ColumnOptions, import_events
from training.importers.raw_log import RawLog
from training.importers.writing import write_dataset

Row = dict[str, Any]
DAY_MS = 86_400_000
START_MS = 1_600_000_000_000

TINY = (
    "model.dim=8", "model.hidden_dim=8", "model.num_heads=2", "model.num_blocks=2",
    "model.window_len=6", "loop.batch_size=4", "loop.max_epochs=3", "loop.num_threads=1",
    "optim.warmup_steps=2",
)  # fmt: skip
CHECKPOINTS = {"model.weights=bert": "bert", "model.weights=gpt2": "gpt2"}


@functools.cache
def language_checkpoint(kind: str) -> Path:
    """Return the folder of a tiny `bert` or `gpt2`, made once for all tests of a process."""
    from tests.training.text.checkpoints import save_bert, save_gpt  # noqa: PLC0415  # slow to load

    folder = Path(tempfile.mkdtemp(prefix="language-"))
    atexit.register(shutil.rmtree, folder)
    return save_bert(folder) if kind == "bert" else save_gpt(folder)


def tiny_config(*overrides: str, preset: str = "time") -> RunConfig:
    """Return the settings of a model that trains in well under a second.

    `model.weights` are those of the tiny checkpoint of a kind, as `language_checkpoint` has it.
    """
    named = [each for each in overrides if each in CHECKPOINTS]
    folders = [f"model.weights={language_checkpoint(CHECKPOINTS[each])}" for each in named]
    return load_run_config(preset, None, [*TINY, *overrides, *folders])


def table(sequences: Sequence[str], *, step_ms: int = DAY_MS) -> pa.Table:
    """Return the events table of users u0, u1, … who did the letters of their word, in order."""
    rows = [
        dict.fromkeys(EVENT_SCHEMA.names)
        | {
            "user_id": f"u{user}",
            "item_id": item,
            "event_type": "view",
            "timestamp_ms": START_MS + place * step_ms,
        }
        for user, word in enumerate(sequences)
        for place, item in enumerate(word)
    ]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


def events(sequences: Sequence[str], *, step_ms: int = DAY_MS) -> EventTable:
    """Return the same as arrays."""
    return event_table(table(sequences, step_ms=step_ms))


def cyclic_csv(path: Path, *, num_users: int = 24, length: int = 9, num_items: int = 12) -> Path:
    """Write a log in which each user walks through the items in order from a random start."""
    rng = np.random.default_rng(5)
    lines = ["user_id,item_id,timestamp"]
    for user in range(num_users):
        first = int(rng.integers(num_items))
        lines += [
            f"u{user},i{(first + place) % num_items:02d},{START_MS + place * DAY_MS + user}"
            for place in range(length)
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def cyclic_dataset(folder: Path) -> tuple[Path, DatasetInfo]:
    """Write that log as a dataset; returns its folder and description."""
    source = cyclic_csv(folder / "log.csv")
    out = folder / "dataset"
    return out, write_dataset(import_events(source, ColumnOptions()), CleanOptions(), out, source)


def written(log: RawLog, out: Path) -> tuple[DatasetInfo, list[Row], dict[str, Row]]:
    """Write a log as a dataset; returns its description, its events, and its items by id."""
    info = write_dataset(log, CleanOptions(), out, out.parent)
    items = {row["item_id"]: row for row in read_items(out).to_pylist()}
    return info, pq.read_table(out / EVENTS_FILE).to_pylist(), items
