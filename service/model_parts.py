"""The part of the composition root that builds what serves and switches models."""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.bundle_folder import BundleFolder
from service.bundle_loader import LoadedBundle, load_bundle
from service.catalogue import ItemStore, LiveCatalogue
from service.config import Settings
from service.errors import StoreUnavailable
from service.fallback import LivePopularity, PopularCounts
from service.logs import get_logger
from service.metrics import Metrics
from service.model_loader import ModelLoader
from service.models import Announcements, ModelRegistry
from service.periodic import repeating
from service.presence import Presence, Reports
from service.process_memory import limit_bytes, private_bytes
from service.serving_model import ModelSlot, ServingModel, open_model
from service.starting import first_bundle
from service.store.announcements import Announced, ModelAnnouncements
from service.store.breaker import Circuits
from service.store.client import connect
from service.store.serving_reports import ServingReports

Clock = Callable[[], int]
# How often the file CURRENT is looked at.
WATCH_S = 1.0
# What is kept in memory of a user is gone at most so long after its time.
EXPIRE_S = 10.0
# How often this process looks how much memory it has.
MEMORY_S = 5.0
# Between two calls of the text encoder, for requests that wait for the core.
READ_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class ModelStores:
    """What processes tell each other about models; None where there is one bundle only."""

    announcements: Announcements | None = None
    reports: Reports | None = None


@dataclass(frozen=True, slots=True)
class ModelParts:
    """The model of the moment, what switches it, and what says so to the others."""

    slot: ModelSlot
    catalogue: LiveCatalogue
    registry: ModelRegistry
    presence: Presence


async def load_first(
    settings: Settings, announcements: Announcements | None = None
) -> LoadedBundle:
    """Load the bundle to start with: the announced one, or what CURRENT names if that is later.

    While Redis cannot be asked it is what CURRENT names. Raises BundleRefused.
    """
    folder = BundleFolder(settings.bundle_path)
    announced: Announced | None = None
    if not folder.holds_one():
        async with AsyncExitStack() as stack:
            stores = _stores(stack, settings, Metrics(), ModelStores(announcements), None)
            try:
                announced = await stores.announcements.read() if stores.announcements else None
            except StoreUnavailable as exc:
                get_logger(__name__).warning("announced model unknown", reason=str(exc))
    return await asyncio.to_thread(first_bundle, folder, announced, partial(_load, settings))


async def build_models(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    *,
    bundle: LoadedBundle,
    counts: PopularCounts,
    items: ItemStore,
    given: ModelStores,
    clock: Clock,
    circuits: Circuits,
) -> ModelParts:
    """Serve a bundle, and begin to follow, watch and report until the stack ends.

    A bundle from outside the folder of the settings is the only one.
    """
    is_of_folder = bundle.path.parent == settings.bundle_path
    folder = BundleFolder(settings.bundle_path if is_of_folder else bundle.path)
    stores = ModelStores()
    if not folder.holds_one():
        stores = _stores(stack, settings, metrics, given, circuits)
    live = LivePopularity(counts, bundle.vocabulary, clock)
    slot = ModelSlot(*open_model(bundle, live, settings, metrics))
    stack.push_async_callback(slot.close)
    catalogue = LiveCatalogue(items, slot, bundle, metrics)
    registry = ModelRegistry(
        folder=folder,
        announcements=stores.announcements,
        slot=slot,
        loader=ModelLoader(folder, partial(_load, settings), metrics),
        open_model=partial(_open_next, settings, metrics, catalogue),
        metrics=metrics,
        clock=clock,
    )
    presence = Presence(_own_name(), registry, stores.reports, clock)
    parts = ModelParts(slot, catalogue, registry, presence)
    await _begin(stack, settings, metrics, parts)
    return parts


def _load(settings: Settings, path: Path) -> LoadedBundle:
    return load_bundle(path, num_threads=settings.onnx_threads)


async def _open_next(
    settings: Settings,
    metrics: Metrics,
    catalogue: LiveCatalogue,
    bundle: LoadedBundle,
    before: ServingModel,
) -> tuple[ServingModel, AsyncExitStack]:
    view = await catalogue.view_of(bundle)
    return open_model(view, before.live.for_vocabulary(view.vocabulary), settings, metrics)


def _stores(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    given: ModelStores,
    circuits: Circuits | None,
) -> ModelStores:
    """Return the stores that were given, or those at the settings' Redis; nothing connects yet."""
    if given.announcements is not None:
        return given
    # A client of its own: a burst of requests must not take the connection of the poll.
    client = connect(settings, circuits)
    stack.push_async_callback(client.aclose)
    return ModelStores(ModelAnnouncements(client, metrics), ServingReports(client, metrics))


def _own_name() -> str:
    # Processes of different containers may share a host's name and a process id.
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"


async def _begin(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, parts: ModelParts
) -> None:
    async def refresh() -> None:
        await parts.slot.current.live.refresh()

    async def expire() -> None:
        parts.slot.current.readings.expire()

    async def note_memory() -> None:
        private, limit = private_bytes(), limit_bytes()
        if private is not None and limit is not None:
            metrics.private_memory.set(private)
            metrics.memory_limit.set(limit)

    with suppress(StoreUnavailable):
        # Before the first answer: what callers took away must not be shown after a restart.
        await parts.catalogue.follow()
    poll_s = settings.model_poll_ms / 1000
    work = [
        ("refresh popularity", refresh, settings.popularity_refresh_s),
        ("follow catalogue", parts.catalogue.follow, settings.catalogue_poll_ms / 1000),
        ("follow models", parts.registry.follow, poll_s),
        ("report model", parts.presence.report, poll_s),
        ("forget readings", expire, EXPIRE_S),
        ("note memory", note_memory, MEMORY_S),
        ("read texts", parts.catalogue.read_texts, READ_PAUSE_S),
    ]
    if settings.watch_bundles:
        work.append(("watch bundles", parts.registry.watch, WATCH_S))
    for name, action, every_s in work:
        await stack.enter_async_context(repeating(name, action, every_s=every_s, metrics=metrics))
    # Before the work ends, which would wait for a text that nobody sends any more.
    stack.callback(parts.catalogue.close)
