import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from service.batcher import Batcher
from service.errors import NotReady, Overloaded
from service.metrics import Metrics


class Doubler:
    """Doubles numbers, one batch at a time, each when it is let go."""

    def __init__(self, *, gated: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        if not gated:
            self.gate.set()

    async def __call__(self, items: list[int]) -> list[int]:
        """Note the batch, wait for the gate, return the doubles."""
        self.batches.append(items)
        self.started.set()
        await self.gate.wait()
        return [2 * item for item in items]


def make(
    compute: Callable[[list[int]], Awaitable[list[int]]],
    *,
    max_batch: int = 4,
    max_pending: int = 100,
    metrics: Metrics | None = None,
) -> Batcher[int, int]:
    """Build a batcher of numbers."""
    return Batcher(
        "test",
        compute,
        max_batch=max_batch,
        max_pending=max_pending,
        metrics=metrics or Metrics(),
    )


async def submit_behind(
    batcher: Batcher[int, int], doubler: Doubler, items: range
) -> list["asyncio.Task[int]"]:
    """Submit 0, which occupies the worker, then the items, which wait."""
    tasks = [asyncio.create_task(batcher.submit(0))]
    await doubler.started.wait()
    tasks += [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_an_idle_queue_sends_an_item_at_once() -> None:
    """No timer: a lone request pays nothing for batching."""
    doubler = Doubler(gated=False)
    assert await make(doubler).submit(21) == 42
    assert doubler.batches == [[21]]


async def test_arrivals_during_a_batch_form_the_next_up_to_its_size() -> None:
    """Load makes the batches, and the bound keeps one from delaying all others."""
    doubler = Doubler()
    tasks = await submit_behind(make(doubler, max_batch=4), doubler, range(1, 7))
    doubler.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10, 12]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_full_queue_refuses_and_works_on() -> None:
    """A bounded wait and a clear refusal beat an unbounded wait."""
    doubler = Doubler()
    batcher = make(doubler, max_pending=2)
    tasks = await submit_behind(batcher, doubler, range(1, 3))
    with pytest.raises(Overloaded, match="2 items"):
        await batcher.submit(3)
    doubler.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_a_cancelled_caller_is_dropped_before_compute_and_frees_its_place() -> None:
    """Nobody waits for the result, so nobody should pay for it."""
    doubler = Doubler()
    batcher = make(doubler, max_pending=2)
    tasks = await submit_behind(batcher, doubler, range(1, 3))
    tasks[1].cancel()
    await asyncio.wait({tasks[1]})
    late = asyncio.create_task(batcher.submit(3))
    doubler.gate.set()
    assert await late == 6
    assert await tasks[2] == 4
    assert doubler.batches == [[0], [2, 3]]


async def test_a_caller_cancelled_in_the_tick_of_its_batch_is_dropped_too() -> None:
    """The cancelled task has not run yet when the batch is taken; only its future knows."""
    doubler = Doubler()
    tasks = await submit_behind(make(doubler), doubler, range(1, 3))
    doubler.gate.set()
    tasks[1].cancel()
    assert await tasks[2] == 4
    assert doubler.batches == [[0], [2]]


async def test_a_caller_cancelled_during_its_batch_does_not_disturb_the_others() -> None:
    """The batch awaits, not the caller: the work of the others goes on."""
    doubler = Doubler()
    batcher = make(doubler)
    tasks = await submit_behind(batcher, doubler, range(0))
    tasks[0].cancel()
    other = asyncio.create_task(batcher.submit(5))
    doubler.gate.set()
    assert await other == 10
    assert tasks[0].cancelled()


async def test_cancelled_callers_under_concurrency_never_shift_results() -> None:
    """The pitfall of shared connections: after a cancellation the next one gets your reply."""
    random_source = random.Random(7)
    batcher = make(Doubler(gated=False), max_batch=8, max_pending=1_000)

    async def ask(item: int) -> None:
        assert await batcher.submit(item) == 2 * item

    for _ in range(20):
        tasks = [asyncio.create_task(ask(item)) for item in range(50)]
        for _ in range(random_source.randrange(4)):
            await asyncio.sleep(0)
        for task in random_source.sample(tasks, 20):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = {type(outcome) for outcome in outcomes if outcome is not None}
        assert kinds <= {asyncio.CancelledError}


async def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    """A failed batch must neither hang its callers nor stop the queue."""

    async def refuse_odd(items: list[int]) -> list[int]:
        if any(item % 2 for item in items):
            raise ValueError("odd")
        return items

    batcher = make(refuse_odd)
    outcomes = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["odd", "odd"]
    assert await batcher.submit(4) == 4


async def test_a_wrong_number_of_results_is_an_error_not_a_shift() -> None:
    """One missing result would give every later caller its neighbour's."""

    async def forget_one(items: list[int]) -> list[int]:
        return items[1:]

    with pytest.raises(RuntimeError, match="1 results for 2 items"):
        await asyncio.gather(*map(make(forget_one).submit, (1, 2)))


async def test_closing_finishes_what_waits_and_takes_nothing_more() -> None:
    """A graceful stop answers whoever was let in."""
    doubler = Doubler()
    batcher = make(doubler)
    tasks = await submit_behind(batcher, doubler, range(1, 3))
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await batcher.submit(9)
    doubler.gate.set()
    await closing
    assert [task.result() for task in tasks] == [0, 2, 4]


async def test_closing_fails_what_outlasts_the_grace() -> None:
    """A batch that hangs must not keep the process alive, nor its callers in the dark."""
    doubler = Doubler()
    batcher = make(doubler)
    tasks = await submit_behind(batcher, doubler, range(1, 3))
    await batcher.close(grace_s=0)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, NotReady)


async def test_queue_time_compute_time_and_size_are_measured_apart() -> None:
    """Slow because it waits and slow because it works have different cures."""
    metrics = Metrics()
    doubler = Doubler()
    tasks = await submit_behind(make(doubler, metrics=metrics), doubler, range(1, 3))
    doubler.gate.set()
    await asyncio.gather(*tasks)
    text = metrics.render()[0].decode()
    assert 'sojourn_batch_queue_seconds_count{queue="test"} 3.0' in text
    assert 'sojourn_batch_compute_seconds_count{queue="test"} 2.0' in text
    assert 'sojourn_batch_size_sum{queue="test"} 3.0' in text


async def test_what_is_not_begun_in_time_is_not_begun_at_all() -> None:
    """Its caller has left and will send it again; the queue is long enough without it."""
    metrics = Metrics()
    doubler = Doubler()
    batcher = make(doubler, metrics=metrics)
    tasks = await submit_behind(batcher, doubler, range(1, 2))
    now_s = asyncio.get_running_loop().time()
    late = asyncio.create_task(batcher.submit(8, start_by_s=now_s - 1))
    early = asyncio.create_task(batcher.submit(9, start_by_s=now_s + 60))
    await asyncio.sleep(0)
    doubler.gate.set()
    with pytest.raises(Overloaded, match="not begun before"):
        await late
    assert await early == 18
    assert [await task for task in tasks] == [0, 2]
    assert doubler.batches == [[0], [1, 9]]
    assert 'sojourn_batch_dropped_total{queue="test"} 1.0' in metrics.render()[0].decode()


async def test_a_caller_that_leaves_the_queue_is_counted_and_its_item_never_done() -> None:
    """A request that ran into its deadline while it waited costs no inference any more."""
    metrics = Metrics()
    doubler = Doubler()
    batcher = make(doubler, metrics=metrics)
    tasks = await submit_behind(batcher, doubler, range(1, 3))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await batcher.submit(7)
    # One that is being done already is not dropped.
    tasks[0].cancel()
    doubler.gate.set()
    assert [await task for task in tasks[1:]] == [2, 4]
    assert doubler.batches == [[0], [1, 2]]
    assert 'sojourn_batch_dropped_total{queue="test"} 1.0' in metrics.render()[0].decode()
