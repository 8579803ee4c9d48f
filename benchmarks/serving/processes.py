"""The processes of a benchmark: each on its cores, ended by its own id whatever happens."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.requests import BenchmarkFailed

ROOT = Path(__file__).resolve().parents[2]
SERVER_CORE, CLIENT_CORE = 0, 1
READY_WITHIN_S = 180.0
STOP_WITHIN_S = 20.0
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready; `ready_s` is how long that took from its start."""

    name: str
    port: int
    pid: int
    ready_s: float


def status_of(run: Callable[[], None]) -> int:
    """Run a benchmark on its two cores; return what its process is to end with.

    A wrong answer is told and gives 1, Ctrl-C 130; SIGTERM ends what the benchmark has started.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check_cores()
        run()
    except BenchmarkFailed as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def check_cores() -> None:
    """Raise BenchmarkFailed unless this is a Linux with both cores for us."""
    if not hasattr(os, "sched_setaffinity"):
        raise BenchmarkFailed("pinning to cores needs Linux")
    missing = {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0)
    if missing:
        raise BenchmarkFailed(f"core {min(missing)} is not ours; two are needed, 0 and 1")


def free_port() -> int:
    """Return a port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    name: str,
    command: list[str],
    port: int,
    *,
    log: Path,
    ready_path: str,
    cores: Set[int] = frozenset({SERVER_CORE}),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server on some cores until the block ends; its output goes to `log`.

    Raises BenchmarkFailed if it ends, or is not ready in time.
    """
    started = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C is for us, who then end it with its workers.
            start_new_session=True,
        )
    try:
        # Before the interpreter has loaded anything: what it starts later inherits the cores.
        os.sched_setaffinity(process.pid, cores)
        _wait_until_ready(name, process, port, ready_path, log)
        yield Server(name, port, process.pid, time.perf_counter() - started)
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number, within_s in ((signal.SIGTERM, STOP_WITHIN_S), (signal.SIGKILL, STOP_WITHIN_S)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
            break
    with suppress(ProcessLookupError):
        # Workers that outlived their parent.
        os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(
    name: str, process: "subprocess.Popen[bytes]", port: int, path: str, log: Path
) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text("utf-8", errors="replace").strip()[-1_500:]
            raise BenchmarkFailed(f"{name} ended with {process.returncode}: {said}")
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == http.client.OK:
                    return
            finally:
                connection.close()
        time.sleep(POLL_S)
    raise BenchmarkFailed(f"{name} was not ready within {READY_WITHIN_S:g} s; see {log}")
