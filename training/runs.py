"""A finished run, read back: its settings, data, split and best model."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.baselines import fit_baselines
from training.checkpoints import BEST_FILE, load_state
from training.confidence import METHOD, MODEL, breakdown, intervals, significance
from training.config import (
    Protocol,
    RunConfig,
    TrainingError,
    config_from_dict,
)
from training.data import read_dataset, read_items
from training.evaluate import Ranking, SeenItems, headline_rule, rank_cases, results_by_rule
from training.evaluate_tasks import measure_tasks, outcomes, task_predictions
from training.items import item_facts
from training.model.sequence_model import SequenceModel
from training.model_config import RequestTime
from training.new_model import new_model
from training.scorers import Scorer, TorchScorer
from training.splits import make_split
from training.statistics import activity_groups, hour_groups
from training.task_baselines import fit_task_baselines
from training.train import CONFIG_FILE, METRICS_FILE, TrainInputs
from training.warm_start import load_weights


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run with the model of its best epoch, in evaluation mode."""

    inputs: TrainInputs
    config: RunConfig
    model: SequenceModel
    best_validation: dict[str, float]


def read_inputs(dataset: Path, config: RunConfig) -> TrainInputs:
    """Read a dataset and split it as the settings say.

    With `split.train_share` below 1 the other users' events train nothing: not the model, not its
    heads' rates, and no baseline.
    """
    events, info = read_dataset(dataset)
    if events.num_items == 1:
        raise TrainingError(
            f"{dataset}: all events are on one item, there is nothing to choose between; import "
            "the log with the right --item-id-column"
        )
    facts = item_facts(read_items(dataset), tuple(events.items))
    split = make_split(events, config.split)
    users = training_users(events.num_users, config)
    if users is not None:
        split = replace(split, train=split.train & np.isin(events.users, users))
    return TrainInputs(events, info, split, dataset, facts)


def training_users(num_users: int, config: RunConfig) -> NDArray[np.int64] | None:
    """Return the users whose events train, None for all; drawn with the seed, whole users."""
    share = config.split.train_share
    if share >= 1:
        return None
    rng = np.random.default_rng(config.loop.seed)
    return rng.choice(num_users, max(1, round(share * num_users)), replace=False)


def load_run(run: Path) -> LoadedRun:
    """Read a run back; raises TrainingError when it is not one, or its data has changed."""
    try:
        document = json.loads((run / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{run}: no run ({CONFIG_FILE} cannot be read): {exc}") from exc
    dataset = Path(document.pop("dataset", ""))
    config = config_from_dict(RunConfig, document)
    return best_of(run, read_inputs(dataset, config), config)


def best_of(run: Path, inputs: TrainInputs, config: RunConfig) -> LoadedRun:
    """Read the best model of a run whose data and settings are at hand; errors as `load_run`."""
    dataset = inputs.dataset_path
    best = load_state(run / BEST_FILE)
    if best.data_sha256 != inputs.info.data_sha256:
        raise TrainingError(f"{dataset}: has changed since {run} was trained on it")
    model = new_model(config, inputs.facts, dataset, learned=best.model)
    load_weights(model, best.model, run)
    return LoadedRun(inputs, config, model.eval(), best.history[-1])


def run_documents(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a finished run's config.json and metrics.json; raises TrainingError without them."""
    try:
        config, metrics = (
            json.loads((run / name).read_bytes()) for name in (CONFIG_FILE, METRICS_FILE)
        )
    except (OSError, ValueError) as exc:
        raise TrainingError(
            f"{run}: no finished run, which a report needs; train it to its end: {exc}"
        ) from exc
    return config, metrics


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
    ranking = _rank(loaded, split, request_time, scorer)
    figures = _figures(loaded, split, request_time, ranking)
    details = ranking_details(loaded, ranking, figures["seen_items"])
    return figures | details | _task_figures(loaded, split, request_time)


def measure(
    loaded: LoadedRun, split: str, request_time: RequestTime, scorer: Scorer
) -> dict[str, Any]:
    """Return the figures of one scorer and all baselines on one split, without intervals."""
    ranking = _rank(loaded, split, request_time, scorer)
    return _figures(loaded, split, request_time, ranking)


def _rank(loaded: LoadedRun, split: str, request_time: RequestTime, scorer: Scorer) -> Ranking:
    inputs = loaded.inputs
    scorers: dict[str, Scorer] = {MODEL: scorer}
    scorers |= fit_baselines(inputs.events, inputs.split.train)
    return rank_cases(
        scorers,
        inputs.events,
        inputs.split.targets(split),
        window_len=loaded.config.model.window_len,
        request_time=request_time,
    )


def _task_figures(loaded: LoadedRun, split: str, request_time: RequestTime) -> dict[str, Any]:
    """Return `tasks`: click and watch metrics of model and baselines, for a model that has them."""
    tasks = [task for task in loaded.config.model.tasks if task != "next-item"]
    if not tasks:
        return {}
    events, rows = loaded.inputs.events, loaded.inputs.split.targets(split)
    found = {MODEL: task_predictions(loaded.model, events, rows, request_time)}
    found |= fit_task_baselines(events, loaded.inputs.split.train, rows, tasks)
    truth = outcomes(events, rows)
    measured = {
        name: measure_tasks({task: predicted[task] for task in tasks}, truth)
        for name, predicted in found.items()
    }
    return {"tasks": measured}


def _figures(
    loaded: LoadedRun, split: str, request_time: RequestTime, ranking: Ranking
) -> dict[str, Any]:
    inputs = loaded.inputs
    rule = headline_rule(inputs.info.repeat_share)
    results = results_by_rule(ranking, inputs.events, inputs.split.train)
    return {
        "dataset": inputs.info.name,
        "protocol": inputs.split.protocol,
        "request_time": request_time,
        "split": split,
        "split_sha256": inputs.split.sha256,
        "seed": loaded.config.loop.seed,
        "num_cases": len(ranking.rows),
        "seen_items": rule,
        "results": results[rule],
        "results_by_seen_items": results,
    }


def ranking_details(loaded: LoadedRun, ranking: Ranking, rule: SeenItems) -> dict[str, Any]:
    """Return what the headline figures are worth, and what they are by activity and hour."""
    events, rows, ranks = loaded.inputs.events, ranking.rows, ranking.ranks(rule)
    users = events.users[rows]
    past = rows - events.user_starts[users]
    active = activity_groups(past)
    by_activity = breakdown(active, ranks, users)
    for name, chosen in active.items():
        by_activity[name]["num_past_events"] = [int(past[chosen].min()), int(past[chosen].max())]
    hours = hour_groups(events.window.timestamps_ms[rows], events.window.tz_offsets_min[rows])
    timed = loaded.inputs.info.time_axis == "time"
    return {
        "method": dict(METHOD),
        "intervals": intervals(ranks, users),
        "significance": significance(ranks, users),
        "by_activity": by_activity,
        "by_hour": breakdown(hours, ranks, users) if timed else {},
        "hour_zone": ("local" if events.knows_offsets else "utc") if timed else "unknown",
    }


def _request_time(loaded: LoadedRun, asked: RequestTime | None) -> RequestTime:
    request_time = asked or loaded.config.model.request_time
    if request_time == "known" and loaded.inputs.info.time_axis == "order":
        raise TrainingError(
            f"{loaded.inputs.info.name}: only the order of events is known; "
            "evaluate with --request-time unknown"
        )
    return request_time
