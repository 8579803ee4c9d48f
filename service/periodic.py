"""Work that is done again and again beside the requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from service.errors import ServiceError
from service.logs import get_logger
from service.metrics import Metrics


@asynccontextmanager
async def repeating(
    name: str, action: Callable[[], Awaitable[None]], *, every_s: float, metrics: Metrics
) -> AsyncIterator[None]:
    """Run an action at once and then every so many seconds, until the context ends.

    What fails is logged, once for each new reason, and tried again at the next turn.
    """
    stopping = asyncio.Event()
    task = asyncio.create_task(_repeat(name, action, every_s, metrics, stopping))
    try:
        yield
    finally:
        # It is not cancelled: a first Redis call on a new connection was seen to swallow the
        # cancellation, and the process then never ended. Its calls are bounded by their timeouts.
        stopping.set()
        await task


async def _repeat(
    name: str,
    action: Callable[[], Awaitable[None]],
    every_s: float,
    metrics: Metrics,
    stopping: asyncio.Event,
) -> None:
    log = get_logger(__name__)
    reason = ""
    while not stopping.is_set():
        before, reason = reason, ""
        try:
            await action()
        except ServiceError as exc:
            reason = str(exc)
            if reason != before:
                log.warning("repeated work failed", work=name, reason=reason)
        except Exception:  # the outermost edge: a bug must not end the work for good
            metrics.unhandled_errors.inc()
            log.exception("repeated work met a bug", work=name)
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await stopping.wait()
