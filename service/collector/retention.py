"""Removing the days that are older than the operator wants to keep."""

from pathlib import Path

from service.collector import disk
from service.collector.folder import Folder, Span
from service.collector.parquet import read_footer
from service.collector.rows import SCHEMAS
from service.logs import get_logger


def remove_old_days(folder: Folder, first_day: int) -> int:
    """Remove every day before `first_day` (days since 1970), oldest first; return their number.

    Raises OSError; what is left then goes the next time.
    """
    old = [path for tree in SCHEMAS for day, path in folder.days(tree) if day < first_day]
    for path in old:
        _remove_day(folder, path)
        get_logger(__name__).info("collector_day_removed", tree=path.parent.name, day=path.name)
    return len(old)


def _remove_day(folder: Folder, day: Path) -> None:
    for path in sorted(day.glob("*.parquet")):
        if Span.of(path) is not None:
            folder.remove(path, read_footer(path).position)
    if not any(day.iterdir()):
        day.rmdir()
        disk.sync_folder(day.parent)
