"""What a sender has to send, in order: decides what goes when, and counts what became of it.

No thread, no clock and no network: the senders bring those. Times are seconds of a clock that never
goes back. Events leave the queue only when the service has answered for them.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from sojourn_client.answers import EventsStored
from sojourn_client.calls import MAX_EVENTS_PER_CALL
from sojourn_client.errors import (
    FieldProblem,
    InvalidRequest,
    NotDelivered,
    Refused,
    SojournError,
    SpoolDamaged,
)
from sojourn_client.events import Event
from sojourn_client.retries import jittered_s
from sojourn_client.spool import Spool

logger = logging.getLogger("sojourn_client")

REJECTED = "rejected"
TOO_LARGE = 413
# A service that asks for more is asked again all the same: events have nowhere else to go.
MAX_RETRY_AFTER_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderOptions:
    """How a sender works.

    A batch goes when it has `batch_size` events or its oldest has waited `max_age_s`. The queue
    holds `max_queue` events; when it is full `send` waits up to `put_timeout_s` for room and raises
    QueueFull, at once if that is 0. Closing tries for `grace_s` to deliver what is left, then
    writes it to the spool at `spool_path`, which the next sender of that path sends first; without
    one it raises NotDelivered with the events. Failed calls are tried again for as long as the
    sender lives, after a random wait that grows from `base_s` to `cap_s`, and no sooner than the
    service's Retry-After, of at most five minutes.

    `on_rejected` is told of each event that the service did not take, `on_error` of each failed
    call and each damaged line of the spool; both are called from the sender's thread or task and
    must not block. Without them what they would be told is logged.
    """

    batch_size: int = 200
    max_age_s: float = 0.5
    max_queue: int = 10_000
    put_timeout_s: float = 10.0
    try_timeout_s: float = 10.0
    grace_s: float = 10.0
    base_s: float = 0.2
    cap_s: float = 10.0
    spool_path: Path | str | None = None
    on_rejected: Callable[[Event, FieldProblem], None] | None = None
    on_error: Callable[[Exception], None] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what could never send."""
        if not 1 <= self.batch_size <= MAX_EVENTS_PER_CALL:
            raise ValueError(f"batch_size must be 1 to {MAX_EVENTS_PER_CALL}")
        if self.max_queue < self.batch_size:
            raise ValueError("max_queue must be at least batch_size")


@dataclass(frozen=True, slots=True)
class SenderCounts:
    """What a sender has done so far.

    `queued` were taken, `restored` came from the spool; each is `accepted`, `duplicates`,
    `rejected`, `pending`, or `spooled` in the end. `failures` are calls that were not answered as
    they should have been, `damaged` lines of the spool that could not be read.
    """

    queued: int = 0
    restored: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    spooled: int = 0
    failures: int = 0
    damaged: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """An event that the service does not take, and why."""

    event: Event
    problem: FieldProblem


class Outbox:
    """The queue of one sender, which guards it; see `SenderOptions`."""

    def __init__(self, options: SenderOptions) -> None:
        self.options = options
        self._counts = SenderCounts()
        self._queue: deque[tuple[float, Event]] = deque()
        self._retry_at = 0.0
        self._num_failures = 0
        self._has_restored = False
        self._batch_limit = options.batch_size
        self._spool = None if options.spool_path is None else Spool(options.spool_path)

    @property
    def counts(self) -> SenderCounts:
        """What was done so far, and what is pending."""
        return replace(self._counts, pending=len(self._queue))

    @property
    def num_put(self) -> int:
        """How many events were ever in the queue."""
        return self._counts.queued + self._counts.restored

    @property
    def num_settled(self) -> int:
        """How many of these are out of it again: answered for, or rejected."""
        return self.num_put - len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another event."""
        return len(self._queue) >= self.options.max_queue

    def restore(self, now_s: float) -> list[SpoolDamaged]:
        """Take what the spool has and return what is wrong with it; its file stays for now."""
        if self._spool is None:
            return []
        found = self._spool.read()
        self._has_restored = True
        self._queue.extend((now_s - self.options.max_age_s, event) for event in found.events)
        self._count(restored=len(found.events), damaged=len(found.damages))
        return found.damages

    def put(self, event: Event, now_s: float) -> None:
        """Take an event; the caller has seen that there is room."""
        self._queue.append((now_s, event))
        self._count(queued=1)

    def due_in(self, now_s: float, *, hurry: bool) -> float | None:
        """Return in how many seconds the next batch is due, None if there is nothing to send.

        In a hurry no event waits for others; a service that has just failed is still left alone.
        """
        if not self._queue:
            return None
        rest_s = self._retry_at - now_s
        if hurry or len(self._queue) >= self._batch_limit:
            return max(0.0, rest_s)
        return max(0.0, rest_s, self._queue[0][0] + self.options.max_age_s - now_s)

    def batch(self) -> list[Event]:
        """Return what goes next; it stays in the queue until it is settled."""
        return [event for _, event in islice(self._queue, self._batch_limit)]

    def settle(self, batch: Sequence[Event], answer: EventsStored) -> list[Rejection]:
        """Take an answered batch out of the queue, and return what was rejected."""
        self._drop(len(batch))
        self._num_failures, self._retry_at = 0, 0.0
        self._batch_limit = min(self.options.batch_size, self._batch_limit * 2)
        self._count(
            accepted=answer.accepted, duplicates=answer.duplicates, rejected=answer.rejected
        )
        return [
            Rejection(event, result.error or FieldProblem("event"))
            for event, result in zip(batch, answer.results, strict=True)
            if result.status == REJECTED
        ]

    def fail(self, batch: Sequence[Event], error: Exception, now_s: float) -> list[Rejection]:
        """Note that a batch was not answered for, and return the events that never will be.

        A batch that is refused for what is in it is halved until the event is found which is at
        fault; that one is rejected. One that is too large for what is between here and the service
        is halved too, and nothing of it is rejected. Everything else is tried again later.
        """
        self._count(failures=1)
        is_invalid = isinstance(error, InvalidRequest) and error.is_problem
        is_too_large = isinstance(error, InvalidRequest) and error.status == TOO_LARGE
        if (is_invalid or is_too_large) and len(batch) > 1:
            self._batch_limit = len(batch) // 2
            return []
        if isinstance(error, InvalidRequest) and is_invalid:
            self._drop(1)
            self._count(rejected=1)
            problem = error.errors[0] if error.errors else FieldProblem("event", fix=error.detail)
            return [Rejection(batch[0], problem)]
        self._num_failures += 1
        wait_s = jittered_s(self.options.base_s, self.options.cap_s, self._num_failures)
        if isinstance(error, Refused) and error.retry_after_s is not None:
            wait_s += min(error.retry_after_s, MAX_RETRY_AFTER_S)
        self._retry_at = now_s + wait_s
        return []

    def end(self) -> None:
        """Write what is left to the spool, or raise NotDelivered; nothing is taken after this."""
        left = [event for _, event in self._queue]
        if self._spool is None:
            if left:
                raise NotDelivered(f"{len(left)} events could not be delivered in time", left)
            return
        try:
            # What was never read has to stay.
            if self._has_restored:
                self._count(spooled=self._spool.write(left))
        except OSError as exc:
            message = f"{len(left)} events could neither be delivered nor written: {exc}"
            raise NotDelivered(message, left) from exc
        finally:
            self._spool.release()
        if left:
            logger.warning("%d events could not be delivered and are in the spool", len(left))

    def _drop(self, number: int) -> None:
        for _ in range(number):
            self._queue.popleft()

    def _count(self, **more: int) -> None:
        old = self._counts
        self._counts = replace(old, **{name: getattr(old, name) + n for name, n in more.items()})


def report(
    options: SenderOptions, rejections: Iterable[Rejection] = (), errors: Iterable[Exception] = ()
) -> None:
    """Tell the caller's functions, or the log; one that raises is logged and stops nothing."""
    for one in rejections:
        if options.on_rejected is None:
            logger.error("an event was rejected: %s %s", one.problem.field, one.problem.fix)
        else:
            _guarded(options.on_rejected, one.event, one.problem)
    for error in errors:
        if options.on_error is not None:
            _guarded(options.on_error, error)
        elif isinstance(error, SojournError):
            logger.warning("events wait: %s", error)
        else:
            logger.error("events wait for a bug of the sender", exc_info=error)


def _guarded(function: Callable[..., None], *arguments: object) -> None:
    try:
        function(*arguments)
    except Exception:  # the caller's own code, at the edge of our thread
        logger.exception("a function of the caller's raised")
