"""A run from its start to its report: what is kept before it, shown during it, told after it."""

from pathlib import Path
from typing import Any

import torch

from training.checkpoints import TrainState
from training.config import RunConfig, config_to_dict
from training.distributed import join_ranks
from training.findings.board import write_board
from training.findings.examine import examine
from training.findings.start import keep_start
from training.findings_report import scalars
from training.report import REPORT_FILE, write_run_report
from training.runs import LoadedRun, best_of, run_documents
from training.train import TrainInputs, train
from training.wandb_log import WandbLog


def train_with_report(
    inputs: TrainInputs, config: RunConfig, run: Path, wandb_project: str = ""
) -> TrainState:
    """Train a run, or go on with it, and write its report; only one process writes.

    With `wandb_project` it is logged there too. Raises what `train` and `WandbLog` do.
    """
    writes = join_ranks().writes
    wandb_log = None
    if wandb_project and writes:
        named = config_to_dict(config) | {"dataset": inputs.info.name}
        wandb_log = WandbLog(wandb_project, run, named)
    figures: dict[str, Any] = {}
    try:
        state = train(
            inputs,
            config,
            run,
            on_epoch=None if wandb_log is None else wandb_log.epoch,
            on_start=lambda model: keep_start(run, inputs, config, model),
        )
        if writes:
            # Building a model draws its weights before it loads them.
            with torch.random.fork_rng(devices=[]):
                findings = write_findings(run, best_of(run, inputs, config))
            best = {f"best/{name}": value for name, value in _best(state).items()}
            figures = best | scalars(findings)
    finally:
        if wandb_log is not None:
            wandb_log.finish(figures, run / REPORT_FILE if figures else None)
    return state


def write_findings(run: Path, loaded: LoadedRun) -> dict[str, Any]:
    """Look at a finished run's best model; write `report.html` and add to its TensorBoard."""
    config, metrics = run_documents(run)
    findings = examine(run, loaded)
    write_run_report(run, config, metrics, findings)
    write_board(run, config, metrics, findings)
    return findings


def _best(state: TrainState) -> dict[str, float]:
    return state.history[state.best_epoch - 1]
