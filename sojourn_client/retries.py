"""When to ask again: only what is safe, after a random wait, within a time and a budget.

Exponential backoff with full jitter: the wait before the n-th retry is drawn evenly from 0 to
min(`cap_s`, `base_s` x 2^(n - 1)), so that clients that failed together do not come back together
(Brooker, "Exponential backoff and jitter", 2015). The budget keeps retries a small share of all
calls while a service is in trouble (Beyer et al., "Site reliability engineering", chapter 22).
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sojourn_client.errors import NoAnswer, Refused, SojournError

MAX_DOUBLINGS = 30
MIN_TRY_S = 0.01


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and for how long one call is tried.

    `attempts` counts the first try; `deadline_s` is the time of a call with all its tries and
    waits. Of the budget each retry takes 1 and each answered call gives back `budget_refill`, up to
    `budget`; without 1 there is no retry.
    """

    attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 5.0
    deadline_s: float = 30.0
    budget: float = 20.0
    budget_refill: float = 0.1

    def __post_init__(self) -> None:
        """Raise ValueError for what could never try."""
        if self.attempts < 1 or self.deadline_s <= 0 or self.base_s < 0:
            raise ValueError("attempts must be at least 1, deadline_s above 0, base_s at least 0")


def jittered_s(base_s: float, cap_s: float, num_failures: int) -> float:
    """Return a random wait in seconds after so many failures, at least one."""
    doublings = min(num_failures - 1, MAX_DOUBLINGS)
    return random.uniform(0, min(cap_s, base_s * 2**doublings))  # noqa: S311  # no secret: it only has to differ between clients


def is_transient(error: SojournError) -> bool:
    """Return whether the same call may well succeed later.

    The service marks its own refusals that are worth a retry with Retry-After. What something
    between here and the service says has no such mark.
    """
    if isinstance(error, NoAnswer):
        return True
    if not isinstance(error, Refused):
        return False
    return error.status in (429, 502, 503, 504) and (
        error.retry_after_s is not None or not error.is_problem
    )


class Budget:
    """What is left for retries of all calls of a client; threads may share it."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._left = retries.budget
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one retry, if there is one."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Note that a call was answered."""
        with self._lock:
            self._left = min(self._retries.budget, self._left + self._retries.budget_refill)


@dataclass(slots=True)
class Tries:
    """The tries of one call; `clock` is in seconds and never goes back."""

    retries: Retries
    budget: Budget
    is_repeatable: bool
    clock: Callable[[], float]
    began_s: float = field(init=False)
    num_failures: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Begin to count the time."""
        self.began_s = self.clock()

    @property
    def left_s(self) -> float:
        """The time that the next try may take, in seconds."""
        return max(MIN_TRY_S, self.began_s + self.retries.deadline_s - self.clock())

    def wait_after(self, error: SojournError) -> float:
        """Return the seconds to wait before the next try; raises the error if there is none."""
        self.num_failures += 1
        is_last = self.num_failures >= self.retries.attempts
        if is_last or not self.is_repeatable or not is_transient(error):
            raise error
        wait_s = jittered_s(self.retries.base_s, self.retries.cap_s, self.num_failures)
        if isinstance(error, Refused) and error.retry_after_s is not None:
            wait_s += error.retry_after_s
        if wait_s >= self.left_s or not self.budget.take():
            raise error
        return wait_s
