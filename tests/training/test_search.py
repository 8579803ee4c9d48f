"""The search: proposes, prunes, goes on after a kill, and never looks at the test cases."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook
from typer.testing import CliRunner

from tests.training import builders
from training.__main__ import app
from training.config import RunConfig, TrainingError, load_run_config
from training.runs import read_inputs
from training.search.loop import Search, SearchPlan
from training.search.outcomes import Outcome, best_outcome
from training.search.results import require_best
from training.search.space import Axis, Choices, Range
from training.search.study import Method, locked
from training.train import TrainInputs

pytestmark = pytest.mark.integration
RATE = Range("optim.learning_rate", 1e-3, 1e-1, log=True)


def settings(texts: Sequence[str]) -> RunConfig:
    """Return the settings of a model that trains in well under a second."""
    return builders.tiny_config("loop.max_epochs=2", *texts)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainInputs:
    """A log in which each user walks through twelve items in order."""
    dataset = builders.cyclic_dataset(tmp_path_factory.mktemp("cyclic"))[0]
    return read_inputs(dataset, settings([]))


def search(
    inputs: TrainInputs,
    out: Path,
    *axes: Axis,
    method: Method = "random",
    trials: int | None = None,
    seed: int = 1,
) -> list[Outcome]:
    """Search to the end and return the outcomes."""
    plan = SearchPlan(axes, method, seed, trials)
    *_, outcomes = Search(inputs, plan, settings, out).run()
    return outcomes


def test_every_trial_is_an_ordinary_run(inputs: TrainInputs, tmp_path: Path) -> None:
    """Its folder holds the settings tried; its score is the best of its own history."""
    outcomes = search(inputs, tmp_path, Choices("model.num_blocks", (1, 2)), method="grid")
    assert [outcome.values for outcome in outcomes] == [
        {"model.num_blocks": 1}, {"model.num_blocks": 2},
    ]  # fmt: skip
    for outcome in outcomes:
        run = tmp_path / "trials" / f"{outcome.place:03d}"
        config = json.loads((run / "config.json").read_text())
        metrics = json.loads((run / "metrics.json").read_text())
        assert config["model"]["num_blocks"] == outcome.values["model.num_blocks"]
        assert outcome.score == metrics["best_validation"]["ndcg@10"]
        assert outcome.best_epoch == metrics["best_epoch"]


def test_the_test_cases_are_not_read(inputs: TrainInputs, tmp_path: Path) -> None:
    """Rows that do not exist take their place, and nobody notices."""
    nowhere = dataclasses.replace(inputs.split, test=np.array([10**9]))
    blind = dataclasses.replace(inputs, split=nowhere)
    (outcome,) = search(blind, tmp_path, RATE, trials=1)
    assert outcome.state == "complete"


def test_a_seed_proposes_the_same_again(inputs: TrainInputs, tmp_path: Path) -> None:
    """And another seed does not."""
    first, again, other = (
        search(inputs, tmp_path / name, RATE, trials=1, seed=seed)[0].values
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


def test_a_killed_search_goes_on_as_if_it_had_not_been(inputs: TrainInputs, tmp_path: Path) -> None:
    """Its second trial is tried again with its values, from its checkpoint, at its place."""
    whole = search(inputs, tmp_path / "whole", RATE, method="tpe", trials=3)
    killed = tmp_path / "killed"
    steps_per_run = 2 * (24 // 4)  # two epochs of 24 users in batches of 4
    with _Killed(after_steps=steps_per_run + 8), pytest.raises(KeyboardInterrupt):
        search(inputs, killed, RATE, method="tpe", trials=3)
    assert (killed / "trials" / "002" / "last.pt").is_file()
    resumed = search(inputs, killed, RATE, method="tpe", trials=3)
    assert [o.values for o in resumed] == [o.values for o in whole]
    assert [o.scores for o in resumed] == [o.scores for o in whole]


class _Killed:
    """Ends the process's training at a step, counted over all trials."""

    def __init__(self, after_steps: int) -> None:
        self._left = after_steps

    def __enter__(self) -> None:
        self._hook = register_optimizer_step_post_hook(self._step)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def test_more_trials_are_added_to_a_finished_search(inputs: TrainInputs, tmp_path: Path) -> None:
    """The first trial stays as it is; two more come after it."""
    (first,) = search(inputs, tmp_path, RATE, trials=1)
    outcomes = search(inputs, tmp_path, RATE, trials=3)
    assert outcomes[0] == first
    assert [outcome.place for outcome in outcomes] == [1, 2, 3]


def test_another_search_in_the_same_folder_is_refused(inputs: TrainInputs, tmp_path: Path) -> None:
    """Trials of two spaces, methods or seeds are no one search."""
    search(inputs, tmp_path, RATE, trials=1)
    with pytest.raises(TrainingError, match="was searched with another space; choose another"):
        search(inputs, tmp_path, Choices("model.dim", (8, 16)), trials=1)
    with pytest.raises(TrainingError, match="was searched with another method"):
        search(inputs, tmp_path, RATE, method="tpe", trials=1)
    with pytest.raises(TrainingError, match="was searched with another seed"):
        search(inputs, tmp_path, RATE, trials=1, seed=2)


def test_two_processes_do_not_search_in_one_folder(inputs: TrainInputs, tmp_path: Path) -> None:
    """Each would take the other's running trial for a killed one."""
    with (
        locked(tmp_path / "search.lock"),
        pytest.raises(TrainingError, match="another process searches here"),
    ):
        search(inputs, tmp_path, RATE, trials=1)


def test_a_trial_whose_settings_do_not_fit_fails_alone(inputs: TrainInputs, tmp_path: Path) -> None:
    """8 is no multiple of 3; the other combination is trained all the same, and not tried again."""
    axes = (Choices("model.dim", (8, 12)), Choices("model.num_heads", (3,)))
    outcomes = search(inputs, tmp_path, *axes, method="grid")
    assert [outcome.state for outcome in outcomes] == ["failed", "complete"]
    assert "model.dim = 8 must be a multiple of model.num_heads = 3" in outcomes[0].reason
    assert search(inputs, tmp_path, *axes, method="grid") == outcomes
    assert best_outcome(outcomes) == outcomes[1]


def test_a_search_without_a_whole_trial_says_why(inputs: TrainInputs, tmp_path: Path) -> None:
    """There are no best settings to write."""
    axes = (Choices("model.dim", (8,)), Choices("model.num_heads", (3,)))
    outcomes = search(inputs, tmp_path, *axes, method="grid")
    with pytest.raises(TrainingError, match=r"none of 1 trials .* first failed: model.dim = 8"):
        require_best(outcomes)


def test_a_hopeless_trial_is_ended_early(tmp_path: Path) -> None:
    """After five whole trials, one that learns nothing is below their median at epoch 3 of 6."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    rates = (0.02, 0.021, 0.022, 0.023, 0.024, 0.0)
    plan = SearchPlan((Choices("optim.learning_rate", rates),), "grid", 1)

    def six_epochs(texts: Sequence[str]) -> RunConfig:
        return builders.tiny_config("loop.max_epochs=6", "loop.patience=6", *texts)

    inputs = read_inputs(dataset, six_epochs([]))
    *_, outcomes = Search(inputs, plan, six_epochs, tmp_path / "out").run()
    assert [outcome.state for outcome in outcomes] == [*["complete"] * 5, "pruned"]
    assert [len(outcome.scores) for outcome in outcomes] == [6, 6, 6, 6, 6, 3]


def test_a_study_that_was_killed_between_two_writes_is_cleared(
    inputs: TrainInputs, tmp_path: Path
) -> None:
    """A trial without a place, and one only queued, leave no trace in the outcomes."""
    search(inputs, tmp_path, RATE, trials=1)
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="search")
    study.ask()
    study.enqueue_trial({RATE.name: 0.05})
    outcomes = search(inputs, tmp_path, RATE, trials=2)
    assert [outcome.place for outcome in outcomes] == [1, 2]
    assert outcomes[1].values != {RATE.name: 0.05}


def test_the_command_leaves_tables_and_settings_that_train_takes(tmp_path: Path) -> None:
    """From a space to best.toml, and from there to a run with the best trial's settings."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    space = tmp_path / "space.toml"
    space.write_text("model.num_blocks = [1, 2]\n", encoding="utf-8")
    fixed = [text for text in builders.TINY if text != "model.num_blocks=2"]
    tiny = [part for text in fixed for part in ("--set", text)]
    found, out = CliRunner(), tmp_path / "out"
    arguments = ["--data", str(dataset), "--out", str(out), "--space", str(space)]
    done = found.invoke(app, ["search", *arguments, "--method", "grid", "--preset", "time", *tiny])
    assert done.exit_code == 0, done.output
    with (out / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    document = json.loads((out / "trials.json").read_text())
    best = document["trials"][document["best_trial"] - 1]
    assert [row["trial"] for row in rows] == ["001", "002"]
    assert best["score"] == max(float(row["score"]) for row in rows)
    assert "model.num_blocks" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "trials" / "001" / "report.html").is_file()
    config = load_run_config("base", out / "best.toml")
    assert getattr(config.model, "num_blocks", 0) == best["values"]["model.num_blocks"]
    again = found.invoke(
        app,
        ["train", "--data", str(dataset), "--out", str(tmp_path / "run"),
         "--config", str(out / "best.toml")],
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["best_validation"]["ndcg@10"] == best["score"]
