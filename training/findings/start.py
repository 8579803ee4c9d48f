"""What a run started from: measured before its first epoch, and compared with what it became."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.baselines import item_counts
from training.confidence import MODEL
from training.config import RunConfig
from training.evaluate import headline_rule, rank_cases
from training.files import write_json
from training.findings.item_map import neighbours, unit_vectors
from training.metrics import case_values
from training.model.sequence_model import SequenceModel
from training.model_config import LanguageModelConfig
from training.scorers import TorchScorer
from training.statistics import SEED, bootstrap_means, percentile_interval
from training.train import TrainInputs

START_FILE = "start.json"
MOST_CASES = 2_000


def sampled_cases(inputs: TrainInputs) -> NDArray[np.int64]:
    """Return the validation cases that a report looks at: all, or MOST_CASES drawn with a seed."""
    rows = inputs.split.validation
    if len(rows) <= MOST_CASES:
        return rows
    return np.sort(np.random.default_rng(SEED).choice(rows, MOST_CASES, replace=False))


def keep_start(run: Path, inputs: TrainInputs, config: RunConfig, model: SequenceModel) -> None:
    """Write `start.json`: how the untrained model ranks the cases, and which items it has near.

    It draws no random number and changes no weight, so that training goes on as without it.
    """
    ranking = rank_cases(
        {MODEL: TorchScorer(model)},
        inputs.events,
        sampled_cases(inputs),
        window_len=config.model.window_len,
        request_time=config.model.request_time,
    )
    counts = item_counts(inputs.events, inputs.split.train)
    document = {
        "origin": origin(config),
        "rows": ranking.rows.tolist(),
        "ranks": ranking.ranks(headline_rule(inputs.info.repeat_share))[MODEL].tolist(),
        "neighbours": neighbours(unit_vectors(model), counts),
    }
    write_json(run / START_FILE, document)


def read_start(run: Path, rows: NDArray[np.int64]) -> dict[str, Any] | None:
    """Return what `keep_start` wrote, None for a run without it or with other cases."""
    path = run / START_FILE
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document if document["rows"] == rows.tolist() else None


def origin(config: RunConfig) -> str:
    """Return in words what a run starts from."""
    given = Path(config.pretrain.init_from).name
    if given:
        return f"the best weights of the run {given} (pretrain.init_from)"
    parts = []
    if isinstance(config.model, LanguageModelConfig) and config.model.start == "weights":
        parts.append("a language model's layers (model.weights)")
    if config.text.weights:
        parts.append("a language model's vectors of the texts (text.weights)")
    if set(config.model.tasks) - {"next-item"}:
        parts.append("counted rates in the heads of clicks and watch time")
    fresh = f"random weights of seed {config.loop.seed}"
    return f"{' and '.join(parts)}, else {fresh}" if parts else fresh


def compare(
    before: NDArray[np.int64], after: NDArray[np.int64], users: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Return `before`, `after`, `difference` and its paired `interval` of each metric.

    Ranks are (cases,), of the same cases in the same order; the interval is of resampled users.
    """
    old, new = case_values(before), case_values(after)
    gaps = np.stack([new[name] - old[name] for name in new], axis=1)
    bounds = percentile_interval(bootstrap_means(gaps, users, np.random.default_rng(SEED))).T
    return {
        name: {
            "before": float(old[name].mean()),
            "after": float(new[name].mean()),
            "difference": float(gaps[:, place].mean()),
            "interval": bounds[place].tolist(),
        }
        for place, name in enumerate(new)
    }
