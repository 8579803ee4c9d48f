"""The import commands: one per kind, each says what it read, what it dropped and where it wrote."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.data import read_info
from training.import_commands import importers

USER, ITEM = "A1AAAAAAAAAAAA", "B0000SOAP1"
CHECKIN = "1\t2012-04-03T18:01:09Z\t40.8\t-73.9\t8\n"
IMPRESSION = "user_id,video_id,time_ms,is_click,play_time_ms,duration_ms\n5,7,1650882384975,1,9,9\n"


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("checkins", "Gowalla_totalCheckins.txt", CHECKIN),
        ("amazon", "ratings_Beauty.csv", f"{USER},{ITEM},5.0,1380000000\n"),
        ("kuairand", "log_standard_1k.csv", IMPRESSION),
    ],
)
def test_a_command_writes_a_dataset_and_says_so(
    kind: str, name: str, text: str, tmp_path: Path
) -> None:
    """The counts and the terms of use are printed; the dataset names its kind and its source."""
    (tmp_path / name).write_text(text)
    out = tmp_path / "out"
    done = CliRunner().invoke(importers, [kind, str(tmp_path / name), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "1 rows read\n  dropped: none\n1 events of 1 users on 1 items" in done.output
    assert "Acknowledge" in done.output
    info = read_info(out)
    assert (info.kind, info.source) == (kind, {"path": name})


def test_the_order_of_ratings_is_an_option(tmp_path: Path) -> None:
    """Ids that look like no product id need it."""
    (tmp_path / "x.csv").write_text("soap,anna,5.0,1380000000\n")
    arguments = ["amazon", str(tmp_path / "x.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(importers, [*arguments, "--rating-columns", "item-user"])
    assert (done.exit_code, read_info(tmp_path / "out").num_events) == (0, 1)
