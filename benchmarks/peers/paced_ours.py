"""Trains our model one epoch a line of input, printing each epoch's row; for train_peers.py.

    python paced_ours.py JOB

JOB is a folder with `job.json`: the data set's path, a preset, settings over it, and how many
epochs. The first line on the input starts the first epoch; `peak_rss_mib` is this process's.
"""

import json
import logging
import resource
import sys
from pathlib import Path

from training.config import load_run_config
from training.dataset import TrainingSet
from training.runs import read_inputs
from training.train import train


def main() -> None:
    """Train at the parent's pace."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text("utf-8"))
    config = load_run_config(job["preset"], None, job["settings"])
    inputs = read_inputs(Path(job["data"]), config)
    logging.disable()
    left = config.loop.max_epochs
    model, split = config.model, inputs.split
    tokens = TrainingSet(
        inputs.events, split.train, model.window_len, model.request_time
    ).num_targets

    def tell(row: dict[str, float]) -> None:
        nonlocal left
        left -= 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(row | {"tokens": tokens, "peak_rss_mib": peak}), flush=True)
        if left:
            sys.stdin.readline()

    sys.stdin.readline()
    train(inputs, config, folder / "run", on_epoch=tell)


if __name__ == "__main__":
    main()
