"""From a newcomer's csv to the page: the three commands of the documentation, as they stand."""

import os
import random
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.integration.processes import ADDRESS, ROOT, LoggedProcess, stop

pytestmark = [pytest.mark.browser, pytest.mark.integration]

PAGE = ROOT / "docs" / "bring-your-own-data.md"
NUM_USERS, NUM_ITEMS, NUM_EVENTS = 200, 30, 12
COMMAND_TIMEOUT_S = 150


def write_shop(path: Path) -> dict[str, str]:
    """Write a log of users who go round a ring of items; return who would take what next."""
    rng = random.Random(7)
    now = datetime.now(UTC)
    lines, following = [], {}
    for user in range(NUM_USERS):
        place = rng.randrange(NUM_ITEMS)
        at = now - timedelta(days=30, minutes=rng.randrange(10_000))
        for step in range(NUM_EVENTS):
            item = (place + step) % NUM_ITEMS
            when = at + timedelta(days=step, minutes=rng.randrange(60))
            lines.append(f"k{user};Ware {item};{when:%d.%m.%Y %H:%M};gekauft;{rng.randrange(1, 5)}")
        following[f"k{user}"] = f"Ware {(place + NUM_EVENTS) % NUM_ITEMS}"
    rng.shuffle(lines)
    lines.append(lines[0])
    text = "\n".join(["Kunde;Artikel;Zeitpunkt;Aktion;Menge", *lines, ""])
    path.write_text(text, encoding="utf-8-sig")
    return following


def documented_commands() -> list[list[str]]:
    """Return the three commands of the documentation, with this interpreter as `python`."""
    block = re.search(r"<!-- test: \S+ -->\s+```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").strip().splitlines()
    return [[sys.executable, *shlex.split(line)[1:]] for line in lines if line]


def test_three_commands_lead_from_a_csv_to_the_page(browser: Browser, tmp_path: Path) -> None:
    """A user of the file finds what comes next in the ring among the first three."""
    following = write_shop(tmp_path / "shop.csv")
    importing, training, serving = documented_commands()
    outputs = []
    for command in (importing, training):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True,
            timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    assert "user_id = 'Kunde'" in outputs[0]
    assert "dropped exact_duplicate: 1" in outputs[0]
    process = LoggedProcess(*serving, "--port", "0", cwd=tmp_path, env=environment())
    try:
        address = process.wait_for(ADDRESS)[1]
        shown = {user: recommended(browser, address, user) for user in ("k0", "k7", "k42")}
        hits = [following[user] in " ".join(items[:3]) for user, items in shown.items()]
        assert all(hits), (shown, following)
    finally:
        stop(process)


def environment() -> dict[str, str]:
    """Return the environment of a shell in which the project is installed."""
    return dict(os.environ) | {"PYTHONPATH": str(ROOT)}


def recommended(browser: Browser, address: str, user: str) -> list[str]:
    """Return what the page lists for a user, first to last."""
    with browser.new_page() as page:
        page.goto(address)
        page.fill("#user", user)
        page.locator("#user-form").evaluate("form => form.requestSubmit()")
        page.wait_for_function(
            "() => document.querySelectorAll('#list li').length > 2", timeout=10_000
        )
        page.wait_for_load_state("networkidle")
        return page.locator("#list > li").all_inner_texts()
