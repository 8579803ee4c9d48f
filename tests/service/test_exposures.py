"""Exposures behind the answers: noted, attributed, and never in the way."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from service.contract.events import UserId
from service.contract.exposures import Exposure, Impression
from service.errors import ServiceError
from service.exposures import GATHER_S, MAX_BATCH, Exposures
from service.metrics import Metrics
from tests.builders import event, event_json
from tests.clients import metric, recommended
from tests.fake_stores import FakeExposures
from tests.fakes import NOON_MS, FakeHistory

ID = "0001" + "a" * 28


def exposure(*item_ids: str) -> Exposure:
    """Return an answer that showed these items to anna."""
    shown = tuple(
        Impression(text, rank, "model", 1.0) for rank, text in enumerate(item_ids, start=1)
    )
    return Exposure(ID, UserId("anna"), NOON_MS, "m1", "best", shown)


async def test_the_loop_from_answer_to_purchase_is_closed(
    client: httpx.AsyncClient, history: FakeHistory, exposures: FakeExposures
) -> None:
    """The purchase names the answer, so it counts for the place that showed the item."""
    await history.append([event(item_id="action-1")])
    shown = await recommended(client, k=2)
    noted = await exposures.first()
    led = {"recommendation_id": noted.recommendation_id, "event_type": "purchase"}
    body = {"events": [event_json(item_id=shown[1], **led)]}
    for _ in range(2):
        await client.post("/v1/events", json=body)
    await asyncio.sleep(0)
    labels = f'event_type="purchase",model="{noted.model_version}",position="2",source="model"'
    # The second post is a duplicate and counts for nothing.
    assert await metric(client, f"sojourn_attributed_events_total{{{labels}}}") == 1.0


async def test_impressions_are_counted_by_place_and_source(client: httpx.AsyncClient) -> None:
    """A list of six has one impression on each of three places and three below."""
    await recommended(client, user_id="nobody", k=6)
    text = (await client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("sojourn_impressions_total")]
    assert sum(float(line.rpartition(" ")[2]) for line in lines) == 6.0
    assert any('position="4-10"' in line and line.endswith(" 3.0") for line in lines)


async def test_an_unknown_answer_is_counted_as_unknown() -> None:
    """Forged, forgotten, or of an item that the answer did not show."""
    records, metrics = FakeExposures(), Metrics()
    records.noted.append(exposure("a"))
    of = Exposures(records, metrics, max_pending=8, is_on=True)
    of.attribute(
        [
            event(item_id="a", recommendation_id=ID),
            event(item_id="b", recommendation_id=ID),
            event(item_id="a", recommendation_id="forged"),
            event(item_id="a"),
        ]
    )
    await of.close()
    counter = metrics.attributed_events
    assert counter.labels("view", "model", "1", "m1")._value.get() == 1.0
    assert counter.labels("view", "unknown", "unknown", "unknown")._value.get() == 2.0


async def test_a_store_that_is_away_costs_the_note_and_nothing_else(
    client: httpx.AsyncClient, exposures: FakeExposures
) -> None:
    """The answer is the same; the loss is counted."""
    exposures.down = True
    assert await recommended(client, user_id="nobody", k=2)
    await asyncio.sleep(10 * GATHER_S)
    assert await metric(client, 'sojourn_exposures_total{status="dropped"}') == 1.0


async def test_notes_that_pile_up_are_dropped_and_counted() -> None:
    """Memory is bounded while the store hangs."""
    metrics = Metrics()
    of = Exposures(FakeExposures(), metrics, max_pending=2, is_on=True)
    for _ in range(5):
        of.note(exposure("a"))
    await of.close()
    assert metrics.exposures.labels("noted")._value.get() == 2.0
    assert metrics.exposures.labels("dropped")._value.get() == 3.0


async def test_an_operator_can_turn_the_log_off() -> None:
    """Impressions are still counted; nothing leaves the process."""
    records, metrics = FakeExposures(), Metrics()
    of = Exposures(records, metrics, max_pending=2, is_on=False)
    of.note(exposure("a"))
    of.attribute([event(recommendation_id=ID)])
    await of.close()
    assert records.noted == []
    assert metrics.impressions.labels("model", "1", "m1")._value.get() == 1.0


@pytest.mark.parametrize("grace_s", [0.0, 0.01])
async def test_a_store_that_hangs_does_not_hold_up_the_end(grace_s: float) -> None:
    """What outlasts the grace is cancelled, and counted."""

    class Hanging(FakeExposures):
        async def record(self, exposures: Sequence[Exposure]) -> list[ServiceError | None]:
            await asyncio.Event().wait()
            return []

    metrics = Metrics()
    of = Exposures(Hanging(), metrics, max_pending=2 * MAX_BATCH, is_on=True)
    for _ in range(MAX_BATCH + 1):
        of.note(exposure("a"))
    async with asyncio.timeout(5):
        await of.close(grace_s)
    # One batch was being noted, if its task had begun, and one answer waited.
    assert metrics.exposures.labels("dropped")._value.get() == MAX_BATCH + 1
    assert metrics.exposures.labels("noted")._value.get() == 0.0


async def test_an_error_that_nobody_foresaw_costs_one_batch() -> None:
    """It is counted, and what waits meanwhile is noted all the same."""

    class Mistaken(FakeExposures):
        async def record(self, exposures: Sequence[Exposure]) -> list[ServiceError | None]:
            if len(exposures) == MAX_BATCH:
                raise TypeError("a mistake")
            return await super().record(exposures)

    records, metrics = Mistaken(), Metrics()
    of = Exposures(records, metrics, max_pending=2 * MAX_BATCH, is_on=True)
    for _ in range(MAX_BATCH + 1):
        of.note(exposure("a"))
    await of.close()
    assert len(records.noted) == 1
    assert metrics.exposures.labels("dropped")._value.get() == MAX_BATCH
    assert metrics.exposures.labels("noted")._value.get() == 1.0
