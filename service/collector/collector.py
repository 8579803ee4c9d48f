"""The collector's round: read every partition, make rows, write what is due, and wait."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from service.collector.compaction import finish_merges, merge_past_days
from service.collector.folder import Folder
from service.collector.metrics import CollectorMetrics
from service.collector.options import CollectorOptions
from service.collector.parquet import FileDamaged
from service.collector.partition import Partition
from service.collector.retention import remove_old_days
from service.errors import StoreUnavailable
from service.logs import get_logger
from service.store.stream import MS_PER_DAY, StreamId, StreamPage

# Entries of one partition in one round trip: the server is busy with them for about a millisecond.
READ_LIMIT = 500
POLL_S = 0.5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# While the disk is full, reading goes on this far beyond what a file takes: what is in memory
# can no longer be trimmed.
MAX_WAITING_FILES = 2
# How often old days are looked for.
TIDY_S = 600.0


class Streams(Protocol):
    """What the collector needs of the store."""

    async def num_partitions(self) -> int | None:
        """Return the store's number of partitions, None while nothing was stored."""

    async def read(self, after: Mapping[int, StreamId], limit: int) -> dict[int, StreamPage]:
        """Return for each partition at most `limit` entries that follow the given one."""


class Collector:
    """Carries the entries of all streams into a folder, each of them once."""

    def __init__(
        self,
        streams: Streams,
        folder: Folder,
        options: CollectorOptions,
        metrics: CollectorMetrics,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._streams = streams
        self._folder = folder
        self._options = options
        self._metrics = metrics
        self._now_s = now_s
        self._partitions: dict[int, Partition] = {}
        self._tidied_s = -math.inf

    async def drain(self) -> None:
        """Write everything that the streams have now, and return.

        Raises StoreUnavailable, OSError, CollectorRefused; what was written until then stays.
        """
        while not await self.step():
            pass
        self.flush()

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until told to stop, then write what waits.

        Redis or the disk may fail meanwhile: nothing is acknowledged, and it is tried again after
        a pause that doubles. Raises OSError if the disk fails at the end, CollectorRefused.
        """
        pause_s = FIRST_PAUSE_S
        while not stop.is_set():
            try:
                is_done = await self.step()
            except (OSError, StoreUnavailable) as exc:
                self._report_failure(exc, pause_s)
                await _wait(stop, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            pause_s = FIRST_PAUSE_S
            if is_done:
                await _wait(stop, POLL_S)
        self.flush()

    async def step(self) -> bool:
        """Read once from every partition and write what is due; return whether all was read."""
        if not await self._has_partitions():
            return True
        most = MAX_WAITING_FILES * self._options.max_rows
        wanted = {
            number: one.read_id
            for number, one in self._partitions.items()
            if one.num_waiting < most
        }
        pages = await self._streams.read(wanted, READ_LIMIT)
        for number, page in pages.items():
            self._partitions[number].take(page)
        self._note_lag()
        self._write_due()
        return all(page.is_last for page in pages.values()) and len(wanted) == len(self._partitions)

    def flush(self) -> None:
        """Write everything that was read. Raises OSError."""
        for one in self._partitions.values():
            one.process(self._options.max_rows, self._now_s())
            one.flush()
        self._note_lag()

    def _note_lag(self) -> None:
        """Say how much is in no file yet, and for how long it has been so."""
        partitions = self._partitions.values()
        self._metrics.lag.set(sum(one.lag for one in partitions))
        waiting_since = [one.oldest_ms for one in partitions if one.oldest_ms is not None]
        now_ms = self._now_s() * 1000
        self._metrics.lag_seconds.set(max(0, now_ms - min(waiting_since, default=now_ms)) / 1000)

    def _write_due(self) -> None:
        options, now_s = self._options, self._now_s()
        for one in self._partitions.values():
            one.process(options.max_rows, now_s)
            one.flush_if_due(options.max_rows, options.max_age_s, now_s)
        if now_s - self._tidied_s >= TIDY_S:
            self._tidy(int(now_s * 1000) // MS_PER_DAY)
            self._tidied_s = now_s

    def _tidy(self, today: int) -> None:
        """Remove days that are too old, merge those that are over. Raises OSError.

        A damaged file of an old day must not hold up new events, which would be trimmed meanwhile.
        """
        try:
            if self._options.retention_days:
                remove_old_days(self._folder, today - self._options.retention_days)
            merge_past_days(self._folder, today)
        except FileDamaged as exc:
            self._metrics.errors.labels("disk").inc()
            get_logger(__name__).error("collector_file_damaged", reason=str(exc))

    async def _has_partitions(self) -> bool:
        """Learn from the store how many partitions there are, once it was written to."""
        if self._partitions:
            return True
        num_partitions = await self._streams.num_partitions()
        if num_partitions is None:
            return False
        self._folder.claim(num_partitions)
        finish_merges(self._folder)
        horizon = self._options.dedup_events
        self._partitions = {
            number: Partition(number, self._folder, self._metrics, dedup_events=horizon)
            for number in range(num_partitions)
        }
        return True

    def _report_failure(self, error: Exception, pause_s: float) -> None:
        kind = "disk" if isinstance(error, OSError) else "redis"
        self._metrics.errors.labels(kind).inc()
        get_logger(__name__).error("collector_waits", kind=kind, reason=str(error), pause_s=pause_s)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Wait until told to stop, at most so long."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
