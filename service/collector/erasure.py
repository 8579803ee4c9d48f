"""Taking an erased user's rows out of the files that are there."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from service.collector.folder import Folder, Span
from service.collector.parquet import USER_DIGITS, encode, read_footer, read_rows, users_of
from service.collector.rows import EVENTS, SCHEMAS, EraseMark, Row, Tree
from service.contract.events import user_hash


def erase_from_files(folder: Folder, partition: int, marks: Sequence[EraseMark]) -> int:
    """Rewrite every file of the partition that has rows which marks name; return their number.

    Each file is replaced or removed as a whole, so a crash in between leaves some done and some
    not, and the same marks again finish it. Raises OSError.
    """
    return sum(
        _erase_from_file(folder, tree, path, marks)
        for tree in SCHEMAS
        for path in folder.files(tree, partition)
    )


def is_erased(row: Row, marks: Sequence[EraseMark]) -> bool:
    """Say whether a row that is in no file yet has to go."""
    if row.user_id is None or not marks:
        return False
    limit = _limits([row.user_id], marks).get(row.user_id)
    return limit is not None and (row.tree != EVENTS or row.timestamp_ms <= limit)


def _limits(user_ids: Sequence[str], marks: Sequence[EraseMark]) -> dict[str, int]:
    """Return up to which time rows have to go, for those of the users that a mark names."""
    limits: dict[str, int] = {}
    before_ms = {mark.user: mark.before_ms for mark in sorted(marks, key=lambda m: m.before_ms)}
    for user_id in user_ids:
        limit = before_ms.get(user_hash(user_id))
        if limit is not None:
            limits[user_id] = limit
    return limits


def _erase_from_file(folder: Folder, tree: Tree, path: Path, marks: Sequence[EraseMark]) -> int:
    footer = read_footer(path)
    if footer.users.isdisjoint(mark.user[:USER_DIGITS] for mark in marks):
        return 0
    table = read_rows(path)
    kept = _kept(tree, table, _limits(users_of(table), marks))
    num_erased = int(table.num_rows - kept.num_rows)
    if num_erased == 0:
        return 0
    span = Span.of(path)
    if kept.num_rows == 0 or span is None:
        folder.remove(path, footer.position)
    else:
        folder.replace(path, encode(kept, span, footer.position))
    return num_erased


def _kept(tree: Tree, table: pa.Table, limits: dict[str, int]) -> pa.Table:
    """Return the rows that stay. What was shown before the mark goes whatever its time says."""
    times = table["timestamp"].cast(pa.int64())
    for user_id, limit in limits.items():
        erased = pc.fill_null(pc.equal(table["user_id"], user_id), False)
        if tree == EVENTS:
            erased = pc.and_(erased, pc.less_equal(times, limit))
        stays = pc.invert(erased)
        table, times = table.filter(stays), times.filter(stays)
    return table
