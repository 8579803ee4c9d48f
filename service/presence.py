"""Says which model this process serves, and knows what the others said."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from service.errors import StoreUnavailable
from service.store.serving_reports import ServingReport

REPORT_EVERY_MS = 5_000


class Served(Protocol):
    """What this process serves, and why it is not what it should."""

    @property
    def serving(self) -> str:
        """Return a version."""
        ...

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what keeps this process behind."""
        ...


class Reports(Protocol):
    """Keeps the reports of all processes for a while; raises StoreUnavailable."""

    async def report(self, said: ServingReport) -> Sequence[ServingReport]:
        """Keep a report, and return those of all processes."""
        ...


class Presence:
    """One process among all; `reports` is None where there is one bundle and nothing to switch."""

    def __init__(
        self, process: str, models: Served, reports: Reports | None, clock: Callable[[], int]
    ) -> None:
        self._process = process
        self._models = models
        self._reports = reports
        self._clock = clock
        self._last: ServingReport | None = None
        # Callers wait for each other: more than the client's connections would be refused.
        self._one_call = asyncio.Lock()

    async def report(self) -> None:
        """Say what is served, if it changed or was not said lately; raises StoreUnavailable."""
        own, last = self._own(), self._last
        if self._reports is None or (last is not None and not _is_worth_saying(own, last)):
            return
        async with self._one_call:
            await self._reports.report(own)
        self._last = own

    async def all(self) -> tuple[ServingReport, ...]:
        """Return the reports of all processes; while Redis is away, of this one."""
        own = self._own()
        if self._reports is None:
            return (own,)
        try:
            async with self._one_call:
                return tuple(await self._reports.report(own))
        except StoreUnavailable:
            return (own,)

    def _own(self) -> ServingReport:
        models = self._models
        return ServingReport(self._process, models.serving, bool(models.problems), self._clock())


def _is_worth_saying(own: ServingReport, last: ServingReport) -> bool:
    is_old = own.seen_at_ms - last.seen_at_ms >= REPORT_EVERY_MS
    return is_old or (own.version, own.is_behind) != (last.version, last.is_behind)
