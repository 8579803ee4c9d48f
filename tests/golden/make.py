"""Remake the golden bundle and its expected scores: `python -m tests.golden.make`.

Only for a wanted change of the model or the bundle format; the commit says why the outputs change.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from service.contract.features import Int64s, RequestPoint, Window, encode_windows
from tests.training import builders
from training.export import export_bundle
from training.runs import LoadedRun, load_run, read_inputs
from training.scorers import TorchScorer
from training.train import train

FOLDER = Path(__file__).parent
BUNDLE = FOLDER / "bundle"
EXPECTED = FOLDER / "expected.json"
# Users' items, oldest first, an hour apart: short, full, over-long, with a repeat.
HISTORIES = (
    ("i03",),
    ("i00", "i01", "i02"),
    ("i05", "i06", "i05", "i07", "i08", "i09"),
    tuple(f"i{place % 12:02d}" for place in range(4, 19)),
)
FIRST_MS = builders.START_MS
HOUR_MS = 3_600_000
REQUEST_MS = FIRST_MS + 40 * HOUR_MS


def trained_run(folder: Path) -> LoadedRun:
    """Train the tiny model on the cyclic log."""
    dataset, _ = builders.cyclic_dataset(folder)
    config = builders.tiny_config("loop.max_epochs=8", "optim.learning_rate=0.01")
    train(read_inputs(dataset, config), config, folder / "run")
    return load_run(folder / "run")


def torch_scores(loaded: LoadedRun) -> list[dict[str, float]]:
    """Return torch's score of every item by id, for each of HISTORIES at REQUEST_MS."""
    items = loaded.inputs.events.items
    windows = [window_of(items.indices(history)) for history in HISTORIES]
    points = [RequestPoint(REQUEST_MS)] * len(windows)
    arrays = encode_windows(windows, points, loaded.config.model.window_len)
    scores = TorchScorer(loaded.model).score(arrays)
    return [dict(zip(items, (float(score) for score in row[1:]), strict=True)) for row in scores]


def window_of(items: Int64s) -> Window:
    """Return views of these item indices, an hour apart from FIRST_MS."""
    count = len(items)
    unknown = np.full(count, np.nan, np.float32)
    times = FIRST_MS + HOUR_MS * np.arange(count, dtype=np.int64)
    zeros = np.zeros(count, np.int64)
    return Window(items, zeros + 1, times, zeros, unknown, unknown, unknown, unknown)


def main() -> None:
    """Write the bundle and the scores."""
    with tempfile.TemporaryDirectory() as name:
        loaded = trained_run(Path(name))
        bundle, _ = export_bundle(Path(name) / "run", Path(name) / "bundles")
        shutil.rmtree(BUNDLE, ignore_errors=True)
        shutil.copytree(bundle, BUNDLE)
    document = json.dumps(torch_scores(loaded), indent=1)
    EXPECTED.write_text(document + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
