from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.config import Settings
from service.metrics import Metrics
from service.store.announcements import ModelAnnouncements
from service.store.catalogue import CatalogueStore, ItemChange
from service.store.client import RedisClient, connect
from service.store.counters import CounterStore
from service.store.embedded import EmbeddedValkey
from service.store.history import HistoryStore
from service.store.outcomes import ACCEPTED
from service.store.serving_reports import ServingReport, ServingReports
from service.store.tokens import Bucket, TokenStore
from tests.fakes import NOON_MS
from tests.integration.store.builders import event, store_at

pytestmark = pytest.mark.integration


async def test_a_server_that_may_lose_histories_is_warned_of_once(tmp_path: Path) -> None:
    """The defaults of many servers lose events on a restart or drop users when memory is full."""
    with EmbeddedValkey(tmp_path) as server:
        async with store_at(server.url) as store:
            client = connect(Settings(redis_url=server.url))
            await client.config_set("appendonly", "no")
            await client.config_set("maxmemory-policy", "allkeys-lru")
            await client.aclose()
            with capture_logs() as lines:
                await store.ping()
                await store.ping()
    reasons = [line["reason"] for line in lines if line["event"] == "store_may_lose_histories"]
    assert len(reasons) == 2
    assert "appendonly is no" in reasons[0]
    assert "allkeys-lru" in reasons[1]


async def test_a_server_that_keeps_histories_is_not_warned_of(history_store: HistoryStore) -> None:
    """A warning that is always there is read by nobody."""
    with capture_logs() as lines:
        await history_store.ping()
    assert lines == []


async def test_a_server_that_forbids_config_is_used_all_the_same(tmp_path: Path) -> None:
    """Managed servers do; what cannot be read is no reason to refuse."""
    with EmbeddedValkey(tmp_path) as server:
        client = connect(Settings(redis_url=server.url))
        await client.acl_setuser("default", enabled=True, commands=["-config"])
        await client.aclose()
        async with store_at(server.url) as store:
            assert await store.append([event(1)]) == [ACCEPTED]


async def test_the_connection_names_itself(redis_client: RedisClient) -> None:
    """`CLIENT LIST` on a shared server should show whose connections they are."""
    assert await redis_client.client_getname() in (b"sojourn", "sojourn")


async def test_the_documented_permissions_suffice(tmp_path: Path) -> None:
    """Whoever runs a shared server gives the service what `docs/redis.md` lists, and no more."""
    page = (Path(__file__).parents[3] / "docs" / "redis.md").read_text("utf-8")
    listed = page.partition("and the commands `")[2].partition("`")[0].split()
    with EmbeddedValkey(tmp_path) as server:
        client = connect(Settings(redis_url=server.url))
        await client.acl_setuser(
            "shop",
            enabled=True,
            passwords=["+word"],
            keys=["{p*", "{items}:*", "sojourn:*"],
            commands=[f"+{command.lower()}" for command in listed],
        )
        await client.aclose()
        url = server.url.replace("unix://", "unix://shop:word@")
        async with store_at(url, max_events=2) as store:
            assert await store.append([event(n) for n in range(3)]) == [ACCEPTED] * 3
            assert (await store.read("anna")).item_ids == ("i1", "i2")
            await store.ping()
            assert len((await store.people.held("anna")).stream) == 3
            await store.people.merge("anna", "ben")
            assert (await store.people.erase("ben")).num_events == 2
        settings = Settings(redis_url=url)
        client = connect(settings)
        catalogue = CatalogueStore(client, settings, Metrics())
        await catalogue.change([ItemChange("a", {"title": "A"}, replaces=True)])
        assert len((await catalogue.since(None)).items) == 1
        announcements = ModelAnnouncements(client, Metrics())
        assert (await announcements.announce_first("a", "a", 1)).active == "a"
        await announcements.prepare("b", 2)
        assert (await announcements.announce("b", 2)).previous == "a"
        assert await announcements.read() is not None
        said = ServingReport("one", "b", False, NOON_MS)
        assert await ServingReports(client, Metrics()).report(said) == [said]
        popular = await CounterStore(client, settings, Metrics()).popular(NOON_MS, 10)
        assert len(popular) == 3
        tokens = TokenStore(client, settings, Metrics())
        assert (await tokens.take(Bucket("key", "a", 1.0, 1))).taken
        await tokens.close()
        await client.aclose()
