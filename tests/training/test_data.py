"""The dataset on disk: arrays are mapped, agree with the table, and are refused when damaged."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.contract.features import WINDOW_INPUTS
from tests.training import builders
from training.config import TrainingError
from training.data import (
    ARRAYS_DIR,
    DATASET_FILE,
    EVENTS_FILE,
    IDS_FILE,
    event_table,
    read_dataset,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of users who walk through the items in order."""
    return builders.cyclic_dataset(tmp_path)[0]


def test_arrays_are_mapped_and_say_what_the_table_says(dataset: Path) -> None:
    """Column by column; nobody can write to a dataset by mistake."""
    events, _ = read_dataset(dataset)
    expected = event_table(pq.read_table(dataset / EVENTS_FILE))
    pairs = [
        (getattr(events.window, name), getattr(expected.window, name)) for name in WINDOW_INPUTS
    ]
    pairs += [(events.users, expected.users), (events.user_starts, expected.user_starts)]
    for mapped, column in pairs:
        assert isinstance(mapped.base, np.memmap)
        assert not mapped.flags.writeable
        assert mapped.dtype == column.dtype
        np.testing.assert_array_equal(mapped, column)
    assert events.user_ids == expected.user_ids
    assert tuple(events.items) == tuple(expected.items)
    assert events.knows_offsets == expected.knows_offsets


@pytest.mark.parametrize("name", ["users.npy", "timestamps_ms.npy", IDS_FILE])
def test_a_missing_or_short_file_is_refused(dataset: Path, name: str) -> None:
    """By name, with what to do; not as a traceback in the middle of an epoch."""
    path = dataset / ARRAYS_DIR / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TrainingError, match=r"arrays: cannot be read: .*import the data again"):
        read_dataset(dataset)
    path.unlink()
    with pytest.raises(TrainingError, match=rf"{name}.*import the data again"):
        read_dataset(dataset)


def test_columns_of_another_length_are_refused(dataset: Path) -> None:
    """Two datasets' files in one folder."""
    path = dataset / ARRAYS_DIR / "values.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(TrainingError, match=r"arrays: its columns differ in length"):
        read_dataset(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_events": 7}, r"arrays holds 216 events, dataset.json says 7"),
        ({"schema": 1}, r"dataset schema 1, this build reads 2; import it again"),
    ],
    ids=["of other arrays", "of an older build"],
)
def test_a_description_that_does_not_fit_is_refused(
    dataset: Path, change: dict[str, int], message: str
) -> None:
    """Each says what it found and what to do."""
    path = dataset / DATASET_FILE
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | change))
    with pytest.raises(TrainingError, match=message):
        read_dataset(dataset)
