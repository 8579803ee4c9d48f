"""The composition root: what the service is made of, built here and nowhere else."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TypedDict

from fastapi import FastAPI

from service.api import events, health, page, recommend, users
from service.api.dependencies import People, Services
from service.batcher import Batcher
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.events import Event
from service.errors import BundleRefused, ServiceError
from service.fallback import LivePopularity, PopularCounts
from service.logs import configure_logs, get_logger
from service.metrics import Metrics
from service.middleware import BodyLimitMiddleware, RequestMiddleware
from service.problems import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from service.problems import register_problem_handlers
from service.recommender import Ranked, RankingThread, RankJob, Recommender
from service.store.client import connect
from service.store.counters import CounterStore
from service.store.history import History, HistoryStore, system_now_ms
from service.store.outcomes import Appended

Clock = Callable[[], int]
# What uvicorn's supervisor takes for "would fail the same way on every restart".
STARTUP_FAILURE = 3

DESCRIPTION = (
    "Recommendations from where and when people act. Post an event, and the next answer knows it. "
    "Errors are `application/problem+json`, and no input of a client is answered with a 500."
)


class EventHistory(Protocol):
    """The store of histories, as the service uses it; see `HistoryStore`."""

    @property
    def people(self) -> People:
        """Return what shows, erases and merges users in the same store."""
        ...

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Store events; say of each what became of it."""
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


class LifespanState(TypedDict):
    """What requests find in `request.state`."""

    services: Services


def create_app(
    settings: Settings,
    *,
    history: EventHistory | None = None,
    counters: PopularCounts | None = None,
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
            loaded = (
                bundle if bundle is not None else await asyncio.to_thread(_load_bundle, settings)
            )
            now_ms = clock or system_now_ms
            stores = _stores(
                stack, settings, metrics, history=history, counters=counters, clock=now_ms
            )
            yield {
                "services": _services(
                    stack, settings, metrics=metrics, bundle=loaded, stores=stores, clock=now_ms
                )
            }

    app = ServiceApi(
        title="Sojourn", version=_own_version(), description=DESCRIPTION, lifespan=lifespan
    )
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(RequestMiddleware, metrics=metrics)
    register_problem_handlers(app)
    # Users last: a user id takes what is left of a path, slashes too.
    for part in (recommend, events, health, page, users):
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
        bundle = _load_bundle(settings)
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


def _load_bundle(settings: Settings) -> LoadedBundle:
    return load_bundle(settings.bundle_path, num_threads=settings.onnx_threads)


def _stores(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    *,
    history: EventHistory | None,
    counters: PopularCounts | None,
    clock: Clock,
) -> tuple[EventHistory, PopularCounts]:
    """Return the stores that were given, or those at the settings' Redis; nothing connects yet."""
    if history is not None and counters is not None:
        return history, counters
    client = connect(settings)
    stack.push_async_callback(client.aclose)
    if history is None:
        history = own = HistoryStore(client, settings, metrics, clock)
        stack.push_async_callback(own.close)
    return history, counters or CounterStore(client, settings, metrics)


def _services(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    metrics: Metrics,
    bundle: LoadedBundle,
    stores: tuple[EventHistory, PopularCounts],
    clock: Clock,
) -> Services:
    history, counters = stores
    metrics.set_bundle(bundle.manifest.bundle_version, bundle.manifest.name)
    thread = RankingThread(bundle.ranker)
    stack.callback(thread.close)
    ranking: Batcher[RankJob, Ranked] = Batcher(
        "ranker",
        thread.rank,
        max_batch=settings.max_batch,
        max_pending=settings.max_pending,
        metrics=metrics,
    )
    stack.push_async_callback(ranking.close)
    live = LivePopularity(counters, bundle.vocabulary, clock)
    stopping = asyncio.Event()
    refreshing = asyncio.create_task(_keep_fresh(live, settings.popularity_refresh_s, stopping))
    stack.push_async_callback(_end, refreshing, stopping)
    recommender = Recommender(
        bundle=bundle,
        history=history,
        ranking=ranking,
        live=live,
        metrics=metrics,
        clock=clock,
        default_tz_offset_min=settings.default_tz_offset_min,
        deadline_ms=settings.request_deadline_ms,
    )
    return Services(
        recommender=recommender,
        history=history,
        people=history.people,
        metrics=metrics,
        clock=clock,
        max_future_ms=settings.max_future_ms,
        model_version=bundle.manifest.bundle_version,
    )


async def _keep_fresh(live: LivePopularity, refresh_s: float, stopping: asyncio.Event) -> None:
    """Refresh what is popular until told to stop; while Redis is away the list stays as it was."""
    log = get_logger(__name__)
    while not stopping.is_set():
        try:
            await live.refresh()
        except ServiceError as exc:
            log.warning("popularity not refreshed", reason=str(exc))
        with suppress(TimeoutError):
            async with asyncio.timeout(refresh_s):
                await stopping.wait()


async def _end(task: "asyncio.Task[None]", stopping: asyncio.Event) -> None:
    """Tell the task to stop and wait for it.

    It is not cancelled: a first Redis call on a new connection was seen to swallow the
    cancellation, and the process then never ended. Its calls are bounded by their timeouts.
    """
    stopping.set()
    await task
