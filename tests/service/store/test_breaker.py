"""The circuit breaker on a clock that stands still until a test moves it."""

import asyncio
from collections.abc import Callable

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.config import Settings
from service.metrics import Metrics
from service.store.breaker import WITHIN_S, Breaker, CircuitOpen, Circuits

OPEN_S = 2.0


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class Server:
    """Answers, or fails with the error that it was given; counts who asks."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.num_asked = 0

    async def __call__(self) -> str:
        """Answer one call."""
        self.num_asked += 1
        if self.error is not None:
            raise self.error
        return "answer"


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands."""
    return Clock()


@pytest.fixture
def server() -> Server:
    """Return a server that answers."""
    return Server()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """Return a breaker that opens after three failures for two seconds."""
    return Breaker("Redis", failures=3, open_s=OPEN_S, clock=clock)


def state_of(one: Breaker | Circuits) -> str:
    """Return the state now; what a type checker remembers of it is past."""
    return one.state


async def fail(breaker: Breaker, server: Server, times: int) -> None:
    """Let calls fail."""
    server.error = RedisTimeoutError("too slow")
    for _ in range(times):
        with pytest.raises(RedisTimeoutError):
            await breaker.run(server)


async def test_failures_in_a_row_open_it_and_then_nobody_is_asked(
    breaker: Breaker, server: Server
) -> None:
    """A server that hangs costs three timeouts, not one for every call."""
    await fail(breaker, server, 3)
    assert state_of(breaker) == "open"
    with pytest.raises(CircuitOpen) as caught:
        await breaker.run(server)
    assert server.num_asked == 3
    assert caught.value.retry_after_s == pytest.approx(OPEN_S)


async def test_an_answer_between_failures_keeps_it_closed(breaker: Breaker, server: Server) -> None:
    """A server that loses a call now and then is there."""
    for _ in range(3):
        await fail(breaker, server, 2)
        server.error = None
        assert await breaker.run(server) == "answer"
    assert state_of(breaker) == "closed"


async def test_failures_long_apart_are_accidents_of_their_own(
    breaker: Breaker, server: Server, clock: Clock
) -> None:
    """A service at night may call once a minute."""
    await fail(breaker, server, 2)
    clock.now_s += WITHIN_S + 1
    await fail(breaker, server, 2)
    assert state_of(breaker) == "closed"
    await fail(breaker, server, 1)
    assert state_of(breaker) == "open"


async def test_a_probe_that_is_answered_closes_it(
    breaker: Breaker, server: Server, clock: Clock
) -> None:
    """It recovers by itself, with the first call after the time."""
    await fail(breaker, server, 3)
    server.error = None
    clock.now_s += OPEN_S
    assert await breaker.run(server) == "answer"
    assert state_of(breaker) == "closed"
    await fail(breaker, server, 2)
    assert state_of(breaker) == "closed"


async def test_a_probe_that_fails_opens_it_for_as_long_again(
    breaker: Breaker, server: Server, clock: Clock
) -> None:
    """One timeout for each time that it is open."""
    await fail(breaker, server, 3)
    clock.now_s += OPEN_S
    await fail(breaker, server, 1)
    clock.now_s += OPEN_S / 2
    with pytest.raises(CircuitOpen):
        await breaker.run(server)
    assert server.num_asked == 4


async def test_one_call_at_a_time_is_the_probe(
    breaker: Breaker, server: Server, clock: Clock
) -> None:
    """All that wait would otherwise try at once."""
    await fail(breaker, server, 3)
    clock.now_s += OPEN_S
    answers: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    probe = asyncio.create_task(breaker.run(lambda: answers))
    await asyncio.sleep(0)
    assert state_of(breaker) == "half-open"
    with pytest.raises(CircuitOpen):
        await breaker.run(server)
    answers.set_result("answer")
    assert await probe == "answer"
    assert state_of(breaker) == "closed"


async def test_a_probe_whose_caller_leaves_lets_the_next_one_try(
    breaker: Breaker, server: Server, clock: Clock
) -> None:
    """Nothing was learnt; a breaker that waited for its probe for ever would never close."""
    await fail(breaker, server, 3)
    clock.now_s += OPEN_S
    probe = asyncio.create_task(breaker.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    server.error = None
    assert await breaker.run(server) == "answer"


async def test_a_call_from_before_says_nothing_of_an_open_one(
    breaker: Breaker, server: Server, clock: Clock
) -> None:
    """It was sent when the server was still there, or fails long after it is back."""
    loop = asyncio.get_running_loop()
    late: list[asyncio.Future[str]] = [loop.create_future() for _ in range(2)]
    waiting: Callable[[int], Callable[[], asyncio.Future[str]]] = lambda at: lambda: late[at]  # noqa: E731
    calls = [asyncio.create_task(breaker.run(waiting(at))) for at in range(2)]
    await asyncio.sleep(0)
    await fail(breaker, server, 3)
    late[0].set_result("late")
    assert await calls[0] == "late"
    assert state_of(breaker) == "open"
    clock.now_s += OPEN_S / 2
    late[1].set_exception(RedisTimeoutError("late"))
    with pytest.raises(RedisTimeoutError):
        await calls[1]
    clock.now_s += OPEN_S / 2
    server.error = None
    assert await breaker.run(server) == "answer"


@pytest.mark.parametrize("error", [ResponseError("no"), MaxConnectionsError()])
async def test_what_is_not_the_server_being_away_opens_nothing(
    breaker: Breaker, server: Server, error: Exception
) -> None:
    """An error is an answer, and a full pool of connections is ours."""
    server.error = error
    for _ in range(5):
        with pytest.raises(type(error)):
            await breaker.run(server)
    assert state_of(breaker) == "closed"


async def test_a_result_may_carry_the_failure(breaker: Breaker) -> None:
    """A node's replies come as a list in which errors stand."""

    async def replies() -> list[Exception]:
        return [RedisConnectionError("gone")]

    for _ in range(3):
        assert len(await breaker.run(replies, has_failed=bool)) == 1
    assert state_of(breaker) == "open"


async def test_servers_are_counted_by_state(server: Server, clock: Clock) -> None:
    """`sojourn_redis_breaker` shows at a glance how many are away; the worst is in /healthz."""
    metrics = Metrics()
    circuits = Circuits(Settings(redis_breaker_failures=1), metrics, clock)
    await fail(circuits.of("a"), server, 1)
    assert state_of(circuits.of("b")) == "closed"
    assert state_of(circuits) == "open"
    text = metrics.render()[0].decode()
    assert 'sojourn_redis_breaker{state="closed"} 1.0' in text
    assert 'sojourn_redis_breaker{state="open"} 1.0' in text
    circuits.forget({"a", "never-known"})
    assert state_of(circuits) == "closed"
    assert 'sojourn_redis_breaker{state="open"} 0.0' in metrics.render()[0].decode()
