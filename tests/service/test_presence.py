from service.presence import REPORT_EVERY_MS, Presence
from service.store.serving_reports import ServingReport
from tests.fakes import NOON_MS, FakeClock, FakeReports


class Serving:
    """What a process serves, as a test sets it."""

    def __init__(self, serving: str, *problems: str) -> None:
        self.serving = serving
        self.problems = problems


def presence(
    models: Serving, reports: FakeReports | None, clock: FakeClock, process: str = "a"
) -> Presence:
    """Return a process."""
    return Presence(process, models, reports, clock)


async def test_every_process_knows_what_all_of_them_serve(clock: FakeClock) -> None:
    """An operator asks one of them, whichever the balancer takes."""
    reports = FakeReports()
    behind = presence(Serving("old", "damaged"), reports, clock, "b")
    await behind.report()
    assert await presence(Serving("new"), reports, clock, "a").all() == (
        ServingReport("a", "new", False, NOON_MS),
        ServingReport("b", "old", True, NOON_MS),
    )


async def test_what_did_not_change_is_said_again_after_a_while_only(clock: FakeClock) -> None:
    """It is asked four times a second; a switch is said at once."""
    models, reports = Serving("old"), FakeReports()
    one = presence(models, reports, clock)
    calls = []
    for advance_ms, version in ((0, "old"), (REPORT_EVERY_MS - 1, "old"), (1, "old"), (1, "new")):
        clock.advance(advance_ms)
        models.serving = version
        await one.report()
        calls.append(reports.num_calls)
    assert calls == [1, 1, 2, 3]


async def test_without_redis_or_a_choice_a_process_knows_itself(clock: FakeClock) -> None:
    """The list of models is for the time of trouble too."""
    reports = FakeReports()
    reports.down = True
    own = (ServingReport("a", "old", False, NOON_MS),)
    for given in (reports, None):
        assert await presence(Serving("old"), given, clock).all() == own
