"""py-spy, in a place of its own, beside a server under load."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.processes import ROOT
from benchmarks.serving.requests import BenchmarkFailed

TOOLS = ROOT / "build" / "profile-tools"
PY_SPY = TOOLS / "bin" / "py-spy"
# It reads the symbols of every library before its first sample.
STARTS_WITHIN_S = 4.0
ENDS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a process is sampled: times a second, for how long, with frames of libraries or not."""

    rate: int
    seconds: int
    is_native: bool


def install() -> None:
    """Install the dependency group `profile` into a place of its own, once."""
    if PY_SPY.exists():
        return
    print("installing py-spy into build/profile-tools", flush=True)
    python = str(TOOLS / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(TOOLS)], check=True)  # noqa: S603  # our own tools
        # --group came with pip 25.1.
        for words in (("--upgrade", "pip>=25.1"), ("--group", "profile")):
            subprocess.run([*pip, *words], cwd=ROOT, check=True)  # noqa: S603  # as above
    except subprocess.CalledProcessError as exc:
        raise BenchmarkFailed(
            f"py-spy could not be installed into {TOOLS.relative_to(ROOT)}: {exc}"
        ) from exc


@contextmanager
def sampled(pid: int, sampling: Sampling, into: Path, *, tool: Path = PY_SPY) -> Iterator[None]:
    """Sample a process from here on; when the block has ended, `into` has the stacks.

    Raises BenchmarkFailed if py-spy cannot: it has to be allowed to trace another process.
    """
    command = [str(tool), "record", "--pid", str(pid), "--format", "raw"]
    command += ["--rate", str(sampling.rate), "--duration", str(sampling.seconds)]
    command += ["--output", str(into)] + ["--native"] * sampling.is_native
    process = subprocess.Popen(  # noqa: S603 - our own tool
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield
        said = process.communicate(timeout=ENDS_WITHIN_S)[0]
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkFailed(f"py-spy did not end within {ENDS_WITHIN_S:g} s") from exc
    finally:
        process.kill()
        process.wait()
    if process.returncode or not into.is_file():
        raise BenchmarkFailed(
            f"py-spy ended with {process.returncode}; root or CAP_SYS_PTRACE may be needed: "
            f"{said.strip()[-500:]}"
        )
