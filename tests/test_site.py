"""The site builds strictly: no link, anchor or page is lost, and nothing comes from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 60


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A reader behind a firewall sees all of it, and nobody else learns what is read."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?://[^"]+)"', text)
        assert not loaded, page


def test_every_decision_is_in_the_index() -> None:
    """The index is what people read first."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text("utf-8")
    missing = [page.name for page in folder.glob("0*.md") if f"({page.name})" not in index]
    assert not missing
