"""A circuit breaker for each server: one that hangs costs a timeout a second, not one a call.

Closed lets everything through. Open refuses at once. Half-open is one call that tries the server
while all others are still refused; what becomes of it closes the breaker or opens it again.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.config import Settings
from service.logs import get_logger
from service.metrics import Metrics

State: TypeAlias = Literal["closed", "open", "half-open"]
Result = TypeVar("Result")
# What says that a server is away; what it answers, errors too, says that it is there.
FAILURES = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError)
# Failures further apart than this are accidents of their own.
WITHIN_S = 10.0


class CircuitOpen(RedisConnectionError):
    """The server failed lately and is not asked; `retry_after_s` is when it will be."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name} failed lately and is not asked now")
        self.retry_after_s = retry_after_s


class Breaker:
    """Decides for one server whether a call may go out; belongs to one loop."""

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        open_s: float,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[State, State], None] = lambda before, after: None,
    ) -> None:
        self._name = name
        self._max_failures = failures
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._state: State = "closed"
        self._num_failures = 0
        # Of the first failure in a row, and of the opening: seconds of the clock.
        self._first_failure_s = 0.0
        self._opened_s = 0.0

    @property
    def state(self) -> State:
        """What becomes of the next call."""
        return self._state

    async def run(
        self,
        call: Callable[[], Awaitable[Result]],
        has_failed: Callable[[Result], bool] = lambda result: False,
    ) -> Result:
        """Return what the call returns, and learn from it; raises CircuitOpen, or what it raises.

        `has_failed` judges a result that carries errors in it.
        """
        is_probe = self._admit()
        try:
            result = await call()
        except MaxConnectionsError:
            # Our own pool is full, which says nothing of the server.
            self._cancelled(is_probe=is_probe)
            raise
        except FAILURES:
            self._failed(is_probe=is_probe)
            raise
        except Exception:
            self._succeeded(is_probe=is_probe)
            raise
        except BaseException:
            self._cancelled(is_probe=is_probe)
            raise
        if has_failed(result):
            self._failed(is_probe=is_probe)
        else:
            self._succeeded(is_probe=is_probe)
        return result

    def _admit(self) -> bool:
        """Return whether the call is the one that tries a server; raises CircuitOpen."""
        if self._state == "closed":
            return False
        wait_s = self._opened_s + self._open_s - self._clock()
        if self._state == "half-open" or wait_s > 0:
            raise CircuitOpen(self._name, max(0.0, wait_s))
        self._become("half-open")
        return True

    def _failed(self, *, is_probe: bool) -> None:
        now_s = self._clock()
        if not self._num_failures or now_s - self._first_failure_s > WITHIN_S:
            self._num_failures, self._first_failure_s = 0, now_s
        self._num_failures += 1
        # Of an open breaker only the probe is heard: others began before it opened.
        if is_probe or (self._state == "closed" and self._num_failures >= self._max_failures):
            self._opened_s = now_s
            self._become("open")

    def _succeeded(self, *, is_probe: bool) -> None:
        if is_probe or self._state == "closed":
            self._num_failures = 0
            self._become("closed")

    def _cancelled(self, *, is_probe: bool) -> None:
        """Let the next call try: nothing was learnt, and the time to wait has passed already."""
        if is_probe:
            self._become("open")

    def _become(self, state: State) -> None:
        before, self._state = self._state, state
        if before != state:
            self._on_change(before, state)


class Circuits:
    """The breakers of one process by server, shared by all its clients; counted by state."""

    def __init__(
        self, settings: Settings, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = settings.redis_breaker_failures
        self._open_s = settings.redis_breaker_open_ms / 1000
        self._gauge = metrics.redis_breaker
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}
        self._log = get_logger(__name__)

    @property
    def state(self) -> State:
        """The worst state of any server."""
        states = {breaker.state for breaker in self._breakers.values()}
        return "open" if "open" in states else "half-open" if "half-open" in states else "closed"

    def of(self, name: str) -> Breaker:
        """Return the breaker of a server, closed when it is new."""
        if name not in self._breakers:
            self._gauge.labels("closed").inc()
            self._breakers[name] = Breaker(
                name,
                failures=self._failures,
                open_s=self._open_s,
                clock=self._clock,
                on_change=lambda before, after: self._note(name, before, after),
            )
        return self._breakers[name]

    def forget(self, names: set[str]) -> None:
        """Drop the breakers of servers that have left."""
        for name in names & self._breakers.keys():
            self._gauge.labels(self._breakers.pop(name).state).dec()

    def _note(self, name: str, before: State, after: State) -> None:
        self._gauge.labels(before).dec()
        self._gauge.labels(after).inc()
        # The steps between are many while a server is away; the first and the last are news.
        if "closed" in (before, after):
            self._log.warning("redis_breaker", server=name, state=after)
