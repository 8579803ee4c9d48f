"""What users did before there was a service: events of a dataset, stored before it serves.

The page and the first requests then know the users of the log. Storing is as with `POST
/v1/events`: what is there already is a duplicate, so a restart adds nothing.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.config import Settings
from service.contract.events import Event, derive_event_id
from service.errors import PastEventsRefused
from service.logs import get_logger
from service.metrics import Metrics
from service.store.client import connect
from service.store.history import HistoryStore

EVENTS_FILE = "events.parquet"
NUMBERS = ("value", "duration_s", "lat", "lon")
COLUMNS = (
    "event_id",
    "user_id",
    "item_id",
    "event_type",
    "timestamp_ms",
    "tz_offset_min",
    *NUMBERS,
)
BATCH = 1_000


async def store_past_events(dataset: Path, settings: Settings) -> None:
    """Store the newest `max_events` events of every user of a dataset, and log how many.

    Raises PastEventsRefused when there is no such dataset, StoreUnavailable without Redis.
    """
    events = read_past_events(dataset, settings.max_events)
    client = connect(settings)
    store = HistoryStore(client, settings, Metrics())
    found: Counter[str] = Counter()
    try:
        for batch in _batches(events):
            found.update(result.kind for result in await store.append(batch))
    finally:
        await store.close()
        await client.aclose()
    log = get_logger(__name__)
    log.info("past events stored", **found)
    if found["expired"]:
        log.warning(
            "events are older than is kept; to keep them, set SOJOURN_RETENTION_DAYS",
            expired=found["expired"],
            retention_days=settings.retention_days,
        )


def read_past_events(dataset: Path, max_events: int) -> list[Event]:
    """Return the newest events of every user, users together and oldest first."""
    path = dataset / EVENTS_FILE if dataset.is_dir() else dataset
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as exc:
        raise PastEventsRefused(
            f"{path}: cannot be read as events of a dataset: {exc}; "
            "give --history the folder that `training import` wrote"
        ) from exc
    table = table.sort_by([("user_id", "ascending"), ("timestamp_ms", "ascending")])
    return [_event(row) for row in table.filter(_newest(table["user_id"], max_events)).to_pylist()]


def _newest(users: pa.ChunkedArray, max_events: int) -> pa.Array:
    """Return which rows, of which those of a user stand together, are the user's last ones."""
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy()
    # Codes are given in the order in which users first stand there, so they rise.
    ends = np.cumsum(np.bincount(codes))[codes]
    return pa.array(ends - np.arange(len(codes)) <= max_events)


def _event(row: dict[str, Any]) -> Event:
    ids = row["user_id"], row["item_id"], row["event_type"], row["timestamp_ms"]
    numbers = {name: row[name] for name in NUMBERS}
    event_id = row["event_id"] or derive_event_id(*ids, **numbers)
    return Event(event_id, *ids, tz_offset_min=row["tz_offset_min"], **numbers)


def _batches(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    for start in range(0, len(events), BATCH):
        yield events[start : start + BATCH]
