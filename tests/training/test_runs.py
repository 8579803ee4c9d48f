"""Evaluating a run: the groups and intervals of a report are of its own cases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training import builders
from training.cleaning import CleanOptions
from training.config import TrainingError
from training.data import ITEMS_FILE, read_items
from training.importers.movielens import import_movielens
from training.importers.writing import write_dataset
from training.runs import evaluate_run, load_run, read_inputs
from training.train import check_times, train

pytestmark = pytest.mark.integration


def test_groups_of_a_temporal_report_share_its_cases_out(tmp_path: Path) -> None:
    """Users have several cases; each is in one group of activity and in one of the hours."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    config = builders.tiny_config("split.protocol=temporal", "loop.max_epochs=1")
    train(read_inputs(dataset, config), config, tmp_path / "run")
    report = evaluate_run(tmp_path / "run", "validation")
    for groups in (report["by_activity"], report["by_hour"]):
        assert sum(group["num_cases"] for group in groups.values()) == report["num_cases"]
    assert report["hour_zone"] == "utc"
    low, high = report["intervals"]["model"]["ndcg@10"]
    assert low <= report["results"]["model"]["ndcg@10"] <= high
    difference = report["results"]["model"]["ndcg@10"] - report["results"]["markov"]["ndcg@10"]
    assert report["significance"]["markov"]["difference"] == pytest.approx(difference)


def test_a_share_of_the_users_trains_everything_that_is_fitted(tmp_path: Path) -> None:
    """Whole users, for the model and the baselines alike; the cases stay those of everybody."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    whole = read_inputs(dataset, builders.tiny_config())
    part = read_inputs(dataset, builders.tiny_config("split.train_share=0.25"))
    counts = np.bincount(part.events.users[part.split.train], minlength=24)
    assert sorted(set(counts.tolist())) == [0, 7]
    assert np.count_nonzero(counts) == 6
    assert part.split.sha256 == whole.split.sha256


def test_items_that_have_changed_since_are_named(tmp_path: Path) -> None:
    """The same events with other categories: the weights fit no more, and the run says so."""
    dataset = builders.cyclic_dataset(tmp_path)[0]
    config = builders.tiny_config("model.categories=true", "loop.max_epochs=1")
    train(read_inputs(dataset, config), config, tmp_path / "run")
    items = read_items(dataset)
    named = [[f"kind {place % 3}"] for place in range(items.num_rows)]
    at = items.schema.get_field_index("categories")
    items = items.set_column(at, items.schema.field(at), pa.array(named))
    pq.write_table(items, dataset / ITEMS_FILE)
    with pytest.raises(TrainingError, match=r"run: the dataset's items have changed since"):
        load_run(tmp_path / "run")
    (dataset / ITEMS_FILE).unlink()
    with pytest.raises(TrainingError, match=r"items\.parquet: cannot be read"):
        load_run(tmp_path / "run")


def test_data_without_times_is_not_split_by_instants(tmp_path: Path) -> None:
    """Its instants would be places in each user's own order."""
    info = builders.cyclic_dataset(tmp_path)[1]
    config = builders.tiny_config("split.protocol=temporal", preset="base")
    with pytest.raises(TrainingError, match=r"only the order of events is known, so that no"):
        check_times(replace(info, time_axis="order"), config)
    check_times(info, config)


def test_a_log_that_knows_only_its_order_has_no_hours(tmp_path: Path) -> None:
    """Its timestamps count one second per event, which is no time of day."""
    source = tmp_path / "source"
    source.mkdir()
    rows = [(user, item) for user in (1, 2) for item in range(6)]
    columns = {
        "user_id": [user for user, _ in rows],
        "item_id": [item for _, item in rows],
        "rating": [4] * 12,
        "order": [item for _, item in rows],
        "timestamp": [None, 5, 6, 7, 8, 9] * 2,
    }
    pq.write_table(pa.table(columns), source / "events.parquet")
    items = {"item_id": [0], "title": ["A"], "genres": ["Drama"]}
    pq.write_table(pa.table(items), source / "items.parquet")
    write_dataset(import_movielens(source), CleanOptions(), tmp_path / "data", source)
    config = builders.tiny_config("loop.max_epochs=1", preset="base")
    train(read_inputs(tmp_path / "data", config), config, tmp_path / "run")
    report = evaluate_run(tmp_path / "run", "test")
    assert (report["by_hour"], report["hour_zone"]) == ({}, "unknown")
    assert report["by_activity"]["low"]["num_past_events"] == [5, 5]
