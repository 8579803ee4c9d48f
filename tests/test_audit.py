"""The audit says what it knows, and no more."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import UNREACHABLE, judge, report, serving_requirements

ROOT = Path(__file__).parents[1]


def test_what_serves_is_listed_exactly_and_without_what_trains() -> None:
    """The image's packages, each with one version; among them every direct requirement."""
    lines = list(serving_requirements())
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names))
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    direct = project["dependencies"] + project["optional-dependencies"]["serve"]
    assert {re.split(r"[<>=]", line)[0] for line in direct} <= set(names)
    assert {"starlette", "pydantic-core"} <= set(names)
    absent = {"torch", "transformers", "peft", "safetensors", "onnx", "pytest", "sojourn"}
    assert not absent & set(names)
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert set(lines) <= {line.lower().replace("_", "-") for line in pinned}


def package(name: str, **facts: Any) -> dict[str, Any]:
    """Return an entry of pip-audit's report."""
    return {"name": name, "version": "1.0", **facts}


BAD = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}


@pytest.mark.parametrize(
    ("packages", "code", "line"),
    [
        ([package("a", vulns=[])], 0, "1 packages checked by pypi, 0 advisories"),
        ([package("a", vulns=[BAD])], 1, "vulnerable: a 1.0: PYSEC-1, fixed in 1.1, 2.0"),
        (
            [package("a", vulns=[]), {"name": "b", "skip_reason": "?"}],
            1,
            "not checked: pypi does not know b",
        ),
    ],
)
def test_an_audit_fails_on_what_is_bad_and_on_what_it_skipped(
    packages: list[dict[str, Any]], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool itself ends well when it has checked nothing, as behind a mirror."""
    assert report(judge({"dependencies": packages}), "pypi") == code
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("requests.exceptions.ProxyError: HTTPSConnectionPool", True),
        ("WARNING: Retrying after connection broken by 'NewConnectionError", True),
        ("ERROR: No matching distribution found for pip-audit", False),
        ("pip_audit: error: requirement is not pinned", False),
    ],
)
def test_only_the_network_is_an_excuse(text: str, expected: bool) -> None:
    """Any other failure must be seen."""
    assert bool(UNREACHABLE.search(text)) is expected
