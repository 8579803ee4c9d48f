"""Sends events from a task of its own, in batches, and loses none when the program ends."""

import asyncio
import atexit
import os
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from sojourn_client import calls
from sojourn_client.answers import EventsStored
from sojourn_client.async_client import AsyncSojourn
from sojourn_client.errors import NotDelivered, QueueFull, SenderClosed
from sojourn_client.events import Event
from sojourn_client.outbox import Outbox, Rejection, SenderCounts, SenderOptions, report


class AsyncEventSender:
    """Posts events in the background of an event loop; see `EventSender` and `SenderOptions`.

    Use it with `async with`. A program that ends without leaving that writes what is left to the
    spool at its exit, when there is no loop any more to deliver it. The client stays open.
    """

    def __init__(self, client: AsyncSojourn, options: SenderOptions | None = None) -> None:
        self.options = options or SenderOptions()
        self._client = client
        self._pid = os.getpid()
        self._outbox = Outbox(self.options)
        # Replaced at every change, so that whoever waits for one sees the next one.
        self._changed = asyncio.Event()
        self._num_flushing = 0
        self._is_closing = False
        self._has_ended = False
        self._task: asyncio.Task[None] | None = None
        atexit.register(self._end)

    async def __aenter__(self) -> "AsyncEventSender":
        """Begin to send, what is in the spool first."""
        damages = self._outbox.restore(time.monotonic())
        self._task = asyncio.create_task(self._run(), name="sojourn-events")
        report(self.options, errors=damages)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Deliver or spool what is left."""
        await self.close()

    @property
    def counts(self) -> SenderCounts:
        """What was done so far, and what is pending."""
        return self._outbox.counts

    async def send(self, event: Event) -> None:
        """Take an event for delivery.

        Raises QueueFull if there was no room in `put_timeout_s`, and SenderClosed before
        `async with` and after `close`. It was not taken then.
        """
        await self._until(
            lambda: not self._outbox.is_full or self._is_closing, self.options.put_timeout_s
        )
        if self._is_closing or self._task is None:
            raise SenderClosed("the sender is not open")
        if self._outbox.is_full:
            raise QueueFull(f"{self.options.max_queue} events wait already")
        self._outbox.put(event, time.monotonic())
        self._notify()

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything that was taken before is delivered; raises NotDelivered in time.

        The events stay in the queue then, and are still sent.
        """
        goal = self._outbox.num_put
        self._num_flushing += 1
        self._notify()
        try:
            await self._until(
                lambda: self._outbox.num_settled >= goal or self._has_ended, timeout_s
            )
        finally:
            self._num_flushing -= 1
        num_left = goal - self._outbox.num_settled
        if num_left > 0:
            raise NotDelivered(f"{num_left} events are not delivered yet")

    async def close(self, grace_s: float | None = None) -> None:
        """Deliver what is left, or write it to the spool; raises NotDelivered if neither was done.

        A second call does nothing.
        """
        self._is_closing = True
        self._notify()
        try:
            if self._task is not None and not self._has_ended:
                grace = self.options.grace_s if grace_s is None else grace_s
                await asyncio.wait({self._task}, timeout=grace)
        finally:
            # A call that still hangs is given up; its batch is sent again, as duplicates.
            if self._task is not None:
                self._task.cancel()
            self._end()
            self._notify()

    def _end(self) -> None:
        # What a child of a fork has is the parent's, which delivers and spools it.
        if not self._has_ended and os.getpid() == self._pid:
            self._has_ended = True
            atexit.unregister(self._end)
            self._outbox.end()

    def _notify(self) -> None:
        """Wake everybody who waits for a change; nothing runs between a look and a wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, is_so: Callable[[], bool], timeout_s: float | None) -> None:
        """Wait until something is so, or for as long as said."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    await self._changed.wait()
        except TimeoutError:
            # Those who wait look for themselves whether it is so.
            return

    async def _run(self) -> None:
        while batch := await self._next_batch():
            answer, error = await self._post(batch)
            rejections: list[Rejection] = []
            if answer is not None:
                rejections = self._outbox.settle(batch, answer)
            elif error is not None:
                rejections = self._outbox.fail(batch, error, time.monotonic())
            self._notify()
            report(self.options, rejections, [error] if error else [])

    async def _next_batch(self) -> list[Event]:
        """Wait for the next batch; empty when all is done and the sender is closing."""
        while True:
            hurry = self._is_closing or self._num_flushing > 0
            due_s = self._outbox.due_in(time.monotonic(), hurry=hurry)
            if due_s is not None and due_s <= 0:
                return self._outbox.batch()
            if due_s is None and self._is_closing:
                return []
            changed = self._changed
            await self._until(changed.is_set, due_s)

    async def _post(self, batch: list[Event]) -> tuple[EventsStored | None, Exception | None]:
        once = replace(self._client.retries, attempts=1, deadline_s=self.options.try_timeout_s)
        try:
            parts = [await self._client.do(call, once) for call in calls.post_events(batch)]
        except Exception as exc:  # noqa: BLE001  # the edge of the task: it is told and tried again
            return None, exc
        return EventsStored.joined(parts), None
