"""The interpreter that runs the peers: given, or made here with pip on first use."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WORKER = Path(__file__).with_name("rectools_worker.py")
DEFAULT_HOME = ROOT / ".peers" / "venv"
# glibc gives every large tensor back to the kernel and faults it in again. Kept, RecTools' epochs
# take a third less (2.6 s instead of 4.0, HSTU on 160 users); the figures do not change.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def peer_python(given: Path | None) -> Path:
    """Return an interpreter with RecTools; without one given, make `.peers/venv` once."""
    if given is not None:
        return given
    python = DEFAULT_HOME / "bin" / "python"
    finished = DEFAULT_HOME / "installed.txt"
    wanted = REQUIREMENTS.read_text("utf-8")
    if finished.is_file() and finished.read_text("utf-8") == wanted:
        return python
    print(f"installing RecTools into {DEFAULT_HOME}", flush=True)
    venv.create(DEFAULT_HOME, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
    subprocess.run(install, check=True)  # noqa: S603 - our own command
    finished.write_text(wanted, "utf-8")
    return python


def run_worker(python: Path, folder: Path, script: Path = WORKER) -> dict[str, Any]:
    """Run a worker on a job folder and return its `result.json`; exit if it fails.

    What it prints goes to `worker.log` beside the job.
    """
    environment = os.environ | KEEP_MEMORY | {"PYTHONPATH": str(ROOT)}
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    with (folder / "worker.log").open("w", encoding="utf-8") as output:
        ended = subprocess.run(  # noqa: S603 - our own program
            [str(python), str(script), str(folder)],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip
    if ended.returncode or not result.is_file():
        sys.exit(f"{folder}: the peer failed with {ended.returncode}; see worker.log there")
    document: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return document
