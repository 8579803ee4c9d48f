"""Clicks and watch time: what the baselines know, and that the report has them beside a model."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from service.contract.events import EVENT_TYPES
from tests.training import builders
from training.config import TrainingError, load_run_config
from training.data import EVENT_SCHEMA, DatasetInfo, EventTable, event_table
from training.evaluate_tasks import measure_tasks, outcomes, task_predictions
from training.importers.events import ColumnOptions, import_events
from training.items import ItemFacts
from training.model.batch import serving_batch
from training.model.rates import OutcomeRates, window_tally
from training.model_config import Task
from training.runs import evaluate_run, read_inputs
from training.splits import global_temporal
from training.task_baselines import fit_task_baselines, item_tallies
from training.train import TrainInputs, make_learner, train

NUM_USERS, NUM_SHOWN = 40, 12


def rows() -> list[dict[str, object]]:
    """Users are shown items at random; even items are clicked nine times in ten, and watched."""
    rng = np.random.default_rng(3)
    found: list[dict[str, object]] = []
    for place in range(NUM_SHOWN):
        for user in range(NUM_USERS):
            item = int(rng.integers(10))
            liked = bool(item % 2 == 0) == bool(rng.random() < 0.9)
            found.append({
                "user_id": f"u{user:02d}",
                "item_id": f"i{item}",
                "event_type": "click" if liked else "view",
                "timestamp_ms": builders.START_MS + place * builders.DAY_MS + user * 60_000,
                "duration_s": 100.0 if liked else 1.0,
            })  # fmt: skip
    return found


def events() -> EventTable:
    """The same as arrays, ordered by user and time."""
    ordered = sorted(rows(), key=lambda row: (str(row["user_id"]), int(str(row["timestamp_ms"]))))
    blank = dict.fromkeys(EVENT_SCHEMA.names)
    return event_table(pa.Table.from_pylist([blank | row for row in ordered], EVENT_SCHEMA))


def test_rates_of_items_tell_clicks_where_items_decide() -> None:
    """Nine in ten: the AUC of the item's rate is far above a half, that of the mean is a half."""
    table = events()
    split = global_temporal(table, 0.8, 0.9)
    found = fit_task_baselines(table, split.train, split.test)
    truth = outcomes(table, split.test)
    measured = {name: measure_tasks(predicted, truth) for name, predicted in found.items()}
    assert measured["mean"]["auc"] == 0.5
    assert measured["item_mean"]["auc"] > 0.75
    assert measured["regression"]["auc"] > 0.75
    assert measured["regression"]["log_loss"] < measured["mean"]["log_loss"]
    assert measured["regression"]["watch_mse_log"] < measured["mean"]["watch_mse_log"]


def test_a_rate_does_not_know_its_targets() -> None:
    """Only training events count: other outcomes of the test events change no prediction."""
    table = events()
    split = global_temporal(table, 0.8, 0.9)
    before = fit_task_baselines(table, split.train, split.test)
    table.window.event_types[split.test] = 1
    table.window.durations_s[split.test] = 5.0
    after = fit_task_baselines(table, split.train, split.test)
    for name, predicted in before.items():
        np.testing.assert_array_equal(predicted["click"], after[name]["click"])
        np.testing.assert_array_equal(predicted["watch"], after[name]["watch"])


@pytest.mark.parametrize("preset", ["video", "lstm-video"])
def test_a_run_with_tasks_reports_them_beside_the_baselines(tmp_path: Path, preset: str) -> None:
    """Import, train, evaluate: the model learns that even items are clicked."""
    lines = ["user_id,item_id,event_type,timestamp,duration_s"]
    lines += [",".join(str(value) for value in row.values()) for row in rows()]
    source = tmp_path / "log.csv"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ColumnOptions(event_type="event_type", duration_s="duration_s")
    dataset = tmp_path / "data"
    builders.written(import_events(source, options), dataset)
    config = load_run_config(
        preset, None,
        ["model.dim=8", "model.hidden_dim=8", "model.window_len=6", "loop.batch_size=16",
         "loop.max_epochs=8", "optim.learning_rate=0.03", "loop.num_threads=1",
         "optim.warmup_steps=2"],
    )  # fmt: skip
    train(read_inputs(dataset, config), config, tmp_path / "run")
    report = evaluate_run(tmp_path / "run", "test")
    tasks = report["tasks"]
    assert set(tasks) == {"model", "mean", "item_mean", "user_mean", "regression"}
    assert tasks["model"]["auc"] > 0.7
    assert ("watch_mse_log" in tasks["model"]) == (preset == "video")


def rates(task: Task) -> OutcomeRates:
    """Return a task's rates over the training events of `events()`."""
    table = events()
    config = load_run_config("lstm-video", None, ["model.event_types=true"]).model
    found = OutcomeRates(config, task, table.num_items)
    found.start_at(item_tallies(table, np.ones(len(table), bool))[task])
    return found


def test_items_rates_are_smoothed_log_odds() -> None:
    """Clicks of an item's shows, ten average events beside them, above the mean's log odds."""
    table = events()
    truth = outcomes(table, np.arange(len(table)))
    item, mean = int(table.window.items[0]), truth.clicked.mean()
    own = truth.clicked[table.window.items == item]
    rate = (own.sum() + 10 * mean) / (len(own) + 10)
    expected = np.log(rate / (1 - rate)) - np.log(mean / (1 - mean))
    assert rates("click").of_items()[item].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("task", ["click", "watch"])
def test_a_training_event_leaves_its_own_outcome_out_of_its_items_rate(task: Task) -> None:
    """The correction equals counting again without the event."""
    table = events()
    found = rates(task)
    truth = outcomes(table, np.arange(len(table)))
    row = 0
    others = np.arange(len(table)) != row
    without = OutcomeRates(load_run_config("lstm-video").model, task, table.num_items)
    without.start_at(item_tallies(table, others)[task])
    without.mean.copy_(found.mean)
    value = float(truth.clicked[row]) if task == "click" else np.log1p(truth.watched_s[row])
    item = torch.tensor([int(table.window.items[row])])
    corrected = found.of_items()[item] + found.left_out(item, torch.tensor([float(value)]))
    torch.testing.assert_close(corrected, without.of_items()[item])


def test_a_users_rate_counts_the_past_alone() -> None:
    """A skip, two clicks, padding: each query sees the outcomes up to its own event."""
    view, like = (EVENT_TYPES.index(name) + 1 for name in ("view", "like"))
    batch = serving_batch(
        {
            "items": torch.tensor([[0, 3, 1, 2]]),
            "event_types": torch.tensor([[0, view, like, like]]),
            "durations_s": torch.tensor([[torch.nan, 0.0, torch.nan, 3.0]]),
        }
    )
    clicks = window_tally(batch, "click", 3)
    assert clicks.counts.tolist() == [[1, 2, 3]]
    assert clicks.totals.tolist() == [[0, 1, 2]]
    watches = window_tally(batch, "watch", 2)
    assert watches.counts.tolist() == [[1, 2]]
    assert watches.totals[0].tolist() == pytest.approx([0, np.log(4)])


@pytest.mark.parametrize("preset", ["video", "lstm-video"])
def test_an_untrained_click_head_is_the_counted_rates(preset: str, tmp_path: Path) -> None:
    """Before the first step a click's log odds are the mean's, the item's and the user's added."""
    table = events()
    split = global_temporal(table, 0.8, 0.9)
    info = DatasetInfo("t", "t", "time", 0, 0, 0, 0, {}, 0.0, "")
    inputs = TrainInputs(table, info, split, tmp_path, ItemFacts.unknown(table.num_items))
    config = load_run_config(preset, None, ["model.dim=8", "model.hidden_dim=8"])
    model = make_learner(inputs, config).model
    predicted = task_predictions(model, table, split.validation, config.model.request_time)
    head = model.heads["click"].rates
    assert isinstance(head, OutcomeRates)
    items = torch.from_numpy(table.window.items[split.validation])
    by_item = (head.center() + head.of_items()[items]).detach().numpy()
    by_user = [
        _log_odds_of_past(table, row, config.model.window_len, head) for row in split.validation
    ]
    np.testing.assert_allclose(predicted["click"], by_item + by_user, rtol=1e-4, atol=1e-5)


def _log_odds_of_past(table: EventTable, row: int, window_len: int, head: OutcomeRates) -> float:
    past = np.arange(max(table.user_starts[table.users[row]], row - window_len), row)
    clicks, mean = outcomes(table, past).clicked.sum(), float(head.mean)
    rate = (clicks + 10 * mean) / (len(past) + 10)
    return float(np.log(rate / (1 - rate)) - np.log(mean / (1 - mean)))


def test_validation_cases_of_one_class_are_refused_with_the_reason(tmp_path: Path) -> None:
    """Without both clicks and skips there is no AUC, no best epoch and nothing to export."""
    dataset, _ = builders.cyclic_dataset(tmp_path)
    config = builders.tiny_config('model.tasks=["click"]')
    with pytest.raises(
        TrainingError, match=r"no score for the task 'click'.*split\.validation_from"
    ):
        train(read_inputs(dataset, config), config, tmp_path / "run")
