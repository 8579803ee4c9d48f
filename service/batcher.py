"""Micro-batching without timers around any callable, for the ranker and for Redis alike.

An item that finds the queue idle goes at once; those that arrive while a batch runs form the next.
The batch, never a caller, awaits the callable: a caller that is cancelled just stops waiting, so
it can neither leave a half-read reply in a connection nor take somebody else's.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

from service.errors import NotReady, Overloaded
from service.metrics import Metrics
from service.tracing import Part, begin_part

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Item, Result]):
    """One item, the future of its caller, and when it came (`perf_counter` seconds).

    After `start_by_s`, seconds of the loop's clock, it is too late to begin. `part` is what a
    traced request notes of it, None of any other.
    """

    item: Item
    future: "asyncio.Future[Result]"
    since_s: float
    start_by_s: float | None
    part: Part | None


class Batcher(Generic[Item, Result]):
    """Runs `compute` on the items of concurrent callers, at most `max_batch` at a time.

    `compute` returns one result per item, in order; what it raises is raised to every caller of
    the batch. At most `max_pending` items wait; one more raises Overloaded. Belongs to one loop.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[list[Item]], Awaitable[list[Result]]],
        *,
        max_batch: int,
        max_pending: int,
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._compute = compute
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._metrics = metrics.queue(name)
        # Keyed by future so that a cancelled caller leaves the queue in constant time.
        self._pending: OrderedDict[asyncio.Future[Result], _Waiting[Item, Result]] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: Item, start_by_s: float | None = None) -> Result:
        """Return the result for one item; raises Overloaded, NotReady or what `compute` raised.

        An item that is not begun by a time, seconds of the loop's clock, is not begun at all.
        """
        if self._closed:
            raise NotReady(f"{self._name}: the service is stopping")
        if len(self._pending) >= self._max_pending:
            raise Overloaded(f"{self._name}: {len(self._pending)} items are waiting already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        part = begin_part(self._name)
        self._pending[future] = _Waiting(item, future, perf_counter(), start_by_s, part)
        if self._worker is None:
            # A context of its own: the batch belongs to many requests, not to the first one.
            self._worker = loop.create_task(self._drain(), context=Context())
        try:
            return await future
        finally:
            if self._pending.pop(future, None) is not None and future.cancelled():
                self._metrics.dropped.inc()
            error: BaseException | None = None
            if future.done() and not future.cancelled():
                # Cancelled in the very tick of a failure, a caller would leave it unretrieved.
                error = future.exception()
            if part is not None:
                part.end(asyncio.CancelledError() if future.cancelled() else error)

    async def close(self, grace_s: float = 5.0) -> None:
        """Take nothing more; finish what waits, and fail with NotReady what outlasts the grace."""
        self._closed = True
        if self._worker is None:
            return
        _, unfinished = await asyncio.wait({self._worker}, timeout=grace_s)
        for worker in unfinished:
            worker.cancel()
            await asyncio.wait({worker})

    async def _drain(self) -> None:
        try:
            while self._pending:
                await self._run(self._take())
                # `compute` may not have waited for anything: others get their turn.
                await asyncio.sleep(0)
        finally:
            self._worker = None
            self._fail([*self._pending.values()], NotReady(f"{self._name}: stopped"))

    def _take(self) -> list[_Waiting[Item, Result]]:
        size = min(len(self._pending), self._max_batch)
        batch = [self._pending.popitem(last=False)[1] for _ in range(size)]
        now_s = asyncio.get_running_loop().time()
        return [waiting for waiting in batch if self._is_due(waiting, now_s)]

    def _is_due(self, waiting: _Waiting[Item, Result], now_s: float) -> bool:
        """Say whether an item is still to be done; one whose time is over fails here."""
        is_late = waiting.start_by_s is not None and now_s > waiting.start_by_s
        if is_late and not waiting.future.done():
            waiting.future.set_exception(
                Overloaded(f"{self._name}: not begun before the request's deadline")
            )
        if waiting.future.done():
            self._metrics.dropped.inc()
        return not waiting.future.done()

    async def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        if not batch:
            return
        started_s = perf_counter()
        self._note_begin(batch, started_s)
        try:
            results = await self._checked([waiting.item for waiting in batch])
        except asyncio.CancelledError:
            self._fail(batch, NotReady(f"{self._name}: stopped"))
            raise
        except Exception as exc:  # noqa: BLE001  # not swallowed: raised to every caller
            self._fail(batch, exc)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(result)
        self._metrics.compute_seconds.observe(perf_counter() - started_s)

    def _note_begin(self, batch: list[_Waiting[Item, Result]], now_s: float) -> None:
        for waiting in batch:
            self._metrics.queue_seconds.observe(now_s - waiting.since_s)
            if waiting.part is not None:
                waiting.part.begin(len(batch))
        self._metrics.batch_size.observe(len(batch))

    async def _checked(self, items: list[Item]) -> list[Result]:
        results = await self._compute(items)
        if len(results) != len(items):
            raise RuntimeError(f"{self._name}: {len(results)} results for {len(items)} items")
        return results

    @staticmethod
    def _fail(batch: list[_Waiting[Item, Result]], error: Exception) -> None:
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_exception(error)
