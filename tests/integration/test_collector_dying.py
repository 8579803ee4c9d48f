"""A collector that dies before each of its steps on the disk, one after another."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.processes import ROOT
from tests.service.collector.builders import rows_of

pytestmark = pytest.mark.integration

# Nine files are written aside and renamed, to begin with.
MIN_LIVES = 30


def test_whatever_step_it_dies_at_the_next_life_ends_with_the_same_rows(tmp_path: Path) -> None:
    """Writing, renaming, merging, erasing and removing days: each step, in real processes."""
    command = [sys.executable, "-m", "tests.integration.dying", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lives = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(lives) > MIN_LIVES
    # Of 1 + 6 + 2 + 2 events yesterday's is too old; of each two and six, anna has the first and
    # fourth: those up to the mark go, the last one was posted after it.
    whole = rows_counted(lives[-1])
    events = Counter(user_id for tree, user_id, _ in whole if tree == "events")
    assert events == {"bert": 2 + 1 + 1, "carl": 2, "anna": 1}
    for life in lives:
        assert rows_counted(life) == whole, life.name


def rows_counted(out: Path) -> Counter[tuple[str, str, str]]:
    """Return how often each row is in the files of a folder."""
    found = Counter(("events", row["user_id"], row["event_id"]) for row in rows_of(out))
    if (out / "exposures").exists():
        found += Counter(
            ("exposures", row["user_id"], str(row["timestamp"]))
            for row in rows_of(out, "exposures")
        )
    return found
