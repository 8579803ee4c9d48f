"""Files that are whole or not there: written aside, flushed to the disk, renamed."""

import os
from pathlib import Path

ASIDE_SUFFIX = ".writing"


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace a file, so that a crash leaves the old one or the new one.

    When this returns, both the content and the name are on the disk. Raises OSError; then the
    file is as it was, and at most one aside is left, which `remove_asides` finds.
    """
    aside = path.with_name(f".{path.name}{ASIDE_SUFFIX}")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError:
        # Half a file on a full disk is room that the next attempt needs.
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each on the disk before anything is put into it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk: a rename that is not there has not happened."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_asides(folder: Path) -> None:
    """Remove what was being written when a process was killed."""
    for aside in folder.rglob(f".*{ASIDE_SUFFIX}"):
        aside.unlink()
