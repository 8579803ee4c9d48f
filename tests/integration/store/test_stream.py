"""Reading the event streams of a real Valkey."""

import contextlib
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.config import Settings
from service.errors import StoreMismatch, StoreUnavailable
from service.metrics import Metrics
from service.store import keys
from service.store.client import RedisClient, connect
from service.store.history import HistoryStore
from service.store.servers import ServerClient
from service.store.stream import START, EventStreams, StreamId
from tests.integration.store.builders import event, events, store_at

pytestmark = pytest.mark.integration

ALL = range(16)
# What a Cluster's client asks beside, to find the nodes and follow slots that move.
CLUSTER_COMMANDS = "COMMAND CLUSTER|SLOTS ASKING"
REDIS_PAGE = Path(__file__).parents[3] / "docs" / "redis.md"
COLLECTOR_COMMANDS = (
    "HMGET EXISTS XINFO|STREAM XRANGE EVAL EVALSHA PING CLIENT|SETNAME CLIENT|SETINFO"
)


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
def streams(store_client: RedisClient) -> EventStreams:
    """Return the streams of the server."""
    return EventStreams(store_client, Metrics())


async def test_a_store_that_was_never_written_to_has_no_partitions(streams: EventStreams) -> None:
    """A collector must not claim it: how many there are is the service's to say."""
    assert await streams.num_partitions() is None
    (page,) = (await streams.read({0: START}, 10)).values()
    assert (page.entries, page.oldest, page.num_added, page.is_last) == ([], None, None, True)
    assert await streams.num_partitions() is None


async def test_the_number_of_partitions_is_the_stores(
    store_settings: Settings, streams: EventStreams
) -> None:
    """Not that of the collector's environment."""
    assert store_settings.redis_url is not None
    async with store_at(store_settings.redis_url, num_partitions=3) as store:
        await store.append([event(1)])
    assert await streams.num_partitions() == 3


async def test_pages_follow_one_another_without_a_gap_or_a_repeat(
    history_store: HistoryStore, streams: EventStreams
) -> None:
    """Every partition from its own cursor, in one call."""
    await history_store.append(events(*range(25)))
    await history_store.append(events(*range(5), user_id="bert"))
    assert await streams.num_partitions() == 16
    cursors, seen = dict.fromkeys(ALL, START), []
    for _ in range(3):
        pages = await streams.read(cursors, 10)
        for partition, page in pages.items():
            seen += [entry.fields["event"] for entry in page.entries]
            if page.entries:
                cursors[partition] = page.entries[-1].id
    assert all(page.is_last for page in pages.values())
    assert len(seen) == len(set(seen)) == 30


async def test_a_page_says_what_was_removed(
    redis_client: ServerClient, history_store: HistoryStore, streams: EventStreams
) -> None:
    """30 were added and 20 trimmed: the oldest that is left is the 21st."""
    await history_store.append(events(*range(30)))
    partition = keys.partition_of("anna", 16)
    whole = (await streams.read({partition: START}, 100))[partition]
    await redis_client.xtrim(keys.stream_key(partition), maxlen=10, approximate=False)
    page = (await streams.read({partition: START}, 100))[partition]
    assert (page.length, page.num_added, page.num_removed) == (10, 30, 20)
    assert page.oldest == whole.entries[20].id
    assert list(page.entries) == list(whole.entries[20:])


async def test_another_layout_is_refused(redis_client: ServerClient, streams: EventStreams) -> None:
    """Its entries might mean something else."""
    await redis_client.hset(keys.META_KEY, mapping={"layout": 99, "num_partitions": 16})
    with pytest.raises(StoreMismatch, match="layout is 99"):
        await streams.num_partitions()


async def test_a_key_that_is_no_stream_is_an_error_of_the_store(
    redis_client: ServerClient, streams: EventStreams
) -> None:
    """Never an empty page, which would look like nothing to do."""
    await redis_client.set(keys.stream_key(0), "text")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await streams.read({0: START}, 10)


async def test_a_user_with_the_documented_rights_may_collect(
    shape: str, store_client: RedisClient, history_store: HistoryStore, store_settings: Settings
) -> None:
    """None of the commands writes, so a collector's password can spoil nothing."""
    await history_store.append([event(1)])
    more = CLUSTER_COMMANDS.split() if shape == "cluster" else []
    rights = [f"+{command}" for command in COLLECTOR_COMMANDS.split() + more]
    user = ("ACL", "SETUSER", "reader", "reset", "on", ">word", "~{p*", "~sojourn:*", *rights)
    assert {*(await store_client.ask_every(*user)).values()} <= {b"OK", True}
    settings = store_settings.model_copy(
        update={"redis_username": "reader", "redis_password": SecretStr("word")}
    )
    async with contextlib.aclosing(connect(settings)) as client:
        streams = EventStreams(client, Metrics())
        pages = await streams.read(dict.fromkeys(ALL, START), 10)
        assert await streams.num_partitions() == 16
    assert sum(len(page.entries) for page in pages.values()) == 1
    page = REDIS_PAGE.read_text("utf-8")
    assert f"`{COLLECTOR_COMMANDS}`" in page
    assert f"`{CLUSTER_COMMANDS}`" in page


def test_ids_are_compared_as_numbers() -> None:
    """As text, the tenth entry of a millisecond would come before the second."""
    assert StreamId.parse("5-10") > StreamId.parse("5-2") > StreamId.parse("4-99") > START
    assert str(StreamId.parse("5-10")) == "5-10"
