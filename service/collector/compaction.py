"""Making few files of many, once a day is over and nothing can be added to it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from service.collector.folder import Folder, Span, day_of
from service.collector.parquet import encode, num_rows_of, read_footer, read_rows
from service.collector.rows import SCHEMAS, Tree
from service.logs import get_logger

# Of one file; what a merge holds in memory is some hundred bytes a row.
MAX_MERGED_ROWS = 500_000


def merge_past_days(folder: Folder, today: int, *, max_rows: int = MAX_MERGED_ROWS) -> int:
    """Merge each partition's files of each day before `today`; return the number of files gone.

    A day that its partition's cursor has not left may still grow, and waits. Raises OSError.
    """
    num_gone = 0
    for tree, day, path in _days(folder):
        for partition, files in _by_partition(path).items():
            if day < today and len(files) > 1 and day_of(folder.cursor(partition)) > day:
                groups = _groups([file for _, file in files], max_rows)
                num_gone += sum(_merge(folder, tree, group) for group in groups)
    if num_gone:
        get_logger(__name__).info("collector_merged", files=num_gone)
    return num_gone


def finish_merges(folder: Folder) -> int:
    """Remove parts that a crash has left beside the merged file; return their number.

    The merged file comes first and its parts go then. Files of one partition overlap for no other
    reason, so what lies within another's span is such a part.
    """
    num_gone = 0
    for _, _, path in _days(folder):
        for files in _by_partition(path).values():
            whole = files[0][0]
            for span, file in files[1:]:
                if span.last <= whole.last:
                    folder.remove(file)
                    num_gone += 1
                else:
                    whole = span
    return num_gone


def _days(folder: Folder) -> Iterator[tuple[Tree, int, Path]]:
    for tree in SCHEMAS:
        yield from ((tree, day, path) for day, path in folder.days(tree))


def _by_partition(day: Path) -> dict[int, list[tuple[Span, Path]]]:
    """Return a day's files by partition, in order; of two that begin alike the longer is first."""
    found: defaultdict[int, list[tuple[Span, Path]]] = defaultdict(list)
    for file in day.glob("*.parquet"):
        span = Span.of(file)
        if span is not None:
            found[span.partition].append((span, file))
    for files in found.values():
        files.sort(key=lambda pair: pair[0].last, reverse=True)
        files.sort(key=lambda pair: pair[0].first)
    return found


def _groups(files: Sequence[Path], max_rows: int) -> Iterator[list[Path]]:
    """Yield runs of files, in order, that together are not too large for one."""
    group: list[Path] = []
    size = 0
    for file in files:
        num_rows = num_rows_of(file)
        if group and size + num_rows > max_rows:
            yield group
            group, size = [], 0
        group.append(file)
        size += num_rows
    yield group


def _merge(folder: Folder, tree: Tree, files: Sequence[Path]) -> int:
    if len(files) == 1:
        return 0
    spans = [span for file in files if (span := Span.of(file)) is not None]
    whole = Span(spans[0].partition, spans[0].first, spans[-1].last)
    table = pa.concat_tables([read_rows(file) for file in files])
    folder.commit(tree, whole, encode(table, whole, read_footer(files[-1]).position))
    for file in files:
        folder.remove(file)
    return len(files) - 1
