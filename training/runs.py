"""A finished run, read back: its settings, data, split and best model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.baselines import fit_baselines
from training.checkpoints import BEST_FILE, load_state
from training.config import (
    Protocol,
    RequestTime,
    RunConfig,
    TrainingError,
    config_from_dict,
)
from training.data import read_dataset
from training.evaluate import Scorer, TorchScorer, evaluate, headline_rule
from training.model import SequenceModel
from training.splits import make_split
from training.train import CONFIG_FILE, TrainInputs


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run with the model of its best epoch, in evaluation mode."""

    inputs: TrainInputs
    config: RunConfig
    model: SequenceModel
    best_validation: dict[str, float]


def read_inputs(dataset: Path, config: RunConfig) -> TrainInputs:
    """Read a dataset and split it as the settings say."""
    events, info = read_dataset(dataset)
    return TrainInputs(events, info, make_split(events, config.split), dataset)


def load_run(run: Path) -> LoadedRun:
    """Read a run back; raises TrainingError when it is not one, or its data has changed."""
    try:
        document = json.loads((run / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{run}: no run ({CONFIG_FILE} cannot be read): {exc}") from exc
    dataset = Path(document.pop("dataset"))
    config = config_from_dict(RunConfig, document)
    inputs = read_inputs(dataset, config)
    best = load_state(run / BEST_FILE)
    if best.data_sha256 != inputs.info.data_sha256:
        raise TrainingError(f"{dataset}: has changed since {run} was trained on it")
    model = SequenceModel(config.model, inputs.events.num_items)
    model.load_state_dict(best.model)
    return LoadedRun(inputs, config, model.eval(), best.history[-1])


def evaluate_run(
    run: Path,
    split: str,
    protocol: Protocol | None = None,
    request_time: RequestTime | None = None,
    make_scorer: Callable[[LoadedRun], Scorer] | None = None,
) -> dict[str, Any]:
    """Measure a run's model beside the baselines; the report is what `--json` writes.

    `make_scorer` runs the model another way than torch.
    Raises TrainingError for a protocol that the run was not trained under, since its training
    events would then hold targets, and for a request time that the data does not know.
    """
    loaded = load_run(run)
    request_time = _request_time(loaded, request_time)
    if protocol not in (None, loaded.config.split.protocol):
        raise TrainingError(
            f"{run}: was trained under the {loaded.config.split.protocol} protocol, its training "
            f"events hold {protocol} targets; train with --set split.protocol={protocol}"
        )
    scorer = TorchScorer(loaded.model) if make_scorer is None else make_scorer(loaded)
    return measure(loaded, split, request_time, scorer)


def measure(
    loaded: LoadedRun, split: str, request_time: RequestTime, scorer: Scorer
) -> dict[str, Any]:
    """Return the report of one scorer and all baselines on one split."""
    inputs, config = loaded.inputs, loaded.config
    scorers: dict[str, Scorer] = {"model": scorer}
    scorers |= fit_baselines(inputs.events, inputs.split.train)
    results = evaluate(
        scorers,
        inputs.events,
        inputs.split.targets(split),
        train=inputs.split.train,
        window_len=config.model.window_len,
        request_time=request_time,
    )
    rule = headline_rule(inputs.info.repeat_share)
    return {
        "dataset": inputs.info.name,
        "protocol": inputs.split.protocol,
        "request_time": request_time,
        "split": split,
        "split_sha256": inputs.split.sha256,
        "seed": config.loop.seed,
        "num_cases": len(inputs.split.targets(split)),
        "seen_items": rule,
        "results": results[rule],
        "results_by_seen_items": results,
    }


def _request_time(loaded: LoadedRun, asked: RequestTime | None) -> RequestTime:
    request_time = asked or loaded.config.model.request_time
    if request_time == "known" and loaded.inputs.info.time_axis == "order":
        raise TrainingError(
            f"{loaded.inputs.info.name}: only the order of events is known; "
            "evaluate with --request-time unknown"
        )
    return request_time
