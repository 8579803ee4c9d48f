"""Exposures: noted behind the answer, and asked again when an event names the answer it came from.

Neither holds a request up, and neither fails one: what cannot be noted is counted and dropped.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import Context
from functools import lru_cache
from typing import Any, Protocol

from service.contract.events import Event, UserId
from service.contract.exposures import Exposure
from service.errors import ServiceError
from service.logs import get_logger
from service.metrics import Metrics
from service.store.exposures import Shown

# Labels have few values: the first places one by one, those below in two groups.
SINGLE_POSITIONS = 3
FIRST_PAGE = 10
# How long an answer waits for others to be noted with: nobody waits for it, and a call of Redis for
# each answer would cost a third of the answer itself.
GATHER_S = 0.01
# Answers that are noted in one call, which keeps Redis from others for about a millisecond.
MAX_BATCH = 64
MAX_LABELS = 4_096


class ExposureRecords(Protocol):
    """Keeps exposures; every call raises StoreUnavailable."""

    async def record(self, exposures: Sequence[Exposure]) -> Sequence[ServiceError | None]:
        """Note what answers showed; return what each one failed with, if it did."""
        ...

    async def find(self, recommendation_ids: Sequence[str]) -> Mapping[str, Exposure]:
        """Return the answers that are known by their ids."""
        ...

    async def shown(self, user_id: UserId) -> Shown:
        """Return what was shown to a user lately."""
        ...


class Exposures:
    """Notes answers and attributes events to them, in tasks of its own. Belongs to one loop."""

    def __init__(
        self, records: ExposureRecords, metrics: Metrics, *, max_pending: int, is_on: bool
    ) -> None:
        self._records = records
        self._metrics = metrics
        self._max_pending = max_pending
        self._is_on = is_on
        self._tasks: set[asyncio.Task[None]] = set()
        # Answers that wait to be noted, how many are being noted, and whether a task does so.
        self._waiting: list[Exposure] = []
        self._num_recording = 0
        self._is_recording = False
        # Looked up for every place of every answer; the search in the metric costs more.
        self._impressions = lru_cache(MAX_LABELS)(metrics.impressions.labels)
        self._log = get_logger(__name__)

    async def shown(self, user_id: UserId) -> Shown:
        """Return what was shown to a user lately; raises StoreUnavailable."""
        return await self._records.shown(user_id)

    def note(self, exposure: Exposure) -> None:
        """Count an answer's impressions, and note the answer without waiting for it."""
        places = tuple([(one.source, one.position) for one in exposure.impressions])
        for source, position, number in _counted(places):
            self._impressions(source, position, exposure.model_version).inc(number)
        if not self._is_on or not exposure.impressions:
            return
        if len(self._waiting) + self._num_recording >= self._max_pending:
            self._metrics.exposures.labels("dropped").inc()
            return
        self._waiting.append(exposure)
        if not self._is_recording:
            self._is_recording = True
            self._start(self._record())

    def attribute(self, events: Sequence[Event]) -> None:
        """Count stored events by the answer that led to them, without waiting for it."""
        led = [event for event in events if event.recommendation_id is not None]
        if not led or not self._is_on:
            return
        if len(self._tasks) >= self._max_pending:
            self._metrics.exposures.labels("dropped").inc()
            return
        self._start(self._attribute(led))

    async def close(self, grace_s: float = 5.0) -> None:
        """Let what has begun end; what outlasts the grace is dropped and counted so."""
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in unfinished:
                task.cancel()
            # What is being noted is counted by the task that ends.
            await asyncio.gather(*unfinished, return_exceptions=True)
        self._metrics.exposures.labels("dropped").inc(len(self._waiting))
        self._waiting = []

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # A context of its own: what is noted belongs to many requests, not to the first one.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _record(self) -> None:
        """Note what waits, and what comes meanwhile, together."""
        try:
            while self._waiting:
                if len(self._waiting) < MAX_BATCH:
                    await asyncio.sleep(GATHER_S)
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._note_batch(batch)
        finally:
            self._is_recording = False

    async def _note_batch(self, batch: Sequence[Exposure]) -> None:
        """Note answers, and count each as noted or as dropped, whatever happens."""
        self._num_recording, num_noted = len(batch), 0
        try:
            errors = await self._records.record(batch)
            num_noted = sum(error is None for error in errors)
            for error in filter(None, errors):
                self._log.warning("exposure not noted", error=str(error))
        except ServiceError as exc:
            self._log.warning("exposures not noted", error=str(exc), number=len(batch))
        except Exception:  # noqa: BLE001  # not swallowed: logged and counted; the next batch goes on
            self._metrics.unhandled_errors.inc()
            self._log.exception("exposures not noted", number=len(batch))
        finally:
            self._num_recording = 0
            self._metrics.exposures.labels("noted").inc(num_noted)
            self._metrics.exposures.labels("dropped").inc(len(batch) - num_noted)

    async def _attribute(self, events: Sequence[Event]) -> None:
        try:
            answers = await self._records.find([str(event.recommendation_id) for event in events])
        except ServiceError as exc:
            self._log.warning("events not attributed", error=str(exc))
            answers = {}
        places = Counter(_place_of(event, answers) for event in events)
        for labels, number in places.items():
            self._metrics.attributed_events.labels(*labels).inc(number)


def _place_of(event: Event, answers: Mapping[str, Exposure]) -> tuple[str, str, str, str]:
    """Return the event's type, and the source, position and model of the place that led to it."""
    answer = answers.get(str(event.recommendation_id))
    impression = answer.impression_of(event.item_id) if answer else None
    if answer is None or impression is None:
        return event.event_type, "unknown", "unknown", "unknown"
    position = position_label(impression.position)
    return event.event_type, impression.source, position, answer.model_version


# Most answers have one source for all of their places, so few differ.
@lru_cache(maxsize=1_024)
def _counted(places: tuple[tuple[str, int], ...]) -> tuple[tuple[str, str, int], ...]:
    """Return how many of the places, source and position each, have which labels."""
    counts = Counter((source, position_label(position)) for source, position in places)
    return tuple((source, position, number) for (source, position), number in counts.items())


def position_label(position: int) -> str:
    """Return the group of a position, from 1.

    >>> [position_label(position) for position in (1, 3, 4, 10, 11)]
    ['1', '3', '4-10', '4-10', '11+']
    """
    if position <= SINGLE_POSITIONS:
        return str(position)
    within = position <= FIRST_PAGE
    return f"{SINGLE_POSITIONS + 1}-{FIRST_PAGE}" if within else f"{FIRST_PAGE + 1}+"
