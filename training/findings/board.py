"""A run's findings on TensorBoard, beside its epochs: numbers, histograms, pictures, settings."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from training.findings_report import scalars
from training.train import TENSORBOARD_DIR

FOLDER = "report"
# Pixels of a cell of a map of attention.
CELL = 12


def write_board(
    run: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], findings: Mapping[str, Any]
) -> None:
    """Write the findings into a run of TensorBoard's own, in place of those of an older report."""
    folder = run / TENSORBOARD_DIR / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    epoch = int(metrics["best_epoch"])
    numbers = {name.replace("@", "_at_"): value for name, value in scalars(findings).items()}
    with SummaryWriter(str(folder)) as board:
        for name, value in numbers.items():
            board.add_scalar(name, value, epoch)
        points = np.array([point[:2] for point in findings["items"]["points"]])
        for place, axis in enumerate("xy"):
            board.add_histogram(f"items/component_{axis}", points[:, place], epoch)
        for name, curve in findings["biases"].items():
            for head, biases in enumerate(curve["heads"], 1):
                board.add_histogram(f"bias_by_{name}/head_{head}", np.array(biases), epoch)
        for at, user in enumerate(findings["attention"]["users"], 1):
            picture = np.block([[np.array(head) for head in layer] for layer in user["layers"]])
            scaled = np.kron(picture / max(float(picture.max()), 1e-9), np.ones((CELL, CELL)))
            board.add_image(f"attention/user_{at}", scaled, epoch, dataformats="HW")
        best = {
            f"best/{name.replace('@', '_at_')}": value
            for name, value in metrics["best_validation"].items()
            if isinstance(value, float)
        }
        for summary in hparams(_flat(config), best):  # type: ignore[no-untyped-call]  # torch's own
            board.file_writer.add_summary(summary)
        for name, value in best.items():
            board.add_scalar(name, value, epoch)


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as section.name; lists as text."""
    return {
        f"{section}.{name}": value if isinstance(value, bool | int | float | str) else str(value)
        for section, body in config.items()
        if isinstance(body, Mapping)
        for name, value in body.items()
    }
