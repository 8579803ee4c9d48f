"""New items whose texts are read: at their categories at first, then where their text is."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle_loader import LoadedBundle, load_bundle
from service.catalogue import LiveCatalogue
from service.config import Settings
from service.contract.errors import ContractError
from service.contract.features import Float32s
from service.fallback import LivePopularity
from service.metrics import Metrics
from service.serving_model import ModelSlot, open_model
from service.store.catalogue import ItemChange
from service.text_encoder import MAX_TEXTS, TextEncoder
from tests.builders import ITEM_ROWS
from tests.fake_stores import FakeItems
from tests.fakes import FakeClock, FakeCounters
from tests.text_bundles import make_text_bundle

DRAMA, ACTION, NIGHT = [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
# The mean of drama-1 and drama-2.
BY_CATEGORY = pytest.approx([0.05, 0.95, 0.0])


class GatedEncoder(TextEncoder):
    """A bundle's encoder that waits until it may go on, and cannot read one word."""

    def __init__(self, real: TextEncoder) -> None:
        self._real = real
        self.asked = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.num_texts = 0

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return the vectors of texts."""
        self.asked.set()
        assert self.may_go_on.wait(10)
        if "poison" in texts:
            raise ContractError("poison cannot be read")
        self.num_texts += len(texts)
        return self._real.encode(texts)


@pytest.fixture(scope="module")
def text_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that reads texts."""
    return make_text_bundle(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def text_bundle(text_path: Path) -> LoadedBundle:
    """Return it loaded, with an encoder that a test can stop."""
    loaded = load_bundle(text_path)
    assert loaded.text_encoder is not None
    return replace(loaded, text_encoder=GatedEncoder(loaded.text_encoder))


class Replica:
    """One process's live catalogue, whose background work a test does itself."""

    def __init__(self, bundle: LoadedBundle, store: FakeItems) -> None:
        self.metrics = Metrics()
        self.slot = ModelSlot(*self.opened(bundle))
        self.catalogue = LiveCatalogue(store, self.slot, bundle, self.metrics)

    def opened(self, bundle: LoadedBundle) -> Any:
        """Return what puts a bundle in the slot."""
        live = LivePopularity(FakeCounters(), bundle.vocabulary, FakeClock())
        return open_model(bundle, live, Settings(redis_url=None), self.metrics)

    async def switch(self, bundle: LoadedBundle) -> None:
        """Serve another bundle."""
        self.slot.put(*self.opened(await self.catalogue.view_of(bundle)))

    def row(self, item_id: str) -> list[float]:
        """Return where an item stands."""
        view = self.slot.current.bundle
        row: list[float] = view.ranker.vectors(np.array([view.vocabulary.index(item_id)]))[
            0
        ].tolist()
        return row

    @property
    def num_pending(self) -> int:
        """Return how many texts the gauge says are unread."""
        lines = self.metrics.render()[0].decode().splitlines()
        [line] = [one for one in lines if one.startswith("sojourn_texts_pending ")]
        return int(float(line.split()[1]))


@pytest.fixture
def store() -> FakeItems:
    """Return an empty store of live items."""
    return FakeItems()


@pytest.fixture
async def replica(text_bundle: LoadedBundle, store: FakeItems) -> AsyncIterator[Replica]:
    """Return a process on an empty store."""
    one = Replica(text_bundle, store)
    yield one
    await one.slot.close()


def encoder_of(replica: Replica) -> GatedEncoder:
    """Return the encoder of what is served."""
    encoder = replica.slot.current.bundle.text_encoder
    assert isinstance(encoder, GatedEncoder)
    return encoder


def said(item_id: str, *, replaces: bool = True, **fields: Any) -> ItemChange:
    """Return what a caller says of an item."""
    return ItemChange(item_id, fields, replaces)


async def test_what_is_put_stands_where_its_text_is_when_the_call_returns(
    replica: Replica,
) -> None:
    """Of the process that took it, at once; the text goes before the categories' mean."""
    await replica.catalogue.change([said("new", title="Action", categories=["night"])])
    diagonal = 0.5**0.5
    assert replica.row("new") == pytest.approx([diagonal, 0, diagonal])
    assert replica.num_pending == 0


async def test_another_process_has_it_at_its_categories_and_then_at_its_text(
    replica: Replica, store: FakeItems, text_bundle: LoadedBundle
) -> None:
    """It is there with the first look at the log, and does not wait for the encoder."""
    other = Replica(text_bundle, store)
    await other.catalogue.follow()
    await replica.catalogue.change([said("new", title="Night", categories=["drama"])])
    await other.catalogue.follow()
    assert other.num_pending == 1
    assert other.row("new") == BY_CATEGORY
    await other.catalogue.read_texts()
    diagonal = 0.5**0.5
    assert other.row("new") == pytest.approx([0, diagonal, diagonal])
    assert other.num_pending == 0
    await other.slot.close()


async def test_after_a_restart_what_was_said_last_is_read_first(
    store: FakeItems, text_bundle: LoadedBundle
) -> None:
    """Twenty items, of which the first was said again: sixteen are read, three and one wait."""
    many = [said(f"i{at}", title="Night", text=f"no{at}", categories=["drama"]) for at in range(20)]
    await store.change(many)
    await store.change([said("i0", title="Night", text="again", categories=["drama"])])
    restarted = Replica(text_bundle, store)
    await restarted.catalogue.follow()
    assert restarted.num_pending == 20
    assert restarted.row("i19") == restarted.row("i1") == BY_CATEGORY
    await restarted.catalogue.read_texts()
    assert restarted.num_pending == 20 - MAX_TEXTS
    assert [at for at in range(20) if restarted.row(f"i{at}") == BY_CATEGORY] == [1, 2, 3, 4]
    await restarted.catalogue.read_texts()
    assert [at for at in range(20) if restarted.row(f"i{at}") == BY_CATEGORY] == []
    await restarted.slot.close()


async def test_another_bundle_reads_all_texts_by_its_own_encoder(
    replica: Replica, text_bundle: LoadedBundle, bundle: LoadedBundle
) -> None:
    """One without an encoder has the categories again, and then the next one's encoder reads."""
    await replica.catalogue.change([said("new", title="Action", categories=["drama"])])
    placed = replica.row("new")
    await replica.switch(bundle)
    assert replica.row("new") == BY_CATEGORY
    assert replica.num_pending == 0
    await replica.switch(text_bundle)
    assert replica.row("new") == BY_CATEGORY
    assert replica.num_pending == 1
    await replica.catalogue.read_texts()
    assert replica.row("new") == placed != BY_CATEGORY


async def test_a_text_is_not_read_again_for_another_field(replica: Replica) -> None:
    """Availability flips, another item has the same text, and one is put again: one text in all."""
    await replica.catalogue.change([said("new", title="Action")])
    await replica.catalogue.change([said("new", replaces=False, available=False)])
    await replica.catalogue.change([said("other", title="Action")])
    await replica.catalogue.change([said("new", title="Action", available=True)])
    assert replica.row("new") == replica.row("other") == ACTION
    assert encoder_of(replica).num_texts == 1
    await replica.catalogue.change([said("new", title="Drama")])
    assert replica.row("new") == DRAMA


async def test_an_item_keeps_its_place_when_its_text_is_no_longer_kept(
    replica: Replica, store: FakeItems
) -> None:
    """A flip of availability by another process must not send it back to its categories."""
    await replica.catalogue.change([said("new", title="Action", categories=["drama"])])
    placed = replica.row("new")
    texts = replica.slot.current.texts
    assert texts is not None
    # As many others as are kept would push it out.
    texts._kept.clear()
    await store.change([said("new", replaces=False, available=False)])
    await replica.catalogue.follow()
    assert (replica.row("new"), replica.num_pending) == (placed, 0)


async def test_a_trained_item_keeps_its_trained_vector(replica: Replica) -> None:
    """What its own history says of it is more than its title does."""
    await replica.catalogue.change([said("drama-1", title="Action")])
    assert replica.row("drama-1") == [*ITEM_ROWS["drama-1"]]
    assert encoder_of(replica).num_texts == 0


async def test_what_says_nothing_stands_by_its_categories(replica: Replica) -> None:
    """No text at all, words that the encoder makes nothing of, and one that it cannot read."""
    for text in (None, "", "🎉", "poison"):
        await replica.catalogue.change([said("new", title=text)])
        assert replica.row("new") == [0, 0, 0]
    await replica.catalogue.read_texts()
    assert (replica.row("new"), replica.num_pending) == ([0, 0, 0], 0)


async def test_a_text_that_cannot_be_read_keeps_no_other_from_its_place(
    replica: Replica, store: FakeItems
) -> None:
    """They are read in one call, then each by itself."""
    await store.change([said("bad", title="poison"), said("good", title="Action")])
    await replica.catalogue.follow()
    await replica.catalogue.read_texts()
    assert (replica.row("bad"), replica.row("good")) == ([0, 0, 0], ACTION)


async def test_what_was_said_while_a_text_was_read_wins(replica: Replica, store: FakeItems) -> None:
    """The old text's vector comes too late."""
    await store.change([said("new", title="Action"), said("gone", title="Action")])
    await replica.catalogue.follow()
    async with while_reading(replica):
        assert replica.num_pending == 2
        await store.change([said("new", title="Drama"), said("gone", deleted=True)])
        await replica.catalogue.follow()
    assert replica.row("new") == replica.row("gone") == [0, 0, 0]
    await replica.catalogue.read_texts()
    assert replica.row("new") == DRAMA


async def test_a_model_that_comes_while_a_text_is_read_gets_its_own_vector(
    replica: Replica, store: FakeItems, text_bundle: LoadedBundle
) -> None:
    """What the old encoder says is no vector of the new model."""
    await store.change([said("new", title="Action", categories=["drama"])])
    await replica.catalogue.follow()
    async with while_reading(replica):
        await replica.switch(replace(text_bundle))
    assert replica.row("new") == BY_CATEGORY
    assert replica.num_pending == 1


async def test_many_items_at_once_do_not_wait_for_the_encoder(replica: Replica) -> None:
    """More than one call of the encoder takes: they are read behind the answer."""
    many = [said(f"i{at}", title=f"Night no{at}") for at in range(MAX_TEXTS + 1)]
    await replica.catalogue.change(many)
    assert (encoder_of(replica).num_texts, replica.num_pending) == (0, MAX_TEXTS + 1)
    await replica.catalogue.read_texts()
    await replica.catalogue.read_texts()
    assert replica.row("i0") == replica.row(f"i{MAX_TEXTS}") == NIGHT


@asynccontextmanager
async def while_reading(replica: Replica) -> AsyncIterator[None]:
    """Do what is inside while the encoder is at a text."""
    encoder = encoder_of(replica)
    encoder.may_go_on.clear()
    encoder.asked.clear()
    reading = asyncio.create_task(replica.catalogue.read_texts())
    assert await asyncio.to_thread(encoder.asked.wait, 10)
    yield
    encoder.may_go_on.set()
    await reading
