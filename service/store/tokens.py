"""Buckets of tokens in Redis: what all workers and replicas may spend together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.batcher import Batcher
from service.config import Settings
from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.store.client import (
    RedisClient,
    Script,
    ScriptCall,
    translate_redis_errors,
    unavailable,
)
from service.store.keys import token_key

US_PER_S = 1_000_000
MAX_BATCH = 256


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of `burst` tokens that gains `rate_per_s` (above 0) of them a second.

    `kind` is what is counted: the requests of a key, or the wrong keys from an address.
    """

    kind: Literal["key", "address"]
    subject: str
    rate_per_s: float
    burst: int

    @property
    def interval_us(self) -> int:
        """The time between two tokens, microseconds, at least 1."""
        return max(1, math.ceil(US_PER_S / self.rate_per_s))


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether a token was taken, how many are left, and when there are more.

    `wait_us` is the time until the next token, 0 if there is one; `full_us` until all are there.
    """

    taken: bool
    left: int
    wait_us: int
    full_us: int


class TokenStore:
    """Takes tokens in one round trip, which concurrent callers share; raises StoreUnavailable."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._script = Script("take_token.lua")
        self._takes: Batcher[Bucket, Taken | StoreUnavailable] = Batcher(
            "redis-tokens",
            self._take_many,
            max_batch=MAX_BATCH,
            max_pending=settings.max_pending,
            metrics=metrics,
        )

    async def take(self, bucket: Bucket) -> Taken:
        """Take a token if there is one; raises StoreUnavailable, Overloaded or NotReady."""
        result = await self._takes.submit(bucket)
        if isinstance(result, StoreUnavailable):
            raise result
        return result

    async def close(self, grace_s: float = 5.0) -> None:
        """Finish what has begun; the client stays open, it belongs to whoever made it."""
        await self._takes.close(grace_s)

    async def _take_many(self, buckets: list[Bucket]) -> list[Taken | StoreUnavailable]:
        calls = [_call(bucket) for bucket in buckets]
        with translate_redis_errors(self._metrics, "token"):
            answers = await self._script.run(self._client, calls)
        return [self._taken(answer) for answer in answers]

    def _taken(self, answer: Sequence[int] | Exception) -> Taken | StoreUnavailable:
        if isinstance(answer, Exception):
            return unavailable(self._metrics, "token", answer)
        taken, left, wait_us, full_us = answer
        return Taken(bool(taken), left, wait_us, full_us)


def _call(bucket: Bucket) -> ScriptCall:
    return ScriptCall(
        keys=[token_key(bucket.kind, bucket.subject)], args=[bucket.interval_us, bucket.burst]
    )
