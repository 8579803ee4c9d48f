"""Sends events from a thread of its own, in batches, and loses none when the program ends."""

import atexit
import os
import signal
import threading
import time
import types
from dataclasses import replace

from sojourn_client import calls
from sojourn_client.answers import EventsStored
from sojourn_client.errors import NotDelivered, QueueFull, SenderClosed, SenderForked
from sojourn_client.events import Event
from sojourn_client.outbox import Outbox, Rejection, SenderCounts, SenderOptions, report
from sojourn_client.sync_client import Sojourn

TERMINATED = 128 + signal.SIGTERM


class EventSender:
    """Posts events in the background.

    Use it as a context manager, or call `close`; a program that ends without either closes it at
    its exit. SIGTERM ends a program without an exit: see `exit_on_sigterm`. Make it after a fork;
    in a child of the process that made it `send` raises SenderForked. The client stays open.
    """

    def __init__(self, client: Sojourn, options: SenderOptions | None = None) -> None:
        self.options = options or SenderOptions()
        self._client = client
        self._pid = os.getpid()
        self._outbox = Outbox(self.options)
        self._changed = threading.Condition()
        self._num_flushing = 0
        self._closes_at: float | None = None
        self._is_over = False
        self._has_ended = False
        damages = self._outbox.restore(time.monotonic())
        # A daemon, since the interpreter waits for other threads before it calls what is registered
        # for its exit.
        self._thread = threading.Thread(target=self._run, name="sojourn-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        report(self.options, errors=damages)

    def __enter__(self) -> "EventSender":
        """Return the sender; leaving closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        """Deliver or spool what is left."""
        self.close()

    @property
    def counts(self) -> SenderCounts:
        """What was done so far, and what is pending."""
        with self._changed:
            return self._outbox.counts

    def send(self, event: Event) -> None:
        """Take an event for delivery.

        Raises QueueFull if there was no room in `put_timeout_s`, SenderClosed after `close`, and
        SenderForked in another process. It was not taken then.
        """
        self._check_process()
        with self._changed:
            self._changed.wait_for(
                lambda: not self._outbox.is_full or self._closes_at is not None,
                self.options.put_timeout_s,
            )
            if self._closes_at is not None:
                raise SenderClosed("the sender is closed")
            if self._outbox.is_full:
                raise QueueFull(f"{self.options.max_queue} events wait already")
            self._outbox.put(event, time.monotonic())
            self._changed.notify_all()

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything that was taken before is delivered; raises NotDelivered in time.

        The events stay in the queue then, and are still sent.
        """
        self._check_process()
        with self._changed:
            goal = self._outbox.num_put
            self._num_flushing += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: self._outbox.num_settled >= goal or self._is_over, timeout_s
                )
                num_left = goal - self._outbox.num_settled
            finally:
                self._num_flushing -= 1
        if num_left > 0:
            raise NotDelivered(f"{num_left} events are not delivered yet")

    def close(self, grace_s: float | None = None) -> None:
        """Deliver what is left, or write it to the spool; raises NotDelivered if neither was done.

        A signal that interrupts it ends the grace: what is left is spooled at once. A second call
        does nothing. In a child of the process that made it nothing is done either: the events are
        the parent's.
        """
        if os.getpid() != self._pid:
            return
        grace = self.options.grace_s if grace_s is None else grace_s
        with self._changed:
            # From the first line on: a signal in between must not leave a grace that nobody ends.
            try:
                if self._closes_at is None:
                    self._closes_at = time.monotonic() + grace
                self._changed.notify_all()
                rest_s = max(0.0, self._closes_at - time.monotonic())
                self._changed.wait_for(lambda: self._is_over, rest_s)
            finally:
                self._end()

    def _end(self) -> None:
        """Spool what is left, once, with the batch of a call that still hangs."""
        if not self._has_ended:
            self._is_over = self._has_ended = True
            atexit.unregister(self.close)
            self._outbox.end()

    def _check_process(self) -> None:
        # Before the lock: at the fork it may have been held by a thread that is not here.
        if os.getpid() != self._pid:
            raise SenderForked("make the sender in the process that uses it, after the fork")

    def _run(self) -> None:
        while batch := self._next_batch():
            self._deliver(batch)

    def _next_batch(self) -> list[Event]:
        """Wait for the next batch; empty when the sender is over."""
        with self._changed:
            while not self._is_over:
                now_s = time.monotonic()
                is_closing = self._closes_at is not None
                due_s = self._outbox.due_in(now_s, hurry=is_closing or self._num_flushing > 0)
                if due_s is not None and due_s <= 0:
                    return self._outbox.batch()
                if due_s is None and is_closing:
                    self._is_over = True
                    self._changed.notify_all()
                    break
                self._changed.wait(due_s)
        return []

    def _deliver(self, batch: list[Event]) -> None:
        answer, error = self._post(batch)
        rejections: list[Rejection] = []
        with self._changed:
            # Else the batch was spooled while the call hung, and is sent again from there.
            if not self._is_over:
                if answer is not None:
                    rejections = self._outbox.settle(batch, answer)
                elif error is not None:
                    rejections = self._outbox.fail(batch, error, time.monotonic())
                self._changed.notify_all()
        report(self.options, rejections, [error] if error else [])

    def _post(self, batch: list[Event]) -> tuple[EventsStored | None, Exception | None]:
        once = replace(self._client.retries, attempts=1, deadline_s=self.options.try_timeout_s)
        try:
            parts = [self._client.do(call, once) for call in calls.post_events(batch)]
        except Exception as exc:  # noqa: BLE001  # the edge of the thread: it is told and tried again
            return None, exc
        return EventsStored.joined(parts), None


def exit_on_sigterm() -> bool:
    """Let SIGTERM end the program as an exit does, so that senders are closed; False if it did not.

    Only in the main thread, and only where nobody handles the signal yet: servers of HTTP do, and
    end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGTERM, _exit)
    return True


def _exit(_number: int, _frame: types.FrameType | None) -> None:
    raise SystemExit(TERMINATED)
