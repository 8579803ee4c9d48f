"""Every code block of the pages that people copy from is run, or says what covers it."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.processes import ROOT, serving
from tests.programs import program

PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/bring-your-own-data.md",
    "docs/client.md",
)
GOLDEN = ROOT / "tests" / "golden" / "bundle"
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.M | re.S
)
TIMEOUT_S = 60
SHELLS = ("bash", "sh")
# A mark says what covers a block: `make` and `compose` what is looked at here, the others a test.
NAMED = re.compile(r"(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)")
MARKS = ("make", "compose", "test")
# Every block of these pages is run by one test, which takes them from the page.
WHOLE_PAGES = {
    "docs/client.md": "tests/integration/test_client.py::"
    "test_the_example_of_the_documentation_runs",
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
    """Return the blocks whose mark begins so, of which there must be one."""
    found = [block for block in blocks() if block.mark.startswith(mark)]
    assert found, f"no block is marked {mark!r}"
    return found


@pytest.mark.parametrize("block", blocks(), ids=lambda b: f"{b.page}:{b.text.splitlines()[0][:40]}")
def test_a_block_is_run_or_says_what_covers_it(block: Block) -> None:
    """A block that nobody tries is wrong sooner or later."""
    if block.page in WHOLE_PAGES:
        assert_is_a_test(WHOLE_PAGES[block.page])
        return
    if block.mark:
        kind, _, named = block.mark.partition(": ")
        assert kind in MARKS, f"{block.mark!r} is no mark that is known"
        if kind == "test":
            assert_is_a_test(named)
        return
    assert block.kind in SHELLS, f"{block.kind!r} needs a runner, or a mark"
    script = block.text.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["/bin/bash", "-euc", script], cwd=ROOT, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def assert_is_a_test(named: str) -> None:
    """Fail unless there is such a test."""
    match = NAMED.match(named)
    assert match, f"{named!r} is no FILE::TEST"
    path = ROOT / match["file"]
    assert path.is_file(), named
    assert re.search(rf"^(?:async )?def {match['test']}\(", path.read_text("utf-8"), re.M), named


def test_a_target_that_takes_minutes_is_there() -> None:
    """Only that they exist: the build server runs `make demo`; `make test` is what runs this."""
    rules = (ROOT / "Makefile").read_text("utf-8")
    for block in marked("make"):
        targets = re.findall(r"^make (\S+)", block.text, re.M)
        assert targets, block
        for target in targets:
            assert re.search(rf"^{target}:", rules, re.M), target


def test_the_compose_file_can_be_read() -> None:
    """Docker is not where this runs: the profiles that are named are ones that the file has."""
    (block,) = marked("compose")
    assert "docker compose" in block.text
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", ())}
    assert set(re.findall(r"--profile (\S+)", block.text)) <= profiles


def test_the_three_commands_are_the_same_wherever_they_stand() -> None:
    """The browser's test runs those of one page on a file that it makes; the others must agree."""
    found = {block.page: block.text for block in marked("test: tests/browser/test_bring_your_own")}
    assert set(found) == {"README.md", "docs/bring-your-own-data.md"}
    readme, page = (text.replace(".venv/bin/", "") for text in found.values())
    assert readme == page


@pytest.mark.integration
def test_the_session_with_curl_answers_as_it_says(tmp_path: Path) -> None:
    """On a small bundle: the counts are those of the page, the lists are not."""
    program("curl")
    (block,) = marked("test: tests/test_code_blocks.py::test_the_session_with_curl")
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
