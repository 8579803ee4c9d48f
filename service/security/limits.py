"""Tokens to spend: shared through Redis, and counted by this process while Redis is away."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from service.errors import ServiceError
from service.logs import get_logger
from service.store.tokens import Bucket, Taken

US_PER_MS = 1_000
# So that addresses without end do not fill the memory; the bucket that was used longest ago goes.
MAX_LOCAL_BUCKETS = 10_000
# A Redis that is away costs one timeout in this time, and not every request one.
RETRY_SHARED_MS = 1_000


class SharedTokens(Protocol):
    """Where the tokens of all processes are; see `TokenStore`."""

    async def take(self, bucket: Bucket) -> Taken:
        """Take a token if there is one; raises a ServiceError if that cannot be known."""
        ...


class LocalTokens:
    """The same buckets in this process's memory; each process then has a full one of its own."""

    def __init__(self, clock: Callable[[], int], max_buckets: int = MAX_LOCAL_BUCKETS) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        # When the bucket of (kind, subject) would be full, microseconds since 1970.
        self._full_at_us: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, bucket: Bucket) -> Taken:
        """Take a token if there is one: the rule of `take_token.lua`."""
        now_us = self._clock() * US_PER_MS
        name = (bucket.kind, bucket.subject)
        capacity_us = bucket.interval_us * bucket.burst
        missing_us = min(max(0, self._full_at_us.get(name, 0) - now_us), capacity_us)
        taken = missing_us + bucket.interval_us <= capacity_us
        if taken:
            missing_us += bucket.interval_us
            self._remember(name, now_us + missing_us)
        left = (capacity_us - missing_us) // bucket.interval_us
        wait_us = 0 if left else missing_us + bucket.interval_us - capacity_us
        return Taken(taken, left, wait_us, missing_us)

    def _remember(self, name: tuple[str, str], full_at_us: int) -> None:
        self._full_at_us[name] = full_at_us
        self._full_at_us.move_to_end(name)
        if len(self._full_at_us) > self._max_buckets:
            self._full_at_us.popitem(last=False)


class Tokens:
    """Takes tokens from Redis, or from this process's own buckets while Redis is away."""

    def __init__(self, shared: SharedTokens | None, clock: Callable[[], int]) -> None:
        self._shared = shared
        self._local = LocalTokens(clock)
        self._clock = clock
        self._away_until_ms: int | None = None
        self._log = get_logger(__name__)

    async def take(self, bucket: Bucket) -> Taken:
        """Take a token if there is one; at most one round trip, and never an error."""
        if self._shared is None or self._is_away():
            return self._local.take(bucket)
        try:
            taken = await self._shared.take(bucket)
        except ServiceError as exc:
            self._log.warning("limits are per process", reason=str(exc))
            self._away_until_ms = self._clock() + RETRY_SHARED_MS
            return self._local.take(bucket)
        self._away_until_ms = None
        return taken

    def _is_away(self) -> bool:
        return self._away_until_ms is not None and self._clock() < self._away_until_ms
