"""The dataset: what `import` writes and every later stage reads.

A dataset is a directory with `events.parquet` (one row per event, ordered by user, time and the
source's own order), `items.parquet`, `dataset.json` (what it is, what was dropped and why) and
`arrays/`: the events once more, encoded, one .npy file a column. Every stage maps those into
memory, so that a log larger than memory trains, and processes on one machine share its pages.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.contract.events import EVENT_TYPES
from service.contract.features import WINDOW_INPUTS, Arrays, Window
from service.contract.vocabulary import Vocabulary
from training.config import TrainingError

EVENTS_FILE = "events.parquet"
ITEMS_FILE = "items.parquet"
DATASET_FILE = "dataset.json"
ARRAYS_DIR = "arrays"
IDS_FILE = "ids.json"
# What language models said of the texts, once they were read; made again when it is not there.
TEXT_CACHE = "text_vectors"
DATASET_SCHEMA = 2
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000

EVENT_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp_ms", pa.int64()),
        ("tz_offset_min", pa.int32()),
        ("value", pa.float32()),
        ("duration_s", pa.float32()),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
    ]
)
ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
        # A flat JSON object; see service.contract.items.
        ("attributes", pa.string()),
        ("opening_hours", pa.string()),
        ("released_at_ms", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What `dataset.json` says.

    `time_axis` is `order` when only the order of events is known: their timestamps then count
    one second per event and must not be read as times. `dropped` counts rows by rule.
    """

    name: str
    kind: str
    time_axis: Literal["time", "order"]
    num_rows_read: int
    num_events: int
    num_users: int
    num_items: int
    dropped: dict[str, int]
    repeat_share: float
    data_sha256: str
    licence_notice: str = ""
    schema: int = DATASET_SCHEMA
    source: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class EventTable:
    """All events as parallel arrays, each (num_events,), grouped by user and ordered by time.

    `users` counts from 0; `window` holds item and event type indices from 1 and the raw features;
    `user_starts` is (num_users + 1,): user u's events are [user_starts[u], user_starts[u + 1]).
    `knows_offsets` says whether any event has a local offset; without one, hours are UTC.
    """

    users: NDArray[np.int64]
    window: Window
    user_starts: NDArray[np.int64]
    user_ids: tuple[str, ...]
    items: Vocabulary
    event_types: Vocabulary
    knows_offsets: bool

    @property
    def num_users(self) -> int:
        """The number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """The number of items with at least one event."""
        return len(self.items)

    def __len__(self) -> int:
        return len(self.users)


def read_dataset(path: Path) -> tuple[EventTable, DatasetInfo]:
    """Read a dataset; raises TrainingError when it is missing, damaged or of another schema.

    The arrays are mapped, not read, and cannot be written to.
    """
    info = read_info(path)
    events = _map_arrays(path / ARRAYS_DIR)
    if len(events) != info.num_events:
        raise TrainingError(
            f"{path}: {ARRAYS_DIR} holds {len(events)} events, {DATASET_FILE} says "
            f"{info.num_events}; import it again"
        )
    return events, info


def write_arrays(folder: Path, events: EventTable) -> None:
    """Write what `read_dataset` maps: a file for each column, and the ids."""
    folder.mkdir()
    for name, column in _columns(events).items():
        np.save(folder / f"{name}.npy", column)
    ids = {
        "users": events.user_ids,
        "items": tuple(events.items),
        "knows_offsets": events.knows_offsets,
    }
    (folder / IDS_FILE).write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")


def _columns(events: EventTable) -> Arrays:
    own = {"users": events.users, "user_starts": events.user_starts}
    return own | {name: getattr(events.window, name) for name in WINDOW_INPUTS}


def _map_arrays(folder: Path) -> EventTable:
    try:
        ids = json.loads((folder / IDS_FILE).read_bytes())
        users, starts = _map(folder, "users"), _map(folder, "user_starts")
        window = Window(**{name: _map(folder, name) for name in WINDOW_INPUTS})
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{folder}: cannot be read: {exc}; import the data again") from exc
    lengths = {len(getattr(window, name)) for name in WINDOW_INPUTS} | {len(users)}
    if len(lengths) > 1 or len(starts) != len(ids["users"]) + 1:
        raise TrainingError(f"{folder}: its columns differ in length; import the data again")
    return EventTable(
        users=users,
        window=window,
        user_starts=starts,
        user_ids=tuple(ids["users"]),
        items=Vocabulary(ids["items"]),
        event_types=Vocabulary(EVENT_TYPES),
        knows_offsets=ids["knows_offsets"],
    )


def _map(folder: Path, name: str) -> NDArray[Any]:
    # As a plain array: NumPy's memmap class costs time in every slice and gains nothing here.
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))


def read_info(path: Path) -> DatasetInfo:
    """Read `dataset.json`; raises TrainingError when it is missing or of another schema."""
    try:
        document: dict[str, Any] = json.loads((path / DATASET_FILE).read_bytes())
    except (OSError, ValueError) as exc:
        raise TrainingError(
            f"{path}: no dataset ({DATASET_FILE} cannot be read); "
            "make one with `python -m training import`"
        ) from exc
    if document.get("schema") != DATASET_SCHEMA:
        found = document.get("schema")
        raise TrainingError(
            f"{path}: dataset schema {found!r}, this build reads {DATASET_SCHEMA}; import it again"
        )
    try:
        return DatasetInfo(**document)
    except TypeError as exc:
        raise TrainingError(f"{path / DATASET_FILE}: {exc}; import the data again") from exc


def event_table(table: pa.Table) -> EventTable:
    """Turn an events table, ordered by user and time, into arrays."""
    user_ids, users = _encode(table["user_id"], ordered=False)
    item_ids, items = _encode(table["item_id"], ordered=True)
    event_types = Vocabulary(EVENT_TYPES)
    type_ids, types = _encode(table["event_type"], ordered=True)
    type_index = np.array([event_types.index(name) for name in type_ids], np.int64)
    starts = np.searchsorted(users, np.arange(len(user_ids) + 1))
    window = Window(
        items=items + 1,
        event_types=type_index[types],
        timestamps_ms=table["timestamp_ms"].to_numpy(),
        tz_offsets_min=_filled(table["tz_offset_min"], 0).astype(np.int64),
        values=_filled(table["value"], np.nan).astype(np.float32),
        durations_s=_filled(table["duration_s"], np.nan).astype(np.float32),
        lats=_filled(table["lat"], np.nan).astype(np.float32),
        lons=_filled(table["lon"], np.nan).astype(np.float32),
    )
    return EventTable(
        users=users,
        window=window,
        user_starts=starts,
        user_ids=user_ids,
        items=Vocabulary(item_ids),
        event_types=event_types,
        knows_offsets=table["tz_offset_min"].null_count < table.num_rows,
    )


def local_hours(
    times_ms: NDArray[np.int64], tz_offsets_min: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the local hour of day, in [0, 24), of Unix times and offsets from UTC."""
    hours: NDArray[np.int64] = (times_ms + tz_offsets_min * MS_PER_MINUTE) // MS_PER_HOUR % 24
    return hours


def read_items(path: Path) -> pa.Table:
    """Read the items of a dataset, columns as ITEM_SCHEMA; raises TrainingError if it cannot."""
    try:
        return pq.read_table(path / ITEMS_FILE, schema=ITEM_SCHEMA)
    except (OSError, pa.ArrowInvalid) as exc:
        raise TrainingError(
            f"{path / ITEMS_FILE}: cannot be read: {exc}; import the data again"
        ) from exc


def table_sha256(table: pa.Table) -> str:
    """Return a hash of a table's values, whatever file or compression holds them."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(name.encode())
        digest.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_string(column.type):
            encoded = column.dictionary_encode()
            digest.update("\x00".join(encoded.dictionary.to_pylist()).encode())
            column = encoded.indices
        digest.update(np.ascontiguousarray(_filled(column, -1)).tobytes())
    return digest.hexdigest()


def _encode(column: pa.ChunkedArray, *, ordered: bool) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return (distinct values, index of each row); values sorted, or by first appearance."""
    encoded = column.combine_chunks().dictionary_encode()
    values: list[str] = encoded.dictionary.to_pylist()
    indices = encoded.indices.to_numpy().astype(np.int64)
    if not ordered:
        return tuple(values), indices
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values))
    return tuple(values[place] for place in order), rank[indices]


def _filled(column: pa.ChunkedArray, missing: float) -> NDArray[Any]:
    filled: NDArray[Any] = column.fill_null(missing).to_numpy(zero_copy_only=False)
    return filled
