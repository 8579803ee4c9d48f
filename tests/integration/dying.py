"""Lives of a collector that ends, as kill -9 would end it, before its n-th step on the disk.

Run as a program with a folder: life n dies at step n and leaves its folder `n`, where a second
life then goes on to the end. Lives are numbered until one has no step left to die at.
"""

import asyncio
import os
import sys
from pathlib import Path

from service.collector.collector import TIDY_S
from tests.builders import DAY_MS
from tests.fakes import NOON_MS
from tests.service.collector.builders import FakeStreams, Running

DISK_STEPS = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir"})
USERS = ("anna", "bert", "carl")


def main(root: Path) -> None:
    """Live until a life ends by itself."""
    number, died = 0, True
    while died:
        number += 1
        died = not _survives(root / str(number), number)
        if died and not _survives(root / str(number), 0):
            raise RuntimeError(f"after step {number} it did not go on")


async def life(out: Path) -> None:
    """Collect yesterday, today and tomorrow; then merge today, erase anna, remove yesterday."""
    streams = FakeStreams()
    running = Running(streams, out, max_rows=4, retention_days=1)
    _add(streams, 1, NOON_MS - DAY_MS)
    _add(streams, 6, NOON_MS)
    await running.drain()
    _add(streams, 2, NOON_MS + DAY_MS)
    running.now_s += DAY_MS / 1000
    await running.drain()
    streams.add_mark("anna")
    _add(streams, 2, NOON_MS + DAY_MS)
    running.now_s += TIDY_S
    await running.drain()
    running.folder.close()


def _add(streams: FakeStreams, number: int, at_ms: int) -> None:
    """Append events and exposures of all users in turn."""
    for at in range(number):
        user_id = USERS[at % len(USERS)]
        streams.add_event(user_id=user_id, at_ms=at_ms)
        if at % 2:
            streams.add(exposure=f'{{"user_id":"{user_id}"}}'.encode(), at_ms=at_ms)


def _survives(out: Path, step: int) -> bool:
    """Live in a process of its own, which dies at a step; 0 is none."""
    child = os.fork()
    if child == 0:
        if step:
            sys.addaudithook(_Death(out, step))
        asyncio.run(life(out))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


class _Death:
    """Counts what changes files of a folder, and ends the process before the n-th such step."""

    def __init__(self, out: Path, step: int) -> None:
        self._out = str(out)
        self._left = step

    def __call__(self, name: str, arguments: tuple[object, ...]) -> None:
        if _changes_files(name, arguments) and str(arguments[0]).startswith(self._out):
            self._left -= 1
            if self._left == 0:
                os._exit(9)


def _changes_files(name: str, arguments: tuple[object, ...]) -> bool:
    """Say whether an audit event is a step that a next life can see."""
    opened = name == "open" and isinstance(arguments[1], str) and arguments[1] in {"wb", "a"}
    return opened or name in DISK_STEPS


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
