"""The composition root: what the service is made of, built here and nowhere else."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypedDict

from fastapi import FastAPI

from service.api import events, health, models, page, recommend
from service.api.dependencies import Services
from service.bundle_folder import BundleFolder
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.events import Event
from service.errors import BundleRefused, StoreUnavailable
from service.fallback import LivePopularity, PopularCounts
from service.logs import configure_logs, get_logger
from service.metrics import Metrics
from service.middleware import BodyLimitMiddleware, RequestMiddleware
from service.model_loader import ModelLoader
from service.models import Announcements, ModelRegistry
from service.periodic import repeating
from service.problems import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from service.problems import register_problem_handlers
from service.recommender import Recommender
from service.serving_model import ModelSlot, ServingModel, open_model
from service.starting import first_bundle
from service.store.announcements import Announced, ModelAnnouncements
from service.store.client import connect
from service.store.counters import CounterStore
from service.store.history import History, HistoryStore, system_now_ms

Clock = Callable[[], int]
# What uvicorn's supervisor takes for "would fail the same way on every restart".
STARTUP_FAILURE = 3
# How often the file CURRENT is looked at.
WATCH_S = 1.0

DESCRIPTION = (
    "Recommendations from where and when people act. Post an event, and the next answer knows it. "
    "Errors are `application/problem+json`, and no input of a client is answered with a 500."
)


class EventHistory(Protocol):
    """The store of histories, as the service uses it; see `HistoryStore`."""

    async def append(self, events: Sequence[Event]) -> list[bool]:
        """Store events; True for each that is new."""
        ...

    async def read(self, user_id: str) -> History:
        """Return all that is stored of a user."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...


class ServiceApi(FastAPI):
    """FastAPI whose description says that errors are problems and nothing else."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; the framework would add plain JSON to every error."""
        document = super().openapi()
        for path in document["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    content = response.get("content", {})
                    if PROBLEM_MEDIA_TYPE in content:
                        content.pop("application/json", None)
        return document


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores that `create_app` was given; None are built from the settings."""

    history: EventHistory | None
    counters: PopularCounts | None
    announcements: Announcements | None


class LifespanState(TypedDict):
    """What requests find in `request.state`."""

    services: Services


def create_app(
    settings: Settings,
    *,
    history: EventHistory | None = None,
    counters: PopularCounts | None = None,
    announcements: Announcements | None = None,
    bundle: LoadedBundle | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """Assemble the application; parts that are not given are built from the settings.

    Raises nothing for a Redis that is down: the service starts, answers degraded, and is ready
    once Redis is. A bundle that is refused fails the start.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[LifespanState]:
        async with AsyncExitStack() as stack:
            services = await _services(
                stack,
                settings,
                metrics=metrics,
                bundle=bundle or await load_first(settings, announcements),
                given=Stores(history, counters, announcements),
                clock=clock or system_now_ms,
            )
            yield {"services": services}

    app = ServiceApi(
        title="Sojourn", version=_own_version(), description=DESCRIPTION, lifespan=lifespan
    )
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(RequestMiddleware, metrics=metrics)
    register_problem_handlers(app)
    for part in (recommend, events, models, health, page):
        app.include_router(part.router)
    return app


def create_app_from_environment() -> FastAPI:
    """Build the application of one worker process; a refused bundle ends the process."""
    settings = Settings()
    configure_logs(
        level=settings.log_level,
        as_json=settings.log_json,
        user_ids=settings.log_user_ids,
        user_key=settings.log_user_key.get_secret_value(),
    )
    try:
        # The server's loop runs already, and this function may not wait in it.
        with ThreadPoolExecutor(max_workers=1) as thread:
            bundle = thread.submit(asyncio.run, load_first(settings)).result()
    except BundleRefused as exc:
        get_logger(__name__).error("bundle refused", reason=str(exc))
        sys.exit(STARTUP_FAILURE)
    return create_app(settings, bundle=bundle)


def _own_version() -> str:
    try:
        return version("sojourn")
    except PackageNotFoundError:
        # Run from a checkout that is not installed.
        return "0"


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
            try:
                asked = announcements or _announcements(stack, settings, Metrics())
                announced = await asked.read()
            except StoreUnavailable as exc:
                get_logger(__name__).warning("announced model unknown", reason=str(exc))
    return await asyncio.to_thread(first_bundle, folder, announced, partial(_load, settings))


def _load(settings: Settings, path: Path) -> LoadedBundle:
    return load_bundle(path, num_threads=settings.onnx_threads)


def _announcements(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics
) -> ModelAnnouncements:
    client = connect(settings)
    stack.push_async_callback(client.aclose)
    return ModelAnnouncements(client, metrics)


def _stores(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, given: Stores
) -> tuple[EventHistory, PopularCounts]:
    """Return the stores that were given, or those at the settings' Redis; nothing connects yet."""
    history, counters = given.history, given.counters
    if history is not None and counters is not None:
        return history, counters
    client = connect(settings)
    stack.push_async_callback(client.aclose)
    if history is None:
        history = own = HistoryStore(client, settings, metrics)
        stack.push_async_callback(own.close)
    return history, counters or CounterStore(client, settings, metrics)


async def _services(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    metrics: Metrics,
    bundle: LoadedBundle,
    given: Stores,
    clock: Clock,
) -> Services:
    history, counters = _stores(stack, settings, metrics, given)
    live = LivePopularity(counters, bundle.vocabulary, clock)
    slot = ModelSlot(*open_model(bundle, live, settings, metrics))
    stack.push_async_callback(slot.close)
    models = _registry(stack, settings, metrics, slot=slot, given=given, clock=clock)
    await _repeat(stack, settings, metrics, slot=slot, models=models)
    recommender = Recommender(
        models=slot,
        history=history,
        metrics=metrics,
        clock=clock,
        default_tz_offset_min=settings.default_tz_offset_min,
        deadline_ms=settings.request_deadline_ms,
    )
    return Services(
        recommender=recommender,
        models=models,
        history=history,
        metrics=metrics,
        clock=clock,
        max_future_ms=settings.max_future_ms,
    )


def _registry(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    *,
    slot: ModelSlot,
    given: Stores,
    clock: Clock,
) -> ModelRegistry:
    """Return what switches models; a bundle from outside the settings' folder has no others."""
    path = slot.current.bundle.path
    folder = BundleFolder(settings.bundle_path if path.parent == settings.bundle_path else path)
    announcements = given.announcements
    if announcements is None and not folder.holds_one():
        announcements = _announcements(stack, settings, metrics)

    def open_next(
        bundle: LoadedBundle, before: ServingModel
    ) -> tuple[ServingModel, AsyncExitStack]:
        live = before.live.for_vocabulary(bundle.vocabulary)
        return open_model(bundle, live, settings, metrics)

    return ModelRegistry(
        folder=folder,
        announcements=None if folder.holds_one() else announcements,
        slot=slot,
        loader=ModelLoader(folder, partial(_load, settings), metrics),
        open_model=open_next,
        metrics=metrics,
        clock=clock,
    )


async def _repeat(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    *,
    slot: ModelSlot,
    models: ModelRegistry,
) -> None:
    """Begin what goes on beside the requests, until the stack ends."""

    async def refresh() -> None:
        await slot.current.live.refresh()

    work = [
        ("popularity", refresh, settings.popularity_refresh_s),
        ("follow announced model", models.follow, settings.model_poll_ms / 1000),
    ]
    if settings.watch_bundles:
        work.append(("watch bundles", models.watch, WATCH_S))
    for name, action, every_s in work:
        await stack.enter_async_context(repeating(name, action, every_s=every_s, metrics=metrics))
