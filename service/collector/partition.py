"""One partition: what was read and is in no file yet, and what was written lately."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.collector.erasure import erase_from_files, is_erased
from service.collector.folder import Folder, Span, day_of
from service.collector.metrics import CollectorMetrics
from service.collector.parquet import encode, read_footer, read_rows
from service.collector.rows import (
    EVENTS,
    EXPOSURES,
    EraseMark,
    Row,
    Skipped,
    Tree,
    event_key,
    parse_entry,
    table_of,
)
from service.logs import get_logger
from service.store.stream import START, StreamEntry, StreamId, StreamPage

# Exposures first: the cursor is that of the events, so it moves when both are written.
COMMIT_ORDER = (EXPOSURES, EVENTS)


class RecentEvents:
    """The last events that were written, by key; the oldest is forgotten for the newest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def add(self, key: bytes) -> bool:
        """Remember a key and return True, or return False if it is remembered already."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)
        return True


@dataclass(slots=True)
class _Batch:
    """Entries that become one file of each tree that they have rows for."""

    first: StreamId = START
    last: StreamId = START
    position: int | None = None
    num_entries: int = 0
    begun_s: float = 0.0
    rows: list[Row] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.num_entries == 0


class Partition:
    """Takes pages of one stream, makes rows of them, and writes files.

    After an OSError nothing is lost or half done: the same call goes on where it stopped.
    """

    def __init__(
        self, number: int, folder: Folder, metrics: CollectorMetrics, *, dedup_events: int
    ) -> None:
        self.number = number
        # The last entry that was read, and how many the stream had ever had with it.
        self.read_id = folder.cursor(number)
        self.position = folder.noted_position(number)
        # Entries that the stream had after the last one read, as far as the server counts.
        self._num_unread = 0
        self._folder = folder
        self._metrics = metrics
        self._inbox: deque[tuple[StreamEntry, int | None]] = deque()
        self._batch = _Batch()
        self._recent = RecentEvents(dedup_events)
        self._recall(dedup_events)

    @property
    def lag(self) -> int:
        """The number of entries that are in no file, read or not."""
        return self.num_waiting + self._num_unread

    @property
    def num_waiting(self) -> int:
        """The number of entries that were read and are in no file yet."""
        return len(self._inbox) + self._batch.num_entries

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest entry that is in no file arrived, ms since 1970; None if all are."""
        if not self._batch.is_empty:
            return self._batch.first.ms
        if self._inbox:
            return self._inbox[0][0].id.ms
        # What is unread came after what was read.
        return self.read_id.ms if self._num_unread else None

    def take(self, page: StreamPage) -> None:
        """Put a page's entries into the queue, and say so if some were trimmed before it."""
        self._check_for_gap(page)
        for at, entry in enumerate(page.entries, start=1):
            if self.position is not None:
                self.position += 1
            if page.is_last and at == len(page.entries) and page.num_added is not None:
                # The count ends where the stream ends, whatever an erasure took out before.
                self.position = page.num_added
            self.read_id = entry.id
            self._inbox.append((entry, self.position))
        known = page.num_added is not None and self.position is not None
        self._num_unread = (page.num_added or 0) - (self.position or 0) if known else 0

    def process(self, max_rows: int, now_s: float) -> None:
        """Make rows of what was read; writes a file when it is full or the day ends.

        Raises OSError, and goes on with the same entry next time.
        """
        while self._inbox:
            entry, position = self._inbox[0]
            batch = self._batch
            new_day = not batch.is_empty and day_of(entry.id) != day_of(batch.first)
            if new_day or batch.num_entries >= max_rows:
                self.flush()
            self._add(entry, position, now_s)
            self._inbox.popleft()

    def flush_if_due(self, max_rows: int, max_age_s: float, now_s: float) -> None:
        """Write what waits if it is enough, or waits long enough. Raises OSError."""
        batch = self._batch
        is_old = now_s - batch.begun_s >= max_age_s
        if not batch.is_empty and (is_old or batch.num_entries >= max_rows):
            self.flush()

    def flush(self) -> None:
        """Write what was made into rows and move the cursor. Raises OSError."""
        batch = self._batch
        if batch.is_empty:
            return
        for tree in COMMIT_ORDER:
            rows = [row for row in batch.rows if row.tree == tree]
            # A tree may be ahead, when the process or the disk failed between the two; spans of
            # one tree never overlap, or the older file would look like part of a merged one.
            written = self._folder.written(tree, self.number)
            if rows and written < batch.last:
                span = Span(self.number, max(batch.first, written.successor()), batch.last)
                data = encode(table_of(tree, rows), span, batch.position)
                self._folder.commit(tree, span, data)
                self._report_file(tree, len(rows), len(data))
        if self._folder.cursor(self.number) < batch.last:
            self._folder.note(self.number, batch.last, batch.position)
        self._batch = _Batch()

    def _report_file(self, tree: Tree, num_rows: int, num_bytes: int) -> None:
        self._metrics.rows.labels(tree).inc(num_rows)
        self._metrics.files.labels(tree).inc()
        get_logger(__name__).info(
            "collector_wrote", tree=tree, partition=self.number, rows=num_rows, bytes=num_bytes
        )

    def _add(self, entry: StreamEntry, position: int | None, now_s: float) -> None:
        parsed = parse_entry(entry)
        if isinstance(parsed, EraseMark):
            self._erase([parsed])
        elif isinstance(parsed, Skipped):
            self._skip(entry, parsed)
        batch = self._batch
        if batch.is_empty:
            batch.first, batch.begun_s = entry.id, now_s
        batch.last, batch.position = entry.id, position
        batch.num_entries += 1
        if isinstance(parsed, Row) and self._is_new(parsed, entry.id):
            batch.rows.append(parsed)

    def _is_new(self, row: Row, entry_id: StreamId) -> bool:
        if entry_id <= self._folder.written(row.tree, self.number):
            return False
        if row.key is None or self._recent.add(row.key):
            return True
        self._metrics.skipped.labels("duplicate").inc()
        return False

    def _skip(self, entry: StreamEntry, skipped: Skipped) -> None:
        self._metrics.skipped.labels(skipped.reason).inc()
        if skipped.reason == "invalid":
            get_logger(__name__).error(
                "collector_entry_invalid",
                partition=self.number,
                entry=str(entry.id),
                reason=skipped.detail,
            )

    def _erase(self, marks: Sequence[EraseMark]) -> None:
        """Erase from the files, then from what waits; the cursor passes the mark only later."""
        num_erased = erase_from_files(self._folder, self.number, marks)
        kept = [row for row in self._batch.rows if not is_erased(row, marks)]
        num_erased += len(self._batch.rows) - len(kept)
        self._batch.rows = kept
        self._metrics.erased_rows.inc(num_erased)
        get_logger(__name__).info("collector_erased", partition=self.number, rows=num_erased)

    def _check_for_gap(self, page: StreamPage) -> None:
        """Compare the oldest entry with the last one read.

        Trimming takes the oldest entries, so as long as one is there that was read, none is
        missing. Else the counts say how many are; where the server does not count, or an erasure
        has rebuilt the stream and its counts with it, that stays unknown.
        """
        if page.oldest is None or page.oldest <= self.read_id:
            return
        before, self.position = self.position, page.num_removed
        if self.read_id == START:
            self._report_late_start(page)
            return
        known = self.position is not None and before is not None and self.position >= before
        missing = (self.position or 0) - (before or 0) if known else None
        # An erasure may have taken out every entry that was read; its mark comes after them.
        is_erasure = missing is None and any("erase" in entry.fields for entry in page.entries)
        if missing != 0 and not is_erasure:
            self._report_gap(page, missing)

    def _report_late_start(self, page: StreamPage) -> None:
        if page.num_removed:
            get_logger(__name__).warning(
                "collector_starts_late", partition=self.number, missing=page.num_removed
            )

    def _report_gap(self, page: StreamPage, missing: int | None) -> None:
        self._metrics.gaps.inc()
        self._metrics.missing.inc(missing or 0)
        get_logger(__name__).error(
            "collector_gap",
            partition=self.number,
            after=str(self.read_id),
            oldest=str(page.oldest),
            missing_at_least=missing,
        )

    def _recall(self, limit: int) -> None:
        """Remember the newest events of the files, as many as the horizon has."""
        files = self._folder.files(EVENTS, self.number)
        if files and self.position is None:
            self.position = read_footer(files[-1]).position
        newest: list[list[bytes]] = []
        for path in reversed(files):
            if sum(map(len, newest)) >= limit:
                break
            newest.append(_keys_of(read_rows(path, ("user_id", "event_id")).to_pylist()))
        for keys in reversed(newest):
            for key in keys:
                self._recent.add(key)


def _keys_of(rows: list[dict[str, str]]) -> list[bytes]:
    return [event_key(row["user_id"], row["event_id"]) for row in rows]
