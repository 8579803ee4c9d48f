import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.contract.events import EVENT_TYPES
from service.errors import BundleRefused
from tests.builders import DAY_MS, event_json
from tests.clients import client_of, recommended
from tests.fake_stores import fake_stores
from tests.fakes import FakeAnnouncements, FakeClock, FakeCounters


async def test_a_bad_bundle_fails_the_start(tmp_path: Path) -> None:
    """A process that cannot serve must not look like one that can."""
    settings = Settings(bundle_path=tmp_path)
    app = create_app(settings, **fake_stores(), announcements=FakeAnnouncements())
    with pytest.raises(BundleRefused):
        async with client_of(app):
            pass


async def test_the_service_starts_while_redis_is_down(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """Nothing listens at this address: alive, not ready, degraded, and no crash of any task."""
    unreachable = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    app = create_app(unreachable, bundle=bundle, clock=clock)
    async with client_of(app) as client:
        live, ready = await client.get("/livez"), await client.get("/readyz")
        answer = await client.get("/v1/users/anna/recommendations")
        refused = await client.post("/v1/events", json={"events": [event_json()]})
    assert (live.status_code, ready.status_code) == (200, 503)
    assert (answer.status_code, answer.json()["degraded"]) == (200, ["redis"])
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_two_applications_in_one_process_do_not_meet(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """No module keeps state: metrics, stores and bundles belong to an application."""
    apps = [
        create_app(
            settings,
            **fake_stores(),
            bundle=bundle,
            clock=clock,
        )
        for _ in range(2)
    ]
    async with client_of(apps[0]) as one, client_of(apps[1]) as other:
        await recommended(one)
        assert "sojourn_recommendations_total{" in (await one.get("/metrics")).text
        assert "sojourn_recommendations_total{" not in (await other.get("/metrics")).text


async def test_popularity_outlives_a_redis_that_goes_away(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """The refresh fails, is logged, and goes on; answers stay as they were."""
    counters = FakeCounters()
    counters.down = True
    app = create_app(
        settings,
        **fake_stores(counters=counters),
        bundle=bundle,
        clock=clock,
    )
    async with client_of(app) as client:
        assert await recommended(client, k=1)


def schemas_without_examples(document: dict[str, Any]) -> list[str]:
    """Return the names of the schemas that show no example."""
    schemas = document["components"]["schemas"]
    return [name for name, schema in schemas.items() if not schema.get("examples")]


async def test_every_schema_has_an_example(client: httpx.AsyncClient) -> None:
    """Readers copy examples."""
    assert schemas_without_examples((await client.get("/openapi.json")).json()) == []


async def test_examples_of_requests_are_valid(client: httpx.AsyncClient, clock: FakeClock) -> None:
    """An example that does not work is worse than none; they are of the end of the month."""
    clock.advance(30 * DAY_MS)
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    for example in schemas["RecommendRequest"]["examples"]:
        answer = await client.post("/v1/recommendations", json=example)
        assert answer.status_code == 200, answer.text
    for example in schemas["EventBatch"]["examples"]:
        answer = await client.post("/v1/events", json=example)
        assert answer.json()["accepted"] == 1, answer.text


async def test_documented_errors_are_problems_and_nothing_else(client: httpx.AsyncClient) -> None:
    """A generated client must expect what is sent."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/v1/events", "/v1/rank"):
        responses = paths[path]["post"]["responses"]
        errors = {status: set(r["content"]) for status, r in responses.items() if status != "200"}
        assert errors == {
            status: {"application/problem+json"} for status in ("400", "413", "422", "503")
        }


async def test_the_page_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """It works in a closed network, and its policy forbids what it does not need."""
    answer = await client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in answer.text
    named = set(re.findall(r'(?:src|href)="([^"#]*)"', answer.text)) - {"docs", ""}
    assert named == {"playground/app.js", "playground/icon.svg", "playground/style.css"}
    # What is in the text itself would need the policy to allow it.
    assert re.findall(r"<style| style=| on\w+=|<script>", answer.text) == []


async def test_every_module_that_the_page_imports_is_sent_as_a_script(
    client: httpx.AsyncClient,
) -> None:
    """Browsers run no module of another type; and none is imported from elsewhere."""
    found, left = {"app.js"}, ["app.js"]
    while left:
        answer = await client.get(f"/playground/{left.pop()}")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        sources = set(re.findall(r'from "([^"]*)";', answer.text))
        new = {source.removeprefix("./") for source in sources} - found
        found |= new
        left += new
    assert "why.js" in found


async def test_a_file_of_the_page_is_sent_again_only_if_it_changed(
    client: httpx.AsyncClient,
) -> None:
    """A browser keeps it and asks; every other answer of the service is kept by nobody."""
    first = await client.get("/playground/style.css")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get("/playground/style.css", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    other = await client.get("/playground/style.css", headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.parametrize("name", ["missing.js", "..%2Fpage.py", "page.py", "%2e%2e"])
async def test_nothing_but_the_files_of_the_page_is_sent(
    client: httpx.AsyncClient, name: str
) -> None:
    """Names are looked up among what was read, never in a file system."""
    assert (await client.get(f"/playground/{name}")).status_code == 404


async def test_the_page_offers_every_event_type(client: httpx.AsyncClient) -> None:
    """A new type must not be forgotten there."""
    page = (await client.get("/")).text
    assert all(f"<option>{name}</option>" in page for name in EVENT_TYPES)
