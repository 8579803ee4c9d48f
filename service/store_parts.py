"""The part of the composition root that builds what keeps data."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from service.answering import ListKeeper
from service.api.dependencies import People
from service.catalogue import ItemStore
from service.config import Settings
from service.contract.events import Event
from service.exposures import ExposureRecords
from service.fallback import PopularCounts
from service.metrics import Metrics
from service.store.breaker import Circuits
from service.store.catalogue import CatalogueStore
from service.store.client import connect
from service.store.counters import CounterStore
from service.store.exposures import ExposureStore
from service.store.history import HistoryStore, PackedHistory
from service.store.lists import ListStore
from service.store.outcomes import Appended


class EventHistory(Protocol):
    """The store of histories, as the service uses it; see `HistoryStore`."""

    @property
    def people(self) -> People:
        """Return what shows, erases and merges users in the same store."""
        ...

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Store events; say of each what became of it."""
        ...

    async def read_packed(self, user_id: str) -> PackedHistory:
        """Return all that is stored of a user."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...


@dataclass(frozen=True, slots=True)
class GivenStores:
    """The stores that a caller brings; None are built from the settings."""

    history: EventHistory | None = None
    counters: PopularCounts | None = None
    exposures: ExposureRecords | None = None
    lists: ListKeeper | None = None
    items: ItemStore | None = None


@dataclass(frozen=True, slots=True)
class Stores:
    """Every store of the service."""

    history: EventHistory
    counters: PopularCounts
    exposures: ExposureRecords
    lists: ListKeeper
    items: ItemStore


def open_stores(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    given: GivenStores,
    *,
    clock: Callable[[], int],
    circuits: Circuits,
) -> Stores:
    """Return the stores that were given, or those at the settings' Redis; nothing connects yet."""
    history, exposures = given.history, given.exposures
    if history and given.counters and exposures and given.lists and given.items:
        return Stores(history, given.counters, exposures, given.lists, given.items)
    client = connect(settings, circuits)
    stack.push_async_callback(client.aclose)
    if history is None:
        history = own_history = HistoryStore(client, settings, metrics, clock)
        stack.push_async_callback(own_history.close)
    return Stores(
        history=history,
        counters=given.counters or CounterStore(client, settings, metrics),
        exposures=exposures or ExposureStore(client, settings, metrics),
        lists=given.lists or ListStore(client, settings, metrics),
        items=given.items or CatalogueStore(client, settings, metrics),
    )
