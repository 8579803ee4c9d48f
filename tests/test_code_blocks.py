"""Every code block of the pages that people copy from is run, or says what covers it."""

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.processes import ROOT, serving

PAGES = ("README.md", "docs/quickstart.md", "docs/bring-your-own-data.md")
GOLDEN = ROOT / "tests" / "golden" / "bundle"
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.M | re.S
)
TIMEOUT_S = 60
SHELLS = ("bash", "sh")
# Why a block is not run as it stands, by the check that does it, or stands for it.
COVERS = {
    "make": "test_a_target_that_takes_minutes_is_there",
    "compose": "test_the_compose_file_can_be_read",
    "three commands": "test_three_commands_lead_from_a_csv_to_the_page",
    "curl": "test_the_session_with_curl_answers_as_it_says",
}


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the comment before it, without which it is run as it stands."""

    page: str
    mark: str
    kind: str
    text: str


def blocks() -> list[Block]:
    """Return the blocks of all pages; a plain text is a picture."""
    return [
        Block(page, match["mark"] or "", match["kind"], match["text"])
        for page in PAGES
        for match in BLOCK.finditer((ROOT / page).read_text("utf-8"))
        if match["kind"] != "text"
    ]


def marked(mark: str) -> list[Block]:
    """Return the blocks with a mark, of which there must be one."""
    found = [block for block in blocks() if block.mark.partition(":")[0] == mark]
    assert found, f"no block is marked {mark!r}"
    return found


@pytest.mark.parametrize("block", blocks(), ids=lambda b: f"{b.page}:{b.text.splitlines()[0][:40]}")
def test_a_block_is_run_or_says_what_covers_it(block: Block) -> None:
    """A block that nobody tries is wrong sooner or later."""
    if block.mark:
        assert block.mark.partition(":")[0] in COVERS, f"{block.mark!r} is no mark that is known"
        return
    assert block.kind in SHELLS, f"{block.kind!r} needs a runner, or a mark"
    script = block.text.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["/bin/bash", "-euc", script], cwd=ROOT, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_target_that_takes_minutes_is_there() -> None:
    """Only that they exist: no check runs `make demo`; `make test` is what runs this."""
    rules = (ROOT / "Makefile").read_text("utf-8")
    for block in marked("make"):
        for target in re.findall(r"^make (\S+)", block.text, re.M):
            assert re.search(rf"^{target}:", rules, re.M), target


def test_the_compose_file_can_be_read() -> None:
    """Docker is not where this runs."""
    assert "docker compose" in marked("compose")[0].text
    yaml = importlib.import_module("yaml")  # it ships no types
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert "services" in document


def test_commands_name_options_that_there_are() -> None:
    """The columns are a newcomer's; the same commands run on a made file in the browser's test."""
    for block in marked("three commands"):
        for line in block.text.splitlines():
            words = line.partition("#")[0].split()
            command, options = words[1:4], [word for word in words if word.startswith("--")]
            command += words[4:5] if "import" in words else []
            done = subprocess.run(
                [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True,
                timeout=TIMEOUT_S, check=True, env=os.environ | {"COLUMNS": "300"},
            )  # fmt: skip
            for option in options:
                assert option in done.stdout, (line, option)


@pytest.mark.integration
def test_the_session_with_curl_answers_as_it_says(tmp_path: Path) -> None:
    """On a small bundle: the counts are those of the page, the lists are not."""
    (block,) = marked("curl")
    lines = [line for line in block.text.splitlines() if "service run" not in line]
    data = ("--embedded", "--data-dir", str(tmp_path / "data"))
    with serving(GOLDEN, *data) as (_, client):
        script = "\n".join(lines).replace("localhost:8000", str(client.base_url)[7:].rstrip("/"))
        done = subprocess.run(
            ["/bin/bash", "-euc", script.replace("curl -s", "curl -sf -w '\\n'")],
            cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert (answers[0]["accepted"], answers[0]["rejected"]) == (2, 0)
    assert all(answer["items"] for answer in answers[1:])
