"""The composition root: what the service is made of, built here and nowhere else."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypedDict

from fastapi import FastAPI

from service.answering import Answers, ListKeeper
from service.api import events, health, models, page, recommend
from service.api.dependencies import Services
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.errors import BundleRefused
from service.exposures import ExposureRecords, Exposures
from service.fallback import PopularCounts
from service.logs import configure_logs, get_logger
from service.metrics import Metrics
from service.middleware import BodyLimitMiddleware, RequestMiddleware
from service.model_parts import ModelStores, build_models, load_first
from service.models import Announcements
from service.presence import Reports
from service.problems import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from service.problems import register_problem_handlers
from service.recommender import Recommender
from service.serving_model import ModelSlot
from service.store.history import system_now_ms
from service.store.keys import new_recommendation_id
from service.store_parts import EventHistory, GivenStores, Stores, open_stores

Clock = Callable[[], int]
# What uvicorn's supervisor takes for "would fail the same way on every restart".
STARTUP_FAILURE = 3

DESCRIPTION = (
    "Recommendations from where and when people act. Post an event, and the next answer knows it. "
    "Errors are `application/problem+json`, and no input of a client is answered with a 500."
)


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
    exposures: ExposureRecords | None = None,
    lists: ListKeeper | None = None,
    announcements: Announcements | None = None,
    reports: Reports | None = None,
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
                given=GivenStores(history, counters, exposures, lists),
                given_models=ModelStores(announcements, reports),
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


async def _services(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    metrics: Metrics,
    bundle: LoadedBundle,
    given: GivenStores,
    given_models: ModelStores,
    clock: Clock,
) -> Services:
    stores = open_stores(stack, settings, metrics, given)
    parts = await build_models(
        stack,
        settings,
        metrics,
        bundle=bundle,
        counts=stores.counters,
        given=given_models,
        clock=clock,
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
        models=parts.registry,
        presence=parts.presence,
        history=stores.history,
        exposures=exposures,
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
    )
    return Recommender(
        models=slot,
        history=stores.history,
        showings=exposures,
        answers=answers,
        clock=clock,
        default_tz_offset_min=settings.default_tz_offset_min,
        deadline_ms=settings.request_deadline_ms,
    )
