from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.drift import Bins
from service.metrics import Metrics
from service.process_memory import limit_bytes, private_bytes
from tests.builders import MS_PER_HOUR, event_json
from tests.clients import client_of, metric, recommended
from tests.fakes import NOON_MS, FakeClock

MIB = 1 << 20


@pytest.mark.parametrize(
    ("value", "label"), [(-3, "0"), (0, "0"), (0.1, "2.5"), (2.5, "2.5"), (2.6, "more")]
)
def test_a_bin_has_its_bound_and_what_is_below(value: float, label: str) -> None:
    """And what is above all bounds is in a bin of its own; all are there from the start."""
    metrics = Metrics()
    bins = Bins(lambda name: metrics.drift_scores.labels("top", "m", name), (0, 2.5))
    bins.note(value)
    text = metrics.render()[0].decode()
    assert f'sojourn_drift_scores_total{{bin="{label}",model="m",score="top"}} 1.0' in text
    assert text.count("sojourn_drift_scores_total{") == 3


async def inputs(client: httpx.AsyncClient) -> dict[str, str]:
    """Return by input the bins that something is in, and how much."""
    text = (await client.get("/metrics")).text
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("sojourn_drift_inputs_total{") and not line.endswith(" 0.0"):
            labels, _, number = line.partition("{")[2].partition("} ")
            parts = dict(part.split("=") for part in labels.split(","))
            name, label = parts["input"].strip('"'), parts["bin"].strip('"')
            found[name] = (
                f"{found[name]}, {label}: {number}" if name in found else (f"{label}: {number}")
            )
    return found


@pytest.fixture
def sampled(
    settings: Settings, bundle: LoadedBundle, stores: dict[str, Any], clock: FakeClock
) -> Any:
    """Return a function that makes an application that looks at one list in so many."""

    def app_of(every: int) -> Any:
        own = settings.model_copy(update={"drift_every": every})
        return client_of(create_app(own, **stores, bundle=bundle, clock=clock))

    return app_of


async def test_what_a_list_was_made_of_is_counted(sampled: Any, bundle: LoadedBundle) -> None:
    """Two events an hour ago, one of an unknown item, asked at noon: half of them is unknown."""
    events = [event_json(item_id=item) for item in ("action-1", "nobody-knows")]
    async with sampled(1) as client:
        await client.post("/v1/events", json={"events": events})
        await recommended(client)
        assert await inputs(client) == {
            "history": "3: 1.0",
            "gap": "3600: 1.0",
            "unknown": "0.5: 1.0",
            "hour": "12: 1.0",
        }
        assert await metric(client, 'sojourn_last_event_age_seconds_bucket{le="3600.0"}') == 1
        assert await metric(client, 'sojourn_last_event_age_seconds_bucket{le="600.0"}') == 0
        version = bundle.manifest.bundle_version
        text = (await client.get("/metrics")).text
    scores = [
        line
        for line in text.splitlines()
        if line.startswith("sojourn_drift_scores_total{") and line.endswith(" 1.0")
    ]
    assert all(f'model="{version}"' in line for line in scores)
    assert sorted(line.partition('score="')[2][:3] for line in scores) == ["mar", "top"]


async def test_who_has_no_history_has_no_gap_and_no_score(sampled: Any) -> None:
    """A list that the model did not make says nothing of its scores."""
    async with sampled(1) as client:
        await recommended(client, "nobody")
        assert await inputs(client) == {"history": "0: 1.0", "gap": "none: 1.0", "hour": "12: 1.0"}
        assert "sojourn_drift_scores_total{" not in (await client.get("/metrics")).text


@pytest.mark.parametrize(("every", "number"), [(0, 0), (1, 7), (3, 2)])
async def test_one_list_in_so_many_is_looked_at(sampled: Any, every: int, number: int) -> None:
    """To look costs time, so the third and the sixth of seven stand for all."""
    async with sampled(every) as client:
        for _ in range(7):
            await recommended(client, "nobody")
        counted = await metric(client, 'sojourn_drift_inputs_total{bin="0",input="history"}')
    assert counted == number


async def test_an_event_s_delay_is_how_long_it_took_to_come(client: httpx.AsyncClient) -> None:
    """An hour; one that is rejected, or a duplicate, has none."""
    late = event_json(event_id="late", timestamp=NOON_MS - MS_PER_HOUR)
    for _ in range(2):
        await client.post("/v1/events", json={"events": [late]})
    await client.post("/v1/events", json={"events": [event_json(item_id="")]})
    assert await metric(client, "sojourn_event_delay_seconds_count") == 1
    assert await metric(client, "sojourn_event_delay_seconds_sum") == 3600


async def test_the_bundle_s_age_can_be_told(client: httpx.AsyncClient) -> None:
    """As the time that its manifest names: 2026-01-14, noon."""
    created_s = await metric(client, "sojourn_bundle_created_timestamp_seconds")
    assert created_s == 1_768_392_000


async def test_memory_is_told_with_what_there_may_be(client: httpx.AsyncClient) -> None:
    """What is mapped or shared is not in it, so several workers can be added up."""
    block = bytearray(b"x") * (64 * MIB)
    with_block = private_bytes()
    del block
    without = private_bytes()
    limit = limit_bytes()
    assert with_block is not None
    assert without is not None
    assert limit is not None
    assert with_block - without > 32 * MIB
    assert 0 < await metric(client, "sojourn_private_memory_bytes") < limit
    assert await metric(client, "sojourn_memory_limit_bytes") == limit
