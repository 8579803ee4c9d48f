import asyncio
from collections.abc import Sequence

from structlog.testing import capture_logs

from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.periodic import repeating

EVERY_S = 0.001


class Work:
    """Work that fails as it was told, once for each entry, and then is done."""

    def __init__(self, failures: Sequence[Exception | None]) -> None:
        self._failures = list(failures)
        self.is_done = asyncio.Event()

    async def __call__(self) -> None:
        """Do the next turn."""
        if not self._failures:
            self.is_done.set()
            return
        failure = self._failures.pop(0)
        if failure is not None:
            raise failure


async def lines_of(work: Work, metrics: Metrics) -> list[tuple[str, str]]:
    """Repeat the work until it is done, and return what was logged: level and reason."""
    with capture_logs() as lines:
        async with repeating("work", work, every_s=EVERY_S, metrics=metrics):
            await work.is_done.wait()
    return [(line["log_level"], line.get("reason", "")) for line in lines]


async def test_a_failure_is_logged_once_for_each_time_it_begins() -> None:
    """Redis that is away for an hour would fill a log at four lines a second."""
    away = StoreUnavailable("away")
    work = Work([away, away, StoreUnavailable("full"), None, away])
    assert await lines_of(work, Metrics()) == [
        ("warning", "away"),
        ("warning", "full"),
        ("warning", "away"),
    ]


async def test_a_bug_is_counted_and_the_work_goes_on() -> None:
    """A process that silently stopped following would serve an old model for ever."""
    metrics = Metrics()
    lines = await lines_of(Work([KeyError("bug")]), metrics)
    assert lines == [("error", "")]
    assert "sojourn_unhandled_errors_total 1.0" in metrics.render()[0].decode()
