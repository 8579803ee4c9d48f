"""The page where the service asks for keys: open to look at, and plain about what is missing."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Visit, context_of
from tests.integration.processes import serving
from tests.keys import key_with

pytestmark = [pytest.mark.browser, pytest.mark.integration]


def test_the_page_names_the_scope_that_is_missing(
    browser: Browser, city_bundles: Path, tmp_path: Path
) -> None:
    """Without a key nothing; with `recommend` a list, and neither history nor events."""
    text = key_with(tmp_path / "keys.json", "recommend")
    options = ("--keys-file", str(tmp_path / "keys.json"), "--data-dir", str(tmp_path / "data"))
    with (
        serving(city_bundles, *options) as (_, client),
        context_of(browser) as context,
    ):
        visit = Visit(context, str(client.base_url))
        visit.page.goto(visit.url)
        visit.settled("asks for a key with the scope recommend")
        assert visit.items() == []
        visit.page.locator("#key").fill(text)
        visit.page.locator("#key").press("Tab")
        visit.settled(" items for anna")
        assert len(visit.items()) == 8
        assert "scope privacy" in visit.page.locator("#history").inner_text()
        assert "scope privacy" in visit.page.locator("#why").inner_text()
        assert not visit.page.locator("#explain").is_checked()
        assert "$SOJOURN_KEY" in visit.page.locator("#curl").inner_text()
        assert text not in visit.page.content()
        visit.click("#list .post")
        visit.settled("scope write-events")
        note = visit.page.locator("#key-note").inner_text()
        assert "privacy" in note
        assert "write-events" in note
