"""A disk that can be full for a while."""

import resource
import subprocess
from pathlib import Path

from deploy.chaos.programs import Program

DISK_SIZE = "16m"
CHUNK = bytes(4_096)
# What a process may still write to one file where no disk can be mounted.
SMALL_FILE = 256


class SmallDisk:
    """A disk in memory at `path`; where mounting is not allowed, a limit on what a program writes.

    Either way a write fails in the middle of a file, as it does on a disk that is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"
        self._is_mounted = False

    def __enter__(self) -> "SmallDisk":
        self.path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(self.path)]
        self._is_mounted = not _fails(mount)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_mounted:
            _fails(["umount", str(self.path)])

    @property
    def kind(self) -> str:
        """What stands for the full disk."""
        return f"tmpfs of {DISK_SIZE}" if self._is_mounted else "RLIMIT_FSIZE"

    def fill(self, program: Program) -> None:
        """Let there be no room left for the program."""
        if not self._is_mounted:
            _limit(program, SMALL_FILE)
            return
        try:
            with self._ballast.open("wb", buffering=0) as file:
                while file.write(CHUNK):
                    pass
        except OSError:
            # Full.
            return

    def free(self, program: Program) -> None:
        """Let there be room again."""
        if self._is_mounted:
            self._ballast.unlink()
        else:
            _limit(program, resource.RLIM_INFINITY)


def _limit(program: Program, size: int) -> None:
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (size, hard))


def _fails(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # mount, umount
    except FileNotFoundError:
        return True
    return bool(done.returncode)
