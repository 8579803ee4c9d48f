"""A run from its start to its report: what is kept before it, shown during it, told after it."""

from pathlib import Path

import torch

from training.checkpoints import TrainState
from training.config import RunConfig
from training.distributed import join_ranks
from training.findings.examine import examine
from training.findings.start import keep_start
from training.report import write_run_report
from training.runs import LoadedRun, best_of, run_documents
from training.train import TrainInputs, train


def train_with_report(inputs: TrainInputs, config: RunConfig, run: Path) -> TrainState:
    """Train a run, or go on with it, and write its report; only one process writes."""
    state = train(
        inputs, config, run, on_start=lambda model: keep_start(run, inputs, config, model)
    )
    if join_ranks().writes:
        # Building a model draws its weights before it loads them.
        with torch.random.fork_rng(devices=[]):
            write_findings(run, best_of(run, inputs, config))
    return state


def write_findings(run: Path, loaded: LoadedRun) -> None:
    """Look at a finished run's best model and write `report.html`."""
    config, metrics = run_documents(run)
    write_run_report(run, config, metrics, examine(run, loaded))
