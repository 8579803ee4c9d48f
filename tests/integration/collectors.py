"""Collector processes, and what they leave in their folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.processes import LoggedProcess, stop

# Small and soon, so that a test sees many files.
HASTY = ("--max-rows", "50", "--max-age-s", "0.1")


def start_collector(url: str, out: Path, *options: str) -> LoggedProcess:
    """Start a collector that goes on until it is told to stop."""
    command = [sys.executable, "-m", "service", "collect", "--redis", url, "--out", str(out)]
    return LoggedProcess(*command, *options)


@contextmanager
def collecting(url: str, out: Path, *options: str) -> Iterator[LoggedProcess]:
    """Run a collector; it is ended if the test has not."""
    process = start_collector(url, out, *options)
    try:
        process.wait_for("collector_started")
        yield process
    finally:
        stop(process)


def collect_once(url: str, out: Path, *options: str) -> LoggedProcess:
    """Run a collector to its end; it must end well."""
    process = start_collector(url, out, "--once", *options)
    assert process.wait() == 0, process.output
    return process


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a disk of this size in memory; the test is skipped where that is not allowed."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)  # noqa: S607  # found on the path, as mount


def asides(out: Path) -> list[Path]:
    """Return what is still being written aside, or was when a collector was killed."""
    return list(out.rglob("*.writing"))


def everything_in(out: Path) -> bytes:
    """Return the bytes of all files of a folder."""
    return b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
