"""A real service with a small model, and a Chromium that may speak to nobody else."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from tests.browser.city import train_city
from tests.integration.processes import serving
from tests.programs import program

ARGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ZONE = "Europe/Zurich"
WAIT_MS = 15_000
SIZE = (1280, 860)
PHONE = (360, 740)


class Visit:
    """One tab: the page, what it complained of, whom it asked, and the clicks that were made."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.num_clicks = 0
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("response", self._on_response)
        context.route("**/*", self._only_here)

    def open(self) -> Page:
        """Open the page and wait for its first list."""
        self.page.goto(self.url)
        self.settled()
        return self.page

    def settled(self, text: str = " items for ") -> None:
        """Wait until all that was asked is shown, and the status says so."""
        self.page.locator("#main:not([aria-busy])").wait_for()
        self.page.locator("#status", has_text=text).wait_for()

    def click(self, selector: str) -> None:
        """Click as a person does, and count it."""
        self.num_clicks += 1
        self.page.locator(selector).first.click()

    def items(self) -> list[str]:
        """Return the ids of the list, from the top."""
        ids = "lines => lines.map(line => line.dataset.item)"
        return list(self.page.locator("#list li").evaluate_all(ids))

    def _on_console(self, message: object) -> None:
        if getattr(message, "type", "") in ("error", "warning"):
            self.complaints.append(str(getattr(message, "text", message)))

    def _on_response(self, response: object) -> None:
        if int(getattr(response, "status", 0)) >= 400:
            self.complaints.append(
                f"{getattr(response, 'status', 0)} {getattr(response, 'url', '')}"
            )

    def _only_here(self, route: Route) -> None:
        host = urlsplit(route.request.url).hostname or ""
        self.hosts.add(host)
        if host == "127.0.0.1":
            route.fallback()
        else:
            route.abort()


@pytest.fixture(scope="session")
def city_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of the made-up city, trained once; only where there is a browser to see it."""
    program("chromium")
    return train_city(tmp_path_factory.mktemp("city"))


# Of a module, not of the session: its loop must have ended before asynchronous tests begin.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium with a profile of its own, which goes with it."""
    path = program("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def city_url(city_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the city's model, with a Valkey of its own."""
    folder = tmp_path_factory.mktemp("data")
    with serving(city_bundles, "--data-dir", str(folder)) as (_, client):
        yield str(client.base_url)


@pytest.fixture
def scheme() -> str:
    """Return the colours that the reader's system asks for."""
    return "light"


@pytest.fixture
def size() -> tuple[int, int]:
    """Return the window's width and height."""
    return SIZE


@pytest.fixture
def visit(browser: Browser, city_url: str, scheme: str, size: tuple[int, int]) -> Iterator[Visit]:
    """Return a tab of somebody who has never been here."""
    with context_of(browser, scheme, size) as context:
        yield Visit(context, city_url)


def context_of(
    browser: Browser, scheme: str = "light", size: tuple[int, int] = SIZE
) -> BrowserContext:
    """Return an empty profile at a fixed time zone, without motion."""
    return browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        timezone_id=ZONE,
        locale="en-GB",
        reduced_motion="reduce",
    )


def pictures() -> Path | None:
    """Return where pictures for the documentation go, if somebody asked for them."""
    folder = os.environ.get("SOJOURN_SCREENSHOTS")
    return Path(folder) if folder else None
