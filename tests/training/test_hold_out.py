"""A dataset without some of its items, for what it takes to recommend new ones."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.training import builders
from training.config import TrainingError
from training.data import EVENTS_FILE, read_dataset, read_items
from training.importers.writing import hold_items_out


def test_events_of_held_out_items_are_gone_and_nothing_else(tmp_path: Path) -> None:
    """A quarter of twelve items: the others keep all their events, in order."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    info = hold_items_out(whole, 0.25, 1, tmp_path / "part")
    events, _ = read_dataset(tmp_path / "part")
    assert (events.num_items, info.num_items, len(events)) == (9, 9, info.num_events)
    before = pq.read_table(whole / EVENTS_FILE).to_pylist()
    after = pq.read_table(tmp_path / "part" / EVENTS_FILE).to_pylist()
    assert after == [row for row in before if row["item_id"] in set(events.items)]
    assert info.dropped["held_out_item"] == len(before) - len(after) > 0
    assert set(read_items(tmp_path / "part")["item_id"].to_pylist()) == set(events.items)


def test_a_seed_draws_the_items(tmp_path: Path) -> None:
    """The same items again, others with another seed."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    hashes = [
        hold_items_out(whole, 0.5, seed, tmp_path / f"part{place}").data_sha256
        for place, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_users_with_too_little_left_are_left_out(tmp_path: Path) -> None:
    """Nine events in a row over twelve items: with two items there is nobody with three events."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    with pytest.raises(TrainingError, match="no user has 3 events left"):
        hold_items_out(whole, 0.85, 1, tmp_path / "part")


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0, -1.0])
def test_a_share_that_takes_nothing_or_all_is_refused(tmp_path: Path, share: float) -> None:
    """The message has the value and how many items there are."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    with pytest.raises(TrainingError, match=rf"share = {share}.*12 items"):
        hold_items_out(whole, share, 1, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_it_overwrites_nothing_but_a_dataset(tmp_path: Path) -> None:
    """A folder with something else in it stays."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"thesis\.tex"):
        hold_items_out(whole, 0.25, 1, tmp_path / "part")


def test_a_dataset_is_not_replaced_by_a_part_of_itself(tmp_path: Path) -> None:
    """By another name of its folder neither."""
    whole, _ = builders.cyclic_dataset(tmp_path)
    with pytest.raises(TrainingError, match="is the dataset itself"):
        hold_items_out(whole, 0.25, 1, whole / ".." / whole.name)
    assert read_dataset(whole)[1].num_items == 12
