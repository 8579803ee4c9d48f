"""The loop: learns, stops early, resumes with the same losses, refuses what does not fit."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.training import builders
from training.checkpoints import LAST_FILE, load_state, save_state
from training.cleaning import CleanOptions
from training.config import RunConfig, TrainingError
from training.importers.movielens import import_movielens
from training.importers.writing import write_dataset
from training.runs import evaluate_run, load_run, read_inputs
from training.train import METRICS_FILE, TrainInputs, train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which each user walks through twelve items in order."""
    return builders.cyclic_dataset(tmp_path_factory.mktemp("cyclic"))[0]


def fit(dataset: Path, run: Path, config: RunConfig) -> list[float]:
    """Train and return the losses by epoch."""
    state = train(read_inputs(dataset, config), config, run)
    return [row["loss"] for row in state.history]


def test_a_predictable_log_is_learnt(dataset: Path, tmp_path: Path) -> None:
    """The next item follows from the last: the model must beat popularity by far."""
    config = builders.tiny_config(
        "loop.max_epochs=60", "loop.patience=60", "optim.learning_rate=0.02", "model.dropout=0.0"
    )
    fit(dataset, tmp_path / "run", config)
    results = evaluate_run(tmp_path / "run", "test")["results"]
    assert results["model"]["hr@1"] > 0.8
    assert results["popularity"]["hr@1"] < 0.5
    assert results["markov"]["hr@1"] == 1.0


@pytest.mark.parametrize("averaged", ["optim.ema_decay=0.0", "optim.ema_decay=0.9"])
def test_a_run_killed_at_any_step_resumes_with_the_same_metrics(
    dataset: Path, tmp_path: Path, averaged: str
) -> None:
    """Weights, optimiser, average, dropout and batch order all come back, whatever the step."""
    config = builders.tiny_config(averaged)
    inputs = read_inputs(dataset, config)
    whole = train(inputs, config, tmp_path / "whole")
    steps_per_epoch = -(-inputs.events.num_users // config.loop.batch_size)
    num_steps = steps_per_epoch * len(whole.history)
    assert num_steps == 18
    for stop in np.random.default_rng(4).choice(num_steps, 3, replace=False) + 1:
        run = tmp_path / f"killed-{stop}"
        with pytest.raises(KeyboardInterrupt):
            _StopAfter(int(stop)).train(inputs, config, run)
        resumed = train(inputs, config, run)
        assert without_times(resumed.history) == without_times(whole.history)
        assert resumed.best_epoch == whole.best_epoch


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows less what a clock measured."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "tokens_per_s")}
        for row in history
    ]


class _StopAfter:
    """Ends a run as a kill would, after a number of optimiser steps."""

    def __init__(self, steps: int) -> None:
        self._limit = steps
        self._steps = 0

    def train(self, inputs: TrainInputs, config: RunConfig, run: Path) -> None:
        hook = register_optimizer_step_post_hook(self._step)
        try:
            train(inputs, config, run)
        finally:
            hook.remove()

    def _step(self, *_: object) -> None:
        self._steps += 1
        if self._steps == self._limit:
            raise KeyboardInterrupt


def test_two_seeds_differ_and_one_seed_repeats(dataset: Path, tmp_path: Path) -> None:
    """A figure with its seed can be had again."""
    first = fit(dataset, tmp_path / "a", builders.tiny_config())
    again = fit(dataset, tmp_path / "b", builders.tiny_config())
    other = fit(dataset, tmp_path / "c", builders.tiny_config("loop.seed=2"))
    assert first == again
    assert first != other


def test_training_stops_when_validation_does_not_improve(dataset: Path, tmp_path: Path) -> None:
    """With no learning rate nothing improves: the first epoch is best, patience 2 ends it."""
    config = builders.tiny_config(
        "optim.learning_rate=0.0", "loop.patience=2", "loop.max_epochs=50", "model.dropout=0.0"
    )
    state = train(read_inputs(dataset, config), config, tmp_path / "run")
    assert (state.best_epoch, state.epoch) == (1, 3)


def test_the_best_epoch_is_the_one_evaluated(dataset: Path, tmp_path: Path) -> None:
    """Chosen on validation; the last weights may be worse."""
    config = builders.tiny_config()
    train(read_inputs(dataset, config), config, tmp_path / "run")
    document = json.loads((tmp_path / "run" / METRICS_FILE).read_text())
    loaded = load_run(tmp_path / "run")
    report = evaluate_run(tmp_path / "run", "validation")
    assert loaded.best_validation["epoch"] == document["best_epoch"]
    assert report["results"]["model"]["ndcg@10"] == pytest.approx(
        document["best_validation"]["ndcg@10"]
    )


def test_other_settings_in_the_same_folder_are_refused(dataset: Path, tmp_path: Path) -> None:
    """Resuming a run under other settings would report neither."""
    fit(dataset, tmp_path / "run", builders.tiny_config())
    with pytest.raises(TrainingError, match="other settings; choose another --out"):
        fit(dataset, tmp_path / "run", builders.tiny_config("loop.seed=9"))


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_refused(
    dataset: Path, tmp_path: Path, damage: bytes | None
) -> None:
    """Half a file is no state to go on from, and neither is another kind of file."""
    fit(dataset, tmp_path / "run", builders.tiny_config())
    path = tmp_path / "run" / LAST_FILE
    path.write_bytes(path.read_bytes()[:100] if damage is None else damage)
    with pytest.raises(TrainingError, match="not a checkpoint"):
        load_state(path)


@pytest.mark.parametrize("preset", ["time", "base"])
def test_an_order_is_not_trained_on_as_time(tmp_path: Path, preset: str) -> None:
    """One second per event is no gap: the service would ask with real ones."""
    columns = {"user_id": [1] * 4, "item_id": [1, 2, 3, 4], "rating": [4] * 4}
    times = {"order": [0, 1, 2, 3], "timestamp": [None, 5, 6, 7]}
    pq.write_table(pa.table(columns | times), tmp_path / "events.parquet")
    items = {"item_id": [1], "title": ["A"], "genres": ["Drama"]}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    out = tmp_path / "out"
    write_dataset(import_movielens(tmp_path), CleanOptions(), out, tmp_path)
    gaps = "model.time_gaps=true"
    config = builders.tiny_config(gaps, "split.protocol=leave-one-out", preset=preset)
    with pytest.raises(TrainingError, match="only the order of events is known"):
        train(read_inputs(out, config), config, tmp_path / "run")


def test_a_run_is_not_evaluated_under_another_protocol(dataset: Path, tmp_path: Path) -> None:
    """Its training events hold the other protocol's targets."""
    fit(dataset, tmp_path / "run", builders.tiny_config())
    with pytest.raises(TrainingError, match="training events hold temporal targets"):
        evaluate_run(tmp_path / "run", "test", "temporal")


def test_the_temporal_protocol_trains_and_evaluates(dataset: Path, tmp_path: Path) -> None:
    """The other split goes through the same code, and its hash is another."""
    config = builders.tiny_config("split.protocol=temporal")
    fit(dataset, tmp_path / "run", config)
    report = evaluate_run(tmp_path / "run", "test", "temporal")
    assert report["num_cases"] > 0
    assert report["protocol"] == "temporal"


def test_request_time_known_and_unknown_are_two_figures(dataset: Path, tmp_path: Path) -> None:
    """The switch reaches the model and the report."""
    fit(dataset, tmp_path / "run", builders.tiny_config("loop.max_epochs=1"))
    known = evaluate_run(tmp_path / "run", "test", request_time="known")
    unknown = evaluate_run(tmp_path / "run", "test", request_time="unknown")
    assert (known["request_time"], unknown["request_time"]) == ("known", "unknown")
    assert known["results"]["model"] != unknown["results"]["model"]
    assert known["results"]["markov"] == unknown["results"]["markov"]


def test_a_run_from_before_a_setting_goes_on_with_its_default(
    dataset: Path, tmp_path: Path
) -> None:
    """A checkpoint that knows nothing of texts, nor of rates by group, is no other run."""
    run = tmp_path / "run"
    fit(dataset, run, builders.tiny_config("loop.max_epochs=2"))
    state = load_state(run / LAST_FILE)
    del state.config["text"]
    for group in state.optimizer["param_groups"]:
        del group["rate_scale"]
    state.config["loop"]["max_epochs"] = 3
    state.finished = False
    save_state(run / LAST_FILE, state)
    assert len(fit(dataset, run, builders.tiny_config("loop.max_epochs=3"))) == 3
