"""The live catalogue on a real Valkey: changes are whole, ordered, bounded, and found again."""

from typing import Any

import pytest

from service.config import Settings
from service.errors import CatalogueFull, StoreUnavailable
from service.metrics import Metrics
from service.store import keys
from service.store.catalogue import CatalogueStore, Changes, ItemChange
from service.store.client import RedisClient, connect
from service.store.servers import ServerClient

pytestmark = pytest.mark.integration


def change(item_id: str, *, replaces: bool = True, **fields: Any) -> ItemChange:
    """Return a change of one item."""
    return ItemChange(item_id, fields, replaces)


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
def store(store_client: RedisClient, store_settings: Settings) -> CatalogueStore:
    """Return a catalogue store on an empty server."""
    return CatalogueStore(store_client, store_settings, Metrics())


async def test_what_was_said_comes_back_with_its_types(store: CatalogueStore) -> None:
    """Values are JSON: 1 is not "1", a list is a list, and null is said."""
    said: dict[str, Any] = {
        "title": 'Ä "quote"',
        "categories": [],
        "attributes": {"price": 1, "new": True},
    }
    await store.change([change("ä/1", **said, lat=None)])
    assert await store.read(["ä/1", "unheard-of"]) == [said | {"lat": None}, {}]


async def test_adding_keeps_what_was_said_and_replacing_forgets_it(store: CatalogueStore) -> None:
    """A flip of availability must not lose the title; a PUT says the item anew."""
    await store.change([change("a", title="A", available=True)])
    await store.change([change("a", replaces=False, available=False)])
    assert await store.read(["a"]) == [{"title": "A", "available": False}]
    await store.change([change("a", lat=1.5)])
    assert await store.read(["a"]) == [{"lat": 1.5}]


async def test_a_reader_finds_what_changed_since_it_looked(store: CatalogueStore) -> None:
    """Each item once, as it is now, and nothing twice."""
    await store.change([change("a", title="A"), change("b", title="B")])
    first = await store.since(None)
    assert first.is_whole
    assert first.items == {"a": {"title": "A"}, "b": {"title": "B"}}
    nothing = await store.since(first.position)
    assert nothing == Changes(first.position, {})
    await store.change([change("a", title="A2")])
    await store.change([change("a", title="A3")])
    second = await store.since(first.position)
    assert (second.items, second.is_whole) == ({"a": {"title": "A3"}}, False)


async def test_an_empty_catalogue_has_a_beginning(store: CatalogueStore) -> None:
    """What is said first is found by who looked before anything was said."""
    empty = await store.since(None)
    assert empty.items == {}
    await store.change([change("a", title="A")])
    assert (await store.since(empty.position)).items == {"a": {"title": "A"}}


async def test_a_reader_that_fell_behind_reads_all_again(
    store: CatalogueStore, redis_client: ServerClient
) -> None:
    """The log is bounded: trimmed past the reader, or lost with its server, it is not trusted."""
    await store.change([change("a", title="A")])
    old = await store.since(None)
    await store.change([change("b", title="B")])
    await store.change([change("c", title="C")])
    await redis_client.xtrim(keys.CATALOGUE_LOG_KEY, maxlen=1, approximate=False)
    behind = await store.since(old.position)
    assert behind.is_whole
    assert sorted(behind.items) == ["a", "b", "c"]
    await redis_client.delete(keys.CATALOGUE_LOG_KEY)
    assert (await store.since(behind.position)).is_whole


async def test_what_changed_last_comes_last(store: CatalogueStore) -> None:
    """Of more changes than are read in one round trip, by who looks at all and by who follows."""
    order = [f"i{number}" for number in range(1_500)]
    for at in range(0, len(order), 500):
        await store.change([change(item_id, title="T") for item_id in order[at : at + 500]])
    await store.change([change("i7", title="T2")])
    whole = await store.since(None)
    assert [*whole.items] == [one for one in order if one != "i7"] + ["i7"]
    await store.change([change("i3"), change("i2"), change("i3")])
    assert [*(await store.since(whole.position)).items] == ["i2", "i3"]


async def test_more_items_than_may_be_live_change_nothing(
    redis_client: ServerClient, store_settings: Settings
) -> None:
    """Two of three would fit; half a call would leave the caller guessing."""
    settings = store_settings.model_copy(update={"max_live_items": 2})
    store = CatalogueStore(redis_client, settings, Metrics())
    await store.change([change("a")])
    with pytest.raises(CatalogueFull, match="2 items"):
        await store.change([change("b", title="B"), change("c", title="C")])
    assert sorted((await store.since(None)).items) == ["a"]
    await store.change([change("a", title="again"), change("b", title="B")])
    # There is a way out of a full catalogue: an item of the bundle can still be taken away.
    await store.change([change("of the bundle", deleted=True)])


async def test_a_large_catalogue_is_read_in_parts(store: CatalogueStore) -> None:
    """More than one round trip of items."""
    many = [change(f"i{number}", title=str(number)) for number in range(2_500)]
    for at in range(0, len(many), 500):
        await store.change(many[at : at + 500])
    assert len((await store.since(None)).items) == 2_500


async def test_a_store_that_is_away_is_said_to_be(store_settings: Settings) -> None:
    """Nothing listens at port 1."""
    settings = store_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    client = connect(settings)
    store = CatalogueStore(client, settings, Metrics())
    with pytest.raises(StoreUnavailable):
        await store.since(None)
    with pytest.raises(StoreUnavailable):
        await store.change([change("a")])
    await client.aclose()
