"""A run's report in a real browser: no complaint, accessible, in light and dark."""

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request

from tests.training import builders
from training.runs import read_inputs
from training.tracking import train_with_report

SERIOUS = ("serious", "critical")
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
# A finished run whose report becomes the picture of the docs, in place of a tiny one's.
PICTURED_RUN = "SOJOURN_REPORT_RUN"


def opened(browser: Browser, report: Path, scheme: str, complaints: list[str]) -> Page:
    """Open a report in a colour scheme; what the browser complains of is added to `complaints`."""
    page = browser.new_page(
        viewport={"width": 1100, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )

    def note(request: Request) -> None:
        if not request.url.startswith("file:"):
            complaints.append(request.url)

    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", note)
    page.goto(report.as_uri())
    return page


@pytest.mark.browser
def test_a_report_is_accessible_and_complains_of_nothing(browser: Browser, tmp_path: Path) -> None:
    """Axe finds nothing serious in light and dark, folded parts open; nothing else is loaded."""
    dataset, run = builders.cyclic_dataset(tmp_path)[0], tmp_path / "run"
    config = builders.tiny_config()
    train_with_report(read_inputs(dataset, config), config, run)
    complaints: list[str] = []
    grounds = set()
    for scheme in ("light", "dark"):
        page = opened(browser, run / "report.html", scheme, complaints)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide
        # Evaluated by the browser itself, which the policy of the page does not hold back.
        found = Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in SERIOUS] == []
    _take_picture(browser, run)
    assert complaints == []
    assert len(grounds) == 2


def _take_picture(browser: Browser, run: Path) -> None:
    if not os.environ.get("SOJOURN_SCREENSHOTS"):
        return
    chosen = Path(os.environ.get(PICTURED_RUN) or run)
    page = opened(browser, chosen / "report.html", "light", [])
    page.set_viewport_size({"width": 1100, "height": 1500})
    page.get_by_role("heading", name="Time and place").evaluate("head => head.scrollIntoView()")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "training-report.png")
