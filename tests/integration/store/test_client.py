from pathlib import Path

import pytest
from structlog.testing import capture_logs

from deploy.chaos.topologies import Servers
from service.config import Settings
from service.contract.events import UserId
from service.contract.exposures import Exposure, Impression
from service.metrics import Metrics
from service.store.announcements import ModelAnnouncements
from service.store.catalogue import CatalogueStore, ItemChange
from service.store.client import connect
from service.store.counters import CounterStore
from service.store.embedded import EmbeddedValkey
from service.store.exposures import ExposureStore
from service.store.history import HistoryStore
from service.store.keys import new_recommendation_id
from service.store.outcomes import ACCEPTED
from service.store.servers import ServerClient
from service.store.serving_reports import ServingReport, ServingReports
from service.store.tokens import Bucket, TokenStore
from tests.fakes import NOON_MS, FakeClock
from tests.integration.store.builders import PATIENT_MS, connect_server, empty, event, store_at

pytestmark = pytest.mark.integration


async def test_a_server_that_may_lose_histories_is_warned_of_once(tmp_path: Path) -> None:
    """The defaults of many servers lose events on a restart or drop users when memory is full."""
    with EmbeddedValkey(tmp_path) as server:
        async with store_at(server.url) as store:
            client = connect_server(server.url)
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
        client = connect_server(server.url)
        await client.acl_setuser("default", enabled=True, commands=["-config"])
        await client.aclose()
        async with store_at(server.url) as store:
            assert await store.append([event(1)]) == [ACCEPTED]


async def test_the_connection_names_itself(redis_client: ServerClient) -> None:
    """`CLIENT LIST` on a shared server should show whose connections they are."""
    assert await redis_client.client_getname() in (b"sojourn", "sojourn")


def documented_commands() -> list[str]:
    """Return the commands that `docs/redis.md` gives to the service's user."""
    page = (Path(__file__).parents[3] / "docs" / "redis.md").read_text("utf-8")
    return page.partition("and the commands `")[2].partition("`")[0].split()


async def test_the_documented_permissions_suffice(tmp_path: Path) -> None:
    """Whoever runs a shared server gives the service what `docs/redis.md` lists, and no more."""
    with EmbeddedValkey(tmp_path) as server:
        client = connect_server(server.url)
        await client.ask_every(*user_with(documented_commands()))
        await client.aclose()
        url = server.url.replace("unix://", "unix://shop:word@")
        await use_every_store(Settings(redis_url=url, max_events=2))


async def test_the_documented_permissions_suffice_on_a_cluster(cluster: Servers) -> None:
    """A Cluster's client asks more, to find the nodes; a test of the collector has the list."""
    await empty(cluster.url)
    more = ["COMMAND", "CLUSTER|SLOTS", "ASKING"]
    client = connect(Settings(redis_url=cluster.url))
    await client.ask_every(*user_with(documented_commands() + more))
    await client.aclose()
    url = cluster.url.replace("://", "://shop:word@")
    await use_every_store(Settings(redis_url=url, max_events=2, redis_timeout_ms=PATIENT_MS))


def user_with(commands: list[str]) -> tuple[str, ...]:
    """Return what makes a user who may call these commands."""
    rights = [f"+{command.lower()}" for command in commands]
    patterns = ("~{p*", "~{items}:*", "~sojourn:*")
    return ("ACL", "SETUSER", "shop", "reset", "on", ">word", *patterns, *rights)


async def use_every_store(settings: Settings) -> None:
    """Call whatever the service calls."""
    client = connect(settings)
    store = HistoryStore(client, settings, Metrics(), now_ms=FakeClock())
    assert await store.append([event(n) for n in range(3)]) == [ACCEPTED] * 3
    assert (await store.read("anna")).item_ids == ("i1", "i2")
    await store.ping()
    assert len((await store.people.held("anna")).stream) == 3
    await store.people.merge("anna", "ben")
    assert (await store.people.erase("ben")).num_events == 2
    catalogue = CatalogueStore(client, settings, Metrics())
    await catalogue.change([ItemChange("a", {"title": "A"}, replaces=True)])
    assert len((await catalogue.since(None)).items) == 1
    announcements = ModelAnnouncements(client, Metrics())
    assert (await announcements.announce_first("a", "a", 1)).active == "a"
    await announcements.prepare("b", 2)
    assert (await announcements.announce("b", 2)).previous == "a"
    assert await announcements.read() is not None
    exposures = ExposureStore(client, settings, Metrics())
    for user_id in (UserId("cid"), None):
        shown = (Impression("a", 1, "model", 1.0),)
        answer_id = new_recommendation_id(user_id, settings.num_partitions)
        noted = Exposure(answer_id, user_id, NOON_MS, "a", "plain", shown)
        assert await exposures.record([noted]) == [None]
        assert list(await exposures.find([answer_id])) == [answer_id]
    assert len((await exposures.shown(UserId("cid"))).item_hashes) == 1
    said = ServingReport("one", "b", False, NOON_MS)
    assert await ServingReports(client, Metrics()).report(said) == [said]
    assert len(await CounterStore(client, settings, Metrics()).popular(NOON_MS, 10)) == 3
    tokens = TokenStore(client, settings, Metrics())
    assert (await tokens.take(Bucket("key", "a", 1.0, 1))).taken
    await tokens.close()
    await store.close()
    await client.aclose()
