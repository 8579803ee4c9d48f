"""The composition root: what the service is made of, built here and nowhere else."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypedDict

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.telemetry import TelemetryConfig

from service.answering import Answers, ListKeeper
from service.api import events, health, items, models, page, recommend, users
from service.api.dependencies import SAME_ROUTE, Services
from service.bundle_loader import LoadedBundle
from service.catalogue import ItemStore
from service.config import Settings
from service.errors import BundleRefused, KeysRefused
from service.exposures import ExposureRecords, Exposures
from service.fallback import PopularCounts
from service.gate_parts import open_gate
from service.logs import configure_logs, get_logger
from service.metrics import Metrics
from service.middleware import BodyLimitMiddleware, RequestMiddleware
from service.model_parts import ModelStores, build_models, load_first
from service.models import Announcements
from service.presence import Reports
from service.problems import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from service.problems import register_problem_handlers
from service.recommender import Recommender
from service.security.gate import Gate
from service.security.keys import read_key_file
from service.security.limits import SharedTokens
from service.security.middleware import (
    ConcurrencyMiddleware,
    GuardMiddleware,
    SecurityHeadersMiddleware,
)
from service.security.openapi import add_security
from service.security.scopes import AccessTable
from service.serving_model import ModelSlot
from service.store.breaker import Circuits
from service.store.history import system_now_ms
from service.store.keys import new_recommendation_id
from service.store_parts import EventHistory, GivenStores, Stores, open_stores
from service.tracing import check_telemetry

if TYPE_CHECKING:
    from service.telemetry import Telemetry

Clock = Callable[[], int]
# What uvicorn's supervisor takes for "would fail the same way on every restart".
STARTUP_FAILURE = 3

CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID")
CORS_ANSWER_HEADERS = (
    "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "X-Request-ID",
)  # fmt: skip

DESCRIPTION = (
    "Recommendations from where and when people act. Post an event, and the next answer knows it. "
    "Errors are `application/problem+json`, and no input of a client is answered with a 500."
)
# New objects before the collector looks at them, and its rounds before it looks at older ones. A
# request leaves about eight for it; Python's own 700 made a look every 90 requests, of which one in
# ten took 2 ms, and with that the slowest hundredth of the answers twice as long.
GARBAGE_THRESHOLDS = (20_000, 20, 20)


# The framework's own spans have paths and queries in them, which are of users; it would make some
# as soon as anybody set a global provider.
NO_OTHER_TELEMETRY: TelemetryConfig = {
    "tracing": False, "metrics": False, "logs": False, "auto_configure": False,
}  # fmt: skip


class ServiceApi(FastAPI):
    """FastAPI whose description says that errors are problems, and which scopes are asked for."""

    asks_for_keys = False

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; the framework would add plain JSON to every error."""
        document = super().openapi()
        for path in document["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    content = response.get("content", {})
                    if PROBLEM_MEDIA_TYPE in content:
                        content.pop("application/json", None)
        if self.asks_for_keys:
            add_security(document)
        return document


class LifespanState(TypedDict):
    """What requests find in `request.state`."""

    services: Services
    gate: Gate | None


def create_app(
    settings: Settings,
    *,
    history: EventHistory | None = None,
    counters: PopularCounts | None = None,
    exposures: ExposureRecords | None = None,
    lists: ListKeeper | None = None,
    live_items: ItemStore | None = None,
    announcements: Announcements | None = None,
    reports: Reports | None = None,
    bundle: LoadedBundle | None = None,
    tokens: SharedTokens | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """Assemble the application; parts that are not given are built from the settings.

    Raises nothing for a Redis that is down: the service starts, answers degraded, and is ready
    once Redis is. A bundle or a file of keys that is refused fails the start.
    """
    metrics = Metrics()
    telemetry = _open_telemetry(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[LifespanState]:
        # What any client learns of a server that is away, all of them know.
        circuits = Circuits(settings, metrics)
        async with AsyncExitStack() as stack:
            if telemetry is not None:
                stack.push_async_callback(asyncio.to_thread, telemetry.close)
            services = await _services(
                stack,
                settings,
                metrics=metrics,
                bundle=bundle or await load_first(settings, announcements),
                given=GivenStores(history, counters, exposures, lists, live_items),
                given_models=ModelStores(announcements, reports),
                clock=clock or system_now_ms,
                circuits=circuits,
            )
            gate = open_gate(
                stack,
                settings,
                metrics,
                tokens=tokens,
                clock=clock or system_now_ms,
                circuits=circuits,
            )
            yield {"services": services, "gate": gate}

    return _assembled(settings, metrics, telemetry, lifespan)


def _assembled(
    settings: Settings,
    metrics: Metrics,
    telemetry: "Telemetry | None",
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[LifespanState]],
) -> FastAPI:
    """Return the application around a lifespan: middleware, problems, routes."""
    has_keys = settings.keys_file is not None
    app = ServiceApi(
        title="Sojourn",
        version=_own_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        dependencies=[SAME_ROUTE] if has_keys else [],
        telemetry=NO_OTHER_TELEMETRY,
    )
    app.asks_for_keys = has_keys
    _add_middleware(app, settings, metrics, telemetry)
    register_problem_handlers(app, AccessTable().methods)
    # Users last: a user id takes what is left of a path, slashes too.
    recommend.add_to(app)
    for part in (events, items, models, health, page, users):
        app.include_router(part.router)
    return app


def _add_middleware(
    app: FastAPI, settings: Settings, metrics: Metrics, telemetry: "Telemetry | None"
) -> None:
    """Add what every request passes; the last one added is the outermost."""
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    if settings.keys_file is not None:
        app.add_middleware(GuardMiddleware, table=AccessTable())
    limit = settings.max_concurrency
    app.add_middleware(ConcurrencyMiddleware, max_concurrency=limit, metrics=metrics)
    if settings.cors_origins:
        # Outside the guard: a browser asks before it sends the key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=CORS_METHODS,
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_ANSWER_HEADERS,
        )
    if telemetry is not None:
        # Inside the one that gives a request its id.
        app.add_middleware(telemetry.middleware)
    app.add_middleware(RequestMiddleware, metrics=metrics)
    app.add_middleware(SecurityHeadersMiddleware)


def create_app_from_environment() -> FastAPI:
    """Build the application of one worker process; a refused bundle ends the process."""
    # What was imported stays, with some 1,600 objects of garbage: to look for them among all the
    # others would take an eighth of a second.
    gc.freeze()
    settings = Settings()
    configure_logs(
        level=settings.log_level,
        as_json=settings.log_json,
        user_ids=settings.log_user_ids,
        user_key=settings.log_user_key.get_secret_value(),
    )
    try:
        if settings.keys_file is not None:
            read_key_file(settings.keys_file)
        # The server's loop runs already, and this function may not wait in it.
        with ThreadPoolExecutor(max_workers=1) as thread:
            bundle = thread.submit(asyncio.run, load_first(settings)).result()
    except (BundleRefused, KeysRefused) as exc:
        get_logger(__name__).error(exc.title.lower(), reason=str(exc))
        sys.exit(STARTUP_FAILURE)
    app = create_app(settings, bundle=bundle)
    # What is there now stays: a full collection would walk over all of it, 44 ms each time, and
    # dirty the pages. Objects of later requests and models are collected as ever.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    # The command line turns it off while one worker starts.
    gc.enable()
    return app


def _open_telemetry(settings: Settings) -> "Telemetry | None":
    """Return what traces requests, None if nobody wants that; raises TelemetryMissing."""
    if settings.traces_endpoint is None:
        return None
    check_telemetry(settings.traces_endpoint)
    # An extra: who wants no traces loads nothing of it.
    from service.telemetry import Telemetry  # noqa: PLC0415  # as above

    return Telemetry(settings.traces_endpoint, settings.traces_ratio, _own_version())


def _own_version() -> str:
    try:
        return version("sojourn")
    except PackageNotFoundError:
        # Run from a checkout that is not installed.
        return "0"


async def _services(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    metrics: Metrics,
    bundle: LoadedBundle,
    given: GivenStores,
    given_models: ModelStores,
    clock: Clock,
    circuits: Circuits,
) -> Services:
    stores = open_stores(stack, settings, metrics, given, clock=clock, circuits=circuits)
    parts = await build_models(
        stack,
        settings,
        metrics,
        bundle=bundle,
        counts=stores.counters,
        items=stores.items,
        given=given_models,
        clock=clock,
        circuits=circuits,
    )
    exposures = Exposures(
        stores.exposures, metrics, max_pending=settings.max_pending, is_on=settings.log_exposures
    )
    stack.push_async_callback(exposures.close)
    return Services(
        recommender=_recommender(
            settings,
            metrics=metrics,
            slot=parts.slot,
            stores=stores,
            exposures=exposures,
            clock=clock,
        ),
        catalogue=parts.catalogue,
        models=parts.registry,
        presence=parts.presence,
        history=stores.history,
        people=stores.history.people,
        exposures=exposures,
        circuits=circuits,
        metrics=metrics,
        clock=clock,
        max_future_ms=settings.max_future_ms,
        blends=settings.blends,
    )


def _recommender(
    settings: Settings,
    *,
    metrics: Metrics,
    slot: ModelSlot,
    stores: Stores,
    exposures: Exposures,
    clock: Clock,
) -> Recommender:
    answers = Answers(
        lists=stores.lists,
        exposures=exposures,
        metrics=metrics,
        clock=clock,
        new_id=partial(new_recommendation_id, num_partitions=settings.num_partitions),
        drift_every=settings.drift_every,
    )
    return Recommender(
        models=slot,
        history=stores.history,
        showings=exposures,
        answers=answers,
        clock=clock,
        default_tz_offset_min=settings.default_tz_offset_min,
        deadline_ms=settings.request_deadline_ms,
        explain_events=settings.explain_events,
    )
