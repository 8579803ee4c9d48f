"""New items and new users: the cases, and what is ranked among what."""

from pathlib import Path

import numpy as np
import pytest

from tests.training import builders
from training import cold_start
from training.cold_start import cold_cases, cold_item_figures, cold_user_figures
from training.config import TrainingError
from training.importers.writing import hold_items_out
from training.runs import load_run, read_inputs
from training.train import train

pytestmark = pytest.mark.integration


def test_the_cases_are_last_events_on_items_that_the_run_never_met(tmp_path: Path) -> None:
    """Each user walks through the items in order, so every last event says what came before it."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    hold_items_out(whole, 0.25, 1, tmp_path / "part")
    config = builders.tiny_config()
    part, full = read_inputs(tmp_path / "part", config), read_inputs(whole, config)
    cases = cold_cases(part, 6, whole)
    held = set(full.events.items) - set(part.events.items)
    assert set(cases.new_ids) == held
    lasts = full.events.window.items[full.events.user_starts[1:] - 1]
    expected = [full.events.items.id(int(item)) for item in lasts]
    names = [cases.new_ids[row - cases.num_warm - 1] for row in cases.targets]
    assert names == [item for item in expected if item in held] != []
    for name, window in zip(names, cases.windows, strict=True):
        own = [int(part.events.items.id(int(item))[1:]) for item in window.items]
        last = int(name[1:])
        walk = [(last - 8 + place) % 12 for place in range(8)]
        assert own == [item for item in walk if f"i{item:02d}" not in held][-6:]


def test_a_run_that_met_every_item_has_no_cases(tmp_path: Path) -> None:
    """Its figures would be about nothing."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    inputs = read_inputs(whole, builders.tiny_config())
    with pytest.raises(TrainingError, match="has met all items"):
        cold_cases(inputs, 6, whole)


def test_a_run_without_texts_knows_nothing_of_new_items(tmp_path: Path) -> None:
    """It says so before it ranks anything."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    hold_items_out(whole, 0.25, 1, tmp_path / "part")
    config = builders.tiny_config("loop.max_epochs=1")
    train(read_inputs(tmp_path / "part", config), config, tmp_path / "run")
    with pytest.raises(TrainingError, match="reads no text"):
        cold_item_figures(load_run(tmp_path / "run"), whole)


def test_more_of_a_user_helps_where_the_last_event_tells_the_next(tmp_path: Path) -> None:
    """In a cycle one event says everything and none says nothing."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    config = builders.tiny_config("model.dim=16", "loop.max_epochs=30", preset="base")
    train(read_inputs(whole, config), config, tmp_path / "run")
    figures = cold_user_figures(load_run(tmp_path / "run"))
    scores = [figures[f"{count} events"]["ndcg@10"] for count in (0, 1, 2, 3)]
    assert list(figures) == ["popularity", "0 events", "1 events", "2 events", "3 events"]
    assert scores[1] > scores[0] + 0.1
    assert np.isfinite(scores).all()


def test_every_item_that_may_be_chosen_counts_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that fall with the row put each target behind exactly the items before it."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    hold_items_out(whole, 0.25, 1, tmp_path / "part")
    config = builders.tiny_config("loop.max_epochs=1")
    train(read_inputs(tmp_path / "part", config), config, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    cases = cold_cases(loaded.inputs, 6, whole)
    falling = np.tile(-np.arange(13, dtype=np.float32), (len(cases.targets), 1))
    monkeypatch.setattr(cold_start, "_run_scores", lambda *_: falling)
    monkeypatch.setattr(cold_start, "RECALL_AT", 11)
    figures = cold_item_figures(loaded, whole)
    # Of nine old and three new items, the rows 10 to 12: two of them are among the first eleven.
    expected = float((cases.targets <= 11).mean())
    assert figures["among_all"]["run"]["recall@11"] == pytest.approx(expected)
    gains = 1 / np.log2(1 + (cases.targets - 9))
    assert figures["among_new"]["run"]["ndcg@10"] == pytest.approx(gains.mean())
