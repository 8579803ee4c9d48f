import asyncio

import pytest

from service.metrics import Metrics
from service.store.client import RedisClient
from service.store.keys import SERVING_KEY, SERVING_TTL_S
from service.store.servers import ServerClient
from service.store.serving_reports import ServingReport, ServingReports
from tests.fakes import NOON_MS

pytestmark = pytest.mark.integration


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
def reports(store_client: RedisClient) -> ServingReports:
    """Return reports of nobody yet."""
    return ServingReports(store_client, Metrics())


async def test_a_report_takes_the_place_of_the_process_s_last_one(reports: ServingReports) -> None:
    """Others keep theirs."""
    other = ServingReport("host:2:ab", "new", True, NOON_MS)
    own = ServingReport("host:1:cd", "new", False, NOON_MS + 2)
    await reports.report(ServingReport("host:1:cd", "old", False, NOON_MS))
    await reports.report(other)
    assert await reports.report(own) == [own, other]


async def test_a_process_that_is_silent_is_forgotten(
    reports: ServingReports, redis_client: ServerClient
) -> None:
    """A killed one cannot say goodbye; the key goes with the last process."""
    late_ms = NOON_MS + SERVING_TTL_S * 1_000
    await reports.report(ServingReport("killed", "old", False, NOON_MS))
    just_in_time = ServingReport("slow", "old", False, NOON_MS + 1)
    await reports.report(just_in_time)
    own = ServingReport("own", "new", False, late_ms + 1)
    assert await reports.report(own) == [own, just_in_time]
    assert 0 < await redis_client.ttl(SERVING_KEY) <= SERVING_TTL_S


async def test_processes_that_report_at_once_are_all_there(reports: ServingReports) -> None:
    """They poll at the same pace."""
    said = [ServingReport(f"host:{n}", "v", False, NOON_MS) for n in range(9)]
    await asyncio.gather(*(reports.report(one) for one in said))
    assert await reports.report(said[0]) == said
