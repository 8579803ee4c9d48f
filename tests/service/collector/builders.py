"""Streams in memory, and a collector on them."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.collector.collector import Collector
from service.collector.folder import Folder
from service.collector.metrics import CollectorMetrics
from service.collector.options import CollectorOptions
from service.contract.events import Event, user_hash
from service.errors import StoreUnavailable
from service.store.history_codec import encode_payload
from service.store.stream import START, StreamEntry, StreamId, StreamPage
from tests import builders
from tests.fakes import NOON_MS

NOON_S = NOON_MS / 1000


class FakeStreams:
    """Event streams in memory; `down` makes every call raise StoreUnavailable.

    `counts` is whether the server counts the entries it ever had, as all but old ones do.
    """

    def __init__(self, num_partitions: int | None = 1, *, counts: bool = True) -> None:
        self.down = False
        self.partitions = num_partitions
        self._counts = counts
        self._streams: defaultdict[int, list[StreamEntry]] = defaultdict(list)
        self._last: defaultdict[int, StreamId] = defaultdict(lambda: START)
        self._num_added: defaultdict[int, int] = defaultdict(int)

    async def num_partitions(self) -> int | None:
        """Return the number of partitions."""
        self._check()
        return self.partitions

    async def read(self, after: Mapping[int, StreamId], limit: int) -> dict[int, StreamPage]:
        """Return the next entries of each partition."""
        self._check()
        return {partition: self._page(partition, last, limit) for partition, last in after.items()}

    def add(self, partition: int = 0, *, at_ms: int = NOON_MS, **fields: bytes) -> StreamId:
        """Append an entry and return its id; ids only grow."""
        stream = self._streams[partition]
        last = self._last[partition]
        new = StreamId(at_ms, 0) if at_ms > last.ms else StreamId(last.ms, last.seq + 1)
        stream.append(StreamEntry(new, fields))
        self._last[partition] = new
        self._num_added[partition] += 1
        return new

    def add_event(self, partition: int = 0, *, at_ms: int = NOON_MS, **overrides: Any) -> Event:
        """Append an event as the service does, and return it."""
        named = {"event_id": f"n{self._num_added[partition]}"} | overrides
        event = builders.event(**named)
        self.add(partition, at_ms=at_ms, event=encode_payload(event))
        return event

    def add_mark(self, user_id: str, before_ms: int = NOON_MS, partition: int = 0) -> StreamId:
        """Append the mark of an erasure."""
        mark = {"user": user_hash(user_id), "before_ms": before_ms}
        return self.add(partition, erase=json.dumps(mark).encode())

    def trim(self, length: int, partition: int = 0) -> None:
        """Leave the newest entries only."""
        del self._streams[partition][: max(0, len(self._streams[partition]) - length)]

    def rebuild_without(self, user_id: str, partition: int = 0) -> None:
        """Take a user's entries out, as an erasure does; the count starts anew."""
        ours = f'"user_id":"{user_id}"'.encode()
        kept = [e for e in self._streams[partition] if ours not in e.fields.get("event", b"")]
        self._streams[partition] = kept
        self._num_added[partition] = len(kept)

    def _page(self, partition: int, last: StreamId, limit: int) -> StreamPage:
        stream = self._streams[partition]
        entries = [entry for entry in stream if entry.id > last][:limit]
        return StreamPage(
            entries=entries,
            oldest=stream[0].id if stream else None,
            length=len(stream),
            num_added=self._num_added[partition] if self._counts else None,
            is_last=len(entries) < limit,
        )

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("the fake streams are down")


class Running:
    """A collector on fake streams and a folder; `restart` is what a crash leaves behind."""

    def __init__(self, streams: FakeStreams, out: Path, **options: Any) -> None:
        self.streams = streams
        self.out = out
        self.now_s = NOON_S
        self._options = options
        self._start()

    async def drain(self) -> None:
        """Collect everything."""
        await self.collector.drain()

    def restart(self) -> None:
        """Forget what is in memory, as kill -9 does, and start on the same folder."""
        self.folder.close()
        self._start()

    def count(self, name: str, **labels: str) -> float:
        """Return a figure of the metrics."""
        value = self.metrics.registry.get_sample_value(f"sojourn_collector_{name}", labels)
        assert value is not None, name
        return value

    def rows(self, tree: str = "events") -> list[dict[str, Any]]:
        """Return all rows of a tree."""
        return rows_of(self.out, tree)

    def event_ids(self) -> list[str]:
        """Return the ids of all events in the files, with repeats."""
        return [row["event_id"] for row in self.rows()]

    def paths(self, tree: str = "events") -> list[Path]:
        """Return a tree's files."""
        return sorted(self.out.glob(f"{tree}/*/*.parquet"))

    def files(self, tree: str = "events") -> list[str]:
        """Return the names of a tree's files with their days."""
        return sorted(
            str(path.relative_to(self.out / tree)) for path in self.out.glob(f"{tree}/*/*")
        )

    def _start(self) -> None:
        self.metrics = CollectorMetrics()
        self.folder = Folder(self.out)
        options = CollectorOptions(out=self.out, **self._options)
        self.collector = Collector(
            self.streams, self.folder, options, self.metrics, now_s=lambda: self.now_s
        )


def rows_of(out: Path, tree: str = "events") -> list[dict[str, Any]]:
    """Return all rows of a tree, in the order of the files' names."""
    tables = [pq.ParquetFile(path).read() for path in sorted(out.glob(f"{tree}/*/*.parquet"))]
    return [row for table in tables for row in as_numbers(table).to_pylist()]


def as_numbers(table: pa.Table) -> pa.Table:
    """Return a table whose times are whole ms, as events have them."""
    place = table.column_names.index("timestamp")
    return table.set_column(place, "timestamp", table["timestamp"].cast(pa.int64()))
