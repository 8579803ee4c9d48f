"""The command line, end to end on a log that the test makes; mistakes are one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import builders

pytestmark = pytest.mark.integration


def run_cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m training` as a person would."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "COLUMNS": "110"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_four_commands_lead_from_a_csv_to_a_bundle(tmp_path: Path) -> None:
    """Import, train, evaluate, export: each says where its result is."""
    builders.cyclic_csv(tmp_path / "log.csv")
    settings = [part for setting in builders.TINY for part in ("--set", setting)]
    steps = [
        ["import", "events", "log.csv", "--out", "data"],
        ["train", "--data", "data", "--out", "run", "--preset", "time", *settings],
        ["evaluate", "--run", "run", "--split", "test", "--protocol", "leave-one-out",
         "--request-time", "known", "--engine", "onnx", "--json", "test.json"],
        ["export", "--run", "run", "--out", "bundles"],
    ]  # fmt: skip
    outputs = []
    for step in steps:
        done = run_cli(*step, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "216 rows read" in outputs[0]
    assert "dropped: none" in outputs[0]
    report = json.loads((tmp_path / "test.json").read_text())
    assert {"protocol", "request_time", "split", "split_sha256", "seed", "results"} <= set(report)
    assert set(report["results"]) == {
        "model", "popularity", "recent_popularity", "last_item_cooccurrence", "markov",
        "own_frequency", "own_transitions", "own_transitions_at_hour",
    }  # fmt: skip
    assert "torch and ONNX Runtime differ by at most" in outputs[3]
    version = (tmp_path / "bundles" / "CURRENT").read_text().strip()
    assert (tmp_path / "bundles" / version / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "movielens", "nowhere", "--out", "x"], "error: nowhere: no such folder"),
        (["import", "events", "nowhere.csv", "--out", "x"], "error: nowhere.csv: no such file"),
        (["train", "--data", "nowhere", "--out", "x"], "error: nowhere: no dataset"),
        (["train", "--data", "x", "--out", "y", "--preset", "best"], "error: preset 'best'"),
        (["train", "--data", "x", "--out", "y", "--set", "model.dim=big"], "error: model.dim"),
        (["train", "--data", "x", "--out", "y", "--set", "model.depth=2"], "error: model.depth"),
        (["evaluate", "--run", "nowhere"], "error: nowhere: no run"),
        (
            ["search", "--data", "x", "--out", "y", "--space", "z.toml"],
            "error: z.toml: the space cannot be read",
        ),
        (["export", "--run", "nowhere", "--out", "x"], "error: nowhere: no run"),
    ],
)
def test_a_mistake_is_one_line_and_a_non_zero_exit(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    """No traceback, and nothing is left behind."""
    done = run_cli(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
