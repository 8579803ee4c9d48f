"""A file of events that could not be delivered, for the next start of the program.

One line is eight hexadecimal digits, the CRC-32 of what follows, a space, and an event as JSON. The
file is written whole beside its place and then takes it, so that a crash leaves the old one.
"""

import json
import os
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sojourn_client.errors import SpoolDamaged, SpoolInUse
from sojourn_client.events import Event

CRC_CHARS = 8
PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Read:
    """What was in a spool: events, and what is wrong with the lines that are none."""

    events: list[Event] = field(default_factory=list)
    damages: list[SpoolDamaged] = field(default_factory=list)


class Spool:
    """The spool of one process, which has it to itself from here until `release`.

    Raises SpoolInUse if another one has it, OSError if its folder cannot be written. On Windows
    nobody is kept out.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damaged_path = self.path.with_name(self.path.name + ".damaged")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path.with_name(self.path.name + ".lock"))

    def read(self) -> Read:
        """Return what is in the file and leave it there; damaged lines are kept in another too."""
        found = Read()
        if not self.path.exists():
            return found
        damaged: list[bytes] = []
        # Not by text lines: an id may hold characters that Python ends lines at.
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not line:
                continue
            try:
                found.events.append(_event(line))
            except ValueError as exc:
                found.damages.append(SpoolDamaged(number, str(exc), str(self.damaged_path)))
                damaged.append(line)
        self._keep(damaged)
        return found

    def write(self, events: Iterable[Event]) -> int:
        """Have these events and no others in the file, and return how many; none leaves no file."""
        lines = [line_of(event) for event in events]
        if not lines:
            self.path.unlink(missing_ok=True)
            return 0
        made = self.path.with_name(self.path.name + ".new")
        with _private(made, "wb") as file:
            file.writelines(lines)
            _sync(file)
        made.replace(self.path)
        _sync_folder(self.path.parent)
        return len(lines)

    def release(self) -> None:
        """Let the next process have it; the lock's file stays, as removing it would race."""
        # A child of a fork has the open file too, and would keep the lock as long as it lives.
        _unlock(self._lock)
        self._lock.close()

    def _keep(self, lines: list[bytes]) -> None:
        """Add damaged lines to the file of such, those that are not there yet."""
        known = self.damaged_path.read_bytes() if self.damaged_path.exists() else b""
        new = [line + b"\n" for line in dict.fromkeys(lines) if line + b"\n" not in known]
        if new:
            with _private(self.damaged_path, "ab") as file:
                file.writelines(new)
                _sync(file)


def line_of(event: Event) -> bytes:
    """Return the line of an event."""
    text = json.dumps(event.to_json(), allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _event(line: bytes) -> Event:
    """Return the event of a line; raises ValueError that says what is wrong."""
    text = line[CRC_CHARS + 1 :]
    if line[: CRC_CHARS + 1] != b"%08x " % zlib.crc32(text):
        raise ValueError("is not what was written (its checksum differs)")
    try:
        return Event.from_json(json.loads(text))
    except (TypeError, ValueError) as exc:
        raise ValueError(f"is no event of this version ({exc})") from exc


def _locked(path: Path) -> IO[bytes]:
    file = _private(path, "ab")
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415  # absent on Windows

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.close()
            raise SpoolInUse(f"another process or sender has {path}; give each its own") from exc
    return file


def _unlock(file: IO[bytes]) -> None:
    if sys.platform != "win32" and not file.closed:
        import fcntl  # noqa: PLC0415  # absent on Windows

        fcntl.flock(file, fcntl.LOCK_UN)


def _private(path: Path, mode: str) -> IO[bytes]:
    """Open a file that only its owner may read: events say who did what."""
    return open(  # Path.open takes no opener; callers close it
        path, mode, opener=lambda name, flags: os.open(name, flags, PRIVATE)
    )


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Have the new name of a file on the disk too, where folders can be synced."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
