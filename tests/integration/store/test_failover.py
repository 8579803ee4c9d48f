"""A primary is killed under a stream of events: somebody takes over, and what was kept is there."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from deploy.chaos.failover import fail_over
from deploy.chaos.topologies import Servers, running_cluster, running_sentinel
from service.errors import StoreUnavailable
from service.store.keys import history_key, partition_of
from service.store.outcomes import ACCEPTED
from service.store.servers import LOOK_EVERY_S
from tests.integration.store.builders import event, store_at

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("run", [running_cluster, running_sentinel])
async def test_a_killed_primary_is_replaced_and_nothing_older_than_the_window_is_lost(
    run: Callable[[Path], AbstractContextManager[Servers]], tmp_path: Path
) -> None:
    """The client finds the new primary by itself; the servers here agree on it in seconds."""
    with run(tmp_path) as servers:
        outcome = await fail_over(servers, seconds=0.5)
    assert outcome.num_acknowledged > 100
    assert 0 < outcome.recovery_s < 30
    assert outcome.is_within_the_window, outcome.missing_s


async def test_a_primary_that_was_replaced_while_it_runs_is_left(tmp_path: Path) -> None:
    """It would acknowledge for seconds what is lost when the Sentinels make a replica of it."""
    with running_sentinel(tmp_path) as servers:
        async with store_at(servers.url) as store:
            assert await store.append([event(1)]) == [ACCEPTED]
            replica = await asyncio.to_thread(servers.hand_over)
            with capture_logs() as lines:
                while not any(line["event"] == "redis_primary_changed" for line in lines):
                    await store.read("anna")
                # A Sentinel that heard of it late may lead a connection back, until the next look.
                for _ in range(25):
                    await store.read("anna")
                    await asyncio.sleep(LOOK_EVERY_S / 10)
            assert await store.append([event(2)]) == [ACCEPTED]
            found = replica.ask("STRLEN", history_key(partition_of("anna", 16), "anna"))
            assert int(str(found)) == packed_length(2)


async def test_a_sentinels_group_may_ask_for_passwords(tmp_path: Path) -> None:
    """Sentinels and servers each have their own; replicas are asked for their settings too."""
    with running_sentinel(tmp_path, "data", "guard") as servers:
        replica = servers.nodes[1]
        replica.ask("CONFIG", "SET", "appendonly", "no")
        data, guard = SecretStr("data"), SecretStr("guard")
        async with store_at(
            servers.url, redis_password=data, redis_sentinel_password=guard
        ) as store:
            with capture_logs() as lines:
                await store.ping()
        in_url = servers.url.replace("://", "://:data@")
        async with store_at(in_url, redis_sentinel_password=guard) as store:
            assert await store.append([event(1)]) == [ACCEPTED]
        async with store_at(servers.url, redis_password=data) as store:
            with pytest.raises(StoreUnavailable):
                await store.read("anna")
    [reason] = [line["reason"] for line in lines if line["event"] == "store_may_lose_histories"]
    assert reason.startswith(f"{replica.name}: appendonly is no")


def packed_length(num_events: int) -> int:
    """Return the bytes of a history of short item ids: docs/redis.md, "A history"."""
    return 4 + num_events * (14 + len("i1") + 1)
