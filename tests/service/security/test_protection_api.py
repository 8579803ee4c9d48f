"""What protects a service without keys too: the limit of requests at once, headers, CORS, logs."""

import asyncio
import io
import logging
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import structlog
from fastapi import FastAPI

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.logs import configure_logs
from service.security.keys import new_key_text
from service.store.history_codec import PackedHistory
from tests.clients import client_of, metric
from tests.fake_stores import fake_stores
from tests.fakes import FakeClock, FakeHistory
from tests.keys import bearer, key_with
from tests.service.test_bad_inputs import check_problem

PATH = "/v1/users/anna/recommendations"
SHOP = "https://shop.example"


class HeldHistory(FakeHistory):
    """Reads wait until they are let go; `reading` counts those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Semaphore(0)
        self.let_go = asyncio.Event()

    async def read_packed(self, user_id: str) -> PackedHistory:
        """Return a user's history when told to."""
        self.reading.release()
        await self.let_go.wait()
        return await super().read_packed(user_id)


def app_of(settings: Settings, bundle: LoadedBundle, history: FakeHistory, **more: Any) -> FastAPI:
    """Assemble the application with some settings changed."""
    return create_app(
        settings.model_copy(update=more),
        **fake_stores(history=history),
        bundle=bundle,
        clock=FakeClock(),
    )


async def test_a_request_too_many_is_refused_and_health_still_answers(
    settings: Settings, bundle: LoadedBundle
) -> None:
    """Two are being answered: the third gets 503 at once, and a place is free when one is done."""
    history = HeldHistory()
    async with client_of(app_of(settings, bundle, history, max_concurrency=2)) as client:
        open_calls = [asyncio.create_task(client.get(PATH)) for _ in range(2)]
        for _ in open_calls:
            await history.reading.acquire()
        refused = await client.get(PATH)
        healthy = [(await client.get(path)).status_code for path in ("/livez", "/readyz")]
        history.let_go.set()
        answered = [(await call).status_code for call in open_calls]
        later = await client.get(PATH)
        count = await metric(client, 'sojourn_refused_requests_total{reason="concurrency"}')
    check_problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert (healthy, answered, later.status_code, count) == ([200, 200], [200, 200], 200, 1)


async def test_a_caller_who_leaves_frees_the_place(
    settings: Settings, bundle: LoadedBundle
) -> None:
    """Otherwise clients that give up would close the service for good."""
    history = HeldHistory()
    async with client_of(app_of(settings, bundle, history, max_concurrency=1)) as client:
        leaving = asyncio.create_task(client.get(PATH))
        await history.reading.acquire()
        leaving.cancel()
        await asyncio.wait({leaving})
        history.let_go.set()
        assert (await client.get(PATH)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", PATH, "/nothing", "/v1/events"])
async def test_every_answer_tells_browsers_to_be_careful(
    client: httpx.AsyncClient, path: str
) -> None:
    """Pages, data and errors alike; only the playground, which has no data, may be kept."""
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_data_may_load_nothing_and_the_documentation_its_parts(
    client: httpx.AsyncClient,
) -> None:
    """The framework's page of documentation comes with scripts from elsewhere."""
    data, pages = (await client.get(PATH)).headers, (await client.get("/docs")).headers
    assert data["content-security-policy"].startswith("default-src 'none'")
    assert "default-src" not in pages["content-security-policy"]


async def test_the_page_runs_its_own_script_and_style_and_no_other(
    client: httpx.AsyncClient,
) -> None:
    """All that it loads is a file of ours, under the same policy; nothing stands in the page."""
    answer = await client.get("/")
    page = Parts()
    page.feed(answer.text)
    files = await loaded_files(client, page.addresses)
    assert {"app.js", "dom.js", "style.css", "icon.svg"} <= {*map(os.path.basename, files)}
    assert (page.inline, page.handlers) == ([], [])
    for file in [answer, *files.values()]:
        assert policy_of(file) == OWN_FILES
        assert file.headers["x-content-type-options"] == "nosniff"
        assert file.headers["x-frame-options"] == "DENY"
    for path, file in files.items():
        assert file.headers["content-type"].split(";")[0] == KINDS[path.rpartition(".")[2]]
        assert not re.search(
            r"\burl\(|\bimport\(|@import|https?:(?!//www\.w3\.org/2000/svg)", file.text
        ), path


# What the playground may do: its own files and calls to us, and to be framed by nobody.
OWN_FILES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
# A browser that may not guess runs a script only if it is said to be one.
KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
IMPORT = re.compile(r"""^import\b[^;"'()]*["']([^"']+)["']""", re.MULTILINE)


class Parts(HTMLParser):
    """What a page loads, and the scripts, styles and handlers that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sort a tag's attributes."""
        named = dict(attrs)
        if tag == "style" or (tag == "script" and not named.get("src")):
            self.inline.append(tag)
        self.handlers += [name for name in named if name == "style" or name.startswith("on")]
        key = "href" if tag == "link" else "src"
        if named.get(key):
            self.addresses.append(str(named[key]))


def policy_of(answer: httpx.Response) -> dict[str, str]:
    """Return a policy's sources by what they are of."""
    parts = answer.headers["content-security-policy"].split("; ")
    return dict(part.split(" ", 1) for part in parts)


async def loaded_files(
    client: httpx.AsyncClient, addresses: list[str]
) -> dict[str, httpx.Response]:
    """Return all files that a page loads, those that its scripts import too; all must exist."""
    files: dict[str, httpx.Response] = {}
    open_paths = [urljoin("/", address) for address in addresses]
    while open_paths:
        path = open_paths.pop()
        if path in files:
            continue
        files[path] = await client.get(path)
        assert (path, files[path].status_code) == (path, 200)
        imports = IMPORT.findall(files[path].text)
        open_paths += [urljoin(path, name) for name in imports if path.endswith(".js")]
    return files


async def test_other_origins_are_let_in_only_if_named(
    settings: Settings, bundle: LoadedBundle, tmp_path: Path
) -> None:
    """Off by default; if named, a browser may ask before it sends its key."""
    path = tmp_path / "keys.json"
    text = key_with(path, "recommend")
    ask = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    allow = "access-control-allow-origin"
    app = app_of(settings, bundle, FakeHistory(), keys_file=path, cors_origins=(SHOP,))
    async with client_of(app) as client:
        asked = await client.options("/v1/recommendations", headers=ask)
        other = await client.options("/v1/recommendations", headers=ask | {"Origin": "https://x.y"})
        refused = await client.get(PATH, headers={"Origin": SHOP})
        answered = await client.get(PATH, headers={"Origin": SHOP} | bearer(text))
    async with client_of(app_of(settings, bundle, FakeHistory())) as client:
        off = await client.get(PATH, headers={"Origin": SHOP})
    assert (asked.status_code, asked.headers[allow]) == (200, SHOP)
    assert (other.status_code, allow in other.headers) == (400, False)
    assert (refused.status_code, refused.headers[allow]) == (401, SHOP)
    assert (answered.status_code, answered.headers[allow]) == (200, SHOP)
    assert (off.status_code, allow in off.headers) == (200, False)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return all that is logged, at the lowest level."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logs(level="debug", stream=stream)
    # The client of the tests logs its own calls.
    logging.getLogger("httpx").disabled = True
    yield stream
    logging.getLogger("httpx").disabled = False
    configure_logs()
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class BrokenHistory(FakeHistory):
    """A store that fails with a bug, so that a trace is logged."""

    async def read_packed(self, user_id: str) -> PackedHistory:
        """Fail."""
        raise LookupError("a bug")


async def test_no_key_address_or_id_reaches_the_log(
    settings: Settings, bundle: LoadedBundle, tmp_path: Path, log: io.StringIO
) -> None:
    """Right keys, wrong ones, expired places to put them, refusals, and a bug with its trace."""
    path = tmp_path / "keys.json"
    right, wrong = key_with(path, "recommend"), new_key_text()
    app = app_of(
        settings,
        bundle,
        BrokenHistory(),
        keys_file=path,
        redis_url="redis://:hunter2@127.0.0.1:1/0",
        trusted_proxies=("127.0.0.1",),
        rate_limit_per_s=1.0,
    )
    async with client_of(app) as client:
        client.headers["X-Forwarded-For"] = "203.0.113.9"
        for text in (right, wrong):
            await client.get("/v1/users/anna-the-user/recommendations", headers=bearer(text))
            await client.post("/v1/events", headers={"X-API-Key": text}, json={})
    logged = log.getvalue()
    assert "unhandled error" in logged
    assert "unknown key" in logged
    assert "key lacks a scope" in logged
    assert "limits are per process" in logged
    for secret in (right, wrong, right.split("_", 2)[2], wrong.split("_", 2)[1], "hunter2"):
        assert secret not in logged
    assert "203.0.113.9" not in logged
    assert "anna-the-user" not in logged
