"""What training writes to disk: whole files, and JSON that every reader takes."""

import json
from pathlib import Path

from training.files import write_json


def test_a_number_that_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    """Python's NaN is no JSON: a strict reader would refuse the whole report for one AUC."""
    path = tmp_path / "folder" / "report.json"
    write_json(path, {"auc": float("nan"), "curve": [1.5, float("inf")], "best": (2, {"k": 0.5})})

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    document = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert document == {"auc": None, "curve": [1.5, None], "best": [2, {"k": 0.5}]}
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]
