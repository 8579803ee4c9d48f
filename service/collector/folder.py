"""The collector's folder: which entries are in its files, and how files come and go.

A file's name says which entries of the stream it stands for, so writing the rows and moving the
cursor are one rename. `state.json` only remembers what no file says: entries without a row, and
files that were removed.
"""

import fcntl
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import IO, Any

from service.collector import disk
from service.collector.rows import EVENTS, SCHEMAS, Tree
from service.errors import ServiceError
from service.store.stream import MS_PER_DAY, START, StreamId

LOCK_FILE = "collector.lock"
STATE_FILE = "state.json"
STATE_VERSION = 1
DAY_PREFIX = "day="
EPOCH = date(1970, 1, 1)
_NAME = re.compile(r"p(\d+)-(\d+)-(\d+)-(\d+)-(\d+)\.parquet")


class CollectorRefused(ServiceError):
    """The collector cannot start: its folder or its port is taken, or the folder is not its own."""

    status = 503
    slug = "collector-refused"
    title = "Collector refused"


@dataclass(frozen=True, slots=True)
class Span:
    """The entries of one partition that a file stands for: from `first` to `last`, on one day."""

    partition: int
    first: StreamId
    last: StreamId

    @property
    def file_name(self) -> str:
        """The file's name; names of one partition sort in the order of the stream."""
        first, last = (f"{one.ms:013d}-{one.seq:06d}" for one in (self.first, self.last))
        return f"p{self.partition}-{first}-{last}.parquet"

    @classmethod
    def of(cls, path: Path) -> "Span | None":
        """Return the span that a file's name states, None if it is no file of a collector."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        partition, *ids = (int(group) for group in match.groups())
        return cls(partition, StreamId(*ids[:2]), StreamId(*ids[2:]))


def day_of(entry: StreamId) -> int:
    """Return the UTC day on which an entry was added, in days since 1970."""
    return entry.ms // MS_PER_DAY


class Folder:
    """One collector's folder, locked for as long as it is open."""

    def __init__(self, root: Path) -> None:
        """Lock the folder, make it if need be, and read what is in it.

        Raises CollectorRefused if another collector has it or it is not a collector's; OSError.
        """
        root.mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._lock = _locked(self._root / LOCK_FILE)
        try:
            disk.remove_asides(self._root)
            self._state = _read_state(self._root / STATE_FILE)
            self._last: dict[tuple[Tree, int], StreamId] = {}
            for tree in SCHEMAS:
                for span, _ in self._spans(tree):
                    self._advance(tree, span)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the folder for another collector."""
        self._lock.close()

    def claim(self, num_partitions: int) -> None:
        """Bind the folder to a store; raises CollectorRefused if it holds another one's events."""
        known = self._state.get("num_partitions")
        if known is None:
            self._save_state(self._state | {"num_partitions": num_partitions})
        elif known != num_partitions:
            raise CollectorRefused(
                f"{self._root}: holds events of a store with {known} partitions, this one has "
                f"{num_partitions}; collect into a folder of its own"
            )

    def cursor(self, partition: int) -> StreamId:
        """Return the entry up to which everything is in files, erased, or has no row."""
        return max(self._noted(partition), self._last.get((EVENTS, partition), START))

    def written(self, tree: Tree, partition: int) -> StreamId:
        """Return the entry up to which a tree has its rows; another tree may be ahead."""
        return max(self._noted(partition), self._last.get((tree, partition), START))

    def noted_position(self, partition: int) -> int | None:
        """Return the position that was noted with the cursor, if no file is newer."""
        if self._noted(partition) < self.cursor(partition):
            return None
        position = self._noted_partition(partition).get("position")
        return None if position is None else int(position)

    def commit(self, tree: Tree, span: Span, data: bytes) -> Path:
        """Add a file; the cursor has then moved. Raises OSError and changes nothing."""
        path = self._day_folder(tree, day_of(span.first)) / span.file_name
        disk.make_folder(path.parent)
        disk.write_whole(path, data)
        self._advance(tree, span)
        return path

    def note(self, partition: int, last: StreamId, position: int | None) -> None:
        """Move the cursor over entries that have no row; raises OSError and changes nothing."""
        partitions = dict(self._state.get("partitions", {}))
        partitions[str(partition)] = {"cursor": str(last), "position": position}
        self._save_state(self._state | {"partitions": partitions})

    def replace(self, path: Path, data: bytes) -> None:
        """Put another content into a file; it stands for the same entries."""
        disk.write_whole(path, data)

    def remove(self, path: Path, position: int | None = None) -> None:
        """Remove a file; the cursor stays where it is, also after a restart."""
        span = Span.of(path)
        if span is None:
            raise ValueError(f"{path} is no file of a collector")
        if self._noted(span.partition) < self.cursor(span.partition) <= span.last:
            self.note(span.partition, self.cursor(span.partition), position)
        path.unlink()
        disk.sync_folder(path.parent)

    def files(self, tree: Tree, partition: int) -> list[Path]:
        """Return a partition's files, oldest first."""
        own = self._spans(tree, f"p{partition}-*.parquet")
        return [path for _, path in sorted((span.first, path) for span, path in own)]

    def days(self, tree: Tree) -> list[tuple[int, Path]]:
        """Return the days of a tree, in days since 1970, with their folders, oldest first."""
        found = []
        for path in (self._root / tree).glob(f"{DAY_PREFIX}*"):
            try:
                day = date.fromisoformat(path.name.removeprefix(DAY_PREFIX))
            except ValueError:
                continue  # somebody else's folder
            found.append(((day - EPOCH).days, path))
        return sorted(found)

    def _day_folder(self, tree: Tree, day: int) -> Path:
        name = EPOCH + timedelta(days=day)
        return self._root / tree / f"{DAY_PREFIX}{name.isoformat()}"

    def _spans(self, tree: Tree, pattern: str = "*.parquet") -> Iterator[tuple[Span, Path]]:
        for path in (self._root / tree).glob(f"{DAY_PREFIX}*/{pattern}"):
            span = Span.of(path)
            if span is not None:
                yield span, path

    def _advance(self, tree: Tree, span: Span) -> None:
        key = (tree, span.partition)
        self._last[key] = max(span.last, self._last.get(key, START))

    def _noted(self, partition: int) -> StreamId:
        text = self._noted_partition(partition).get("cursor")
        return START if text is None else StreamId.parse(text)

    def _noted_partition(self, partition: int) -> dict[str, Any]:
        return dict(self._state.get("partitions", {}).get(str(partition), {}))

    def _save_state(self, state: dict[str, Any]) -> None:
        text = json.dumps({"version": STATE_VERSION} | state, indent=1) + "\n"
        disk.write_whole(self._root / STATE_FILE, text.encode())
        self._state = state


def _locked(path: Path) -> IO[str]:
    lock = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise CollectorRefused(
            f"{path.parent}: another collector is writing here; stop it, or choose another --out"
        ) from exc
    return lock


def _read_state(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        state = dict(json.loads(path.read_text("utf-8")))
        for noted in state.get("partitions", {}).values():
            StreamId.parse(noted["cursor"])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise CollectorRefused(f"{path}: cannot be read: {exc}; restore it from a backup") from exc
    if state.get("version") != STATE_VERSION:
        raise CollectorRefused(
            f"{path}: version {state.get('version')}, this build reads {STATE_VERSION}; "
            "collect into a folder of its own"
        )
    return state
