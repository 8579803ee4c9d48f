import httpx

from service.bundle_loader import LoadedBundle
from tests.fakes import FakeHistory


async def test_liveness_does_not_ask_redis(client: httpx.AsyncClient, history: FakeHistory) -> None:
    """Restarting every process would not bring Redis back."""
    history.down = True
    answer = await client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})


async def test_readiness_follows_redis_without_a_restart(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Down, and up again."""
    history.down = True
    down = await client.get("/readyz")
    history.down = False
    up = await client.get("/readyz")
    assert (down.status_code, down.json()["reasons"]) == (503, ["redis: the fake store is down"])
    assert (up.status_code, up.json()) == (200, {"status": "ready", "reasons": []})


async def test_health_says_what_is_served_and_which_part_is_missing(
    client: httpx.AsyncClient, history: FakeHistory, bundle: LoadedBundle
) -> None:
    """People read this one; its status is readiness's, as compose asks it."""
    up = await client.get("/healthz")
    history.down = True
    down = await client.get("/healthz")
    assert (up.status_code, up.json()["redis"]) == (200, "ok")
    assert (down.status_code, down.json()["redis"]) == (503, "unavailable")
    assert down.json()["model_version"] == bundle.manifest.bundle_version


async def test_metrics_name_the_bundle(client: httpx.AsyncClient, bundle: LoadedBundle) -> None:
    """A graph of quality needs to know which bundle it shows."""
    answer = await client.get("/metrics")
    labels = f'{{name="tiny",version="{bundle.manifest.bundle_version}"}}'
    assert f"sojourn_bundle_info{labels} 1.0" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
