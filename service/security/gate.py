"""Who may pass: the story of one request at the gate, from its key to its token."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope as AsgiScope

from service.errors import Forbidden, TooManyAttempts, TooManyRequests, Unauthenticated
from service.logs import get_logger, user_ref
from service.metrics import Metrics
from service.security.addresses import ClientAddresses
from service.security.keys import ApiKey
from service.security.limits import Tokens
from service.security.ring import KeyRing
from service.security.scopes import Access
from service.store.tokens import Bucket, Taken

SECONDS_PER_MINUTE = 60
US_PER_MS = 1_000
US_PER_S = 1_000_000
# Of the addresses that wait; the one that has waited longest is forgotten first.
MAX_BLOCKED = 10_000
HOW_TO_SEND = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"


@dataclass(frozen=True, slots=True)
class Limits:
    """How often: a key's requests unless its entry says otherwise (0 is no limit), wrong keys."""

    rate_per_s: float
    burst: int
    failures_per_min: int


@dataclass(frozen=True, slots=True)
class Passed:
    """Whose key it was, and what is left of its bucket if it has one."""

    key: ApiKey
    bucket: Bucket | None = None
    taken: Taken | None = None


class RateExceeded(TooManyRequests):
    """As the error of callers, with the bucket for the headers."""

    def __init__(self, bucket: Bucket, taken: Taken) -> None:
        super().__init__(
            f"the key may send {bucket.rate_per_s:g} requests a second, and {bucket.burst} at once",
            retry_after_s=_whole_seconds(taken.wait_us),
        )
        self.bucket = bucket
        self.taken = taken


class Gate:
    """Lets a request pass or raises why not; one per running application."""

    def __init__(
        self,
        ring: KeyRing,
        tokens: Tokens,
        *,
        limits: Limits,
        addresses: ClientAddresses,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._ring = ring
        self._tokens = tokens
        self._limits = limits
        self._addresses = addresses
        self._metrics = metrics
        self._clock = clock
        self._log = get_logger(__name__)
        # Until when an address waits, ms since 1970; learned from Redis by its own last failure.
        self._blocked_until_ms: dict[str, int] = {}

    async def admit(self, request: AsgiScope, access: Access) -> Passed:
        """Return whose key it is; raises Unauthenticated, Forbidden or TooManyRequests."""
        key = await self._authenticated(request)
        if access.scope is None or access.scope not in key.scopes:
            self._metrics.refused.labels("scope").inc()
            self._log.warning("key lacks a scope", key_id=key.id, scope=access.scope)
            raise Forbidden(
                f"the key has not the scope {access.scope!r}, "
                f"which {access.method} {access.template} asks for"
            )
        return await self._within_its_rate(key)

    async def _authenticated(self, request: AsgiScope) -> ApiKey:
        address = self._addresses.of(request)
        # Before the key is looked at: otherwise a right guess would still be told from a wrong one.
        self._check_wait(address)
        text = presented_key(Headers(scope=request))
        if text is None:
            self._metrics.refused.labels("no-key").inc()
            raise Unauthenticated(f"the call needs a key; {HOW_TO_SEND}")
        key = self._ring.find(text)
        if key is None:
            await self._count_failure(address)
            raise Unauthenticated("the key is not known here; it may have been revoked")
        if key.has_expired(self._clock()):
            # Its holder has proved who it is, so this is no attempt at guessing.
            self._metrics.refused.labels("expired-key").inc()
            self._log.warning("key has expired", key_id=key.id)
            raise Unauthenticated(f"the key expired at {key.expires_at}; ask for a new one")
        return key

    def _check_wait(self, address: str) -> None:
        until_ms = self._blocked_until_ms.get(address)
        if until_ms is None:
            return
        wait_ms = until_ms - self._clock()
        if wait_ms > 0:
            raise self._too_many_attempts(wait_ms * US_PER_MS)
        del self._blocked_until_ms[address]

    async def _count_failure(self, address: str) -> None:
        """Count a wrong key; raises TooManyAttempts once the address has no more to spend."""
        per_min = self._limits.failures_per_min
        bucket = Bucket("address", address, per_min / SECONDS_PER_MINUTE, per_min)
        taken = await self._tokens.take(bucket)
        if taken.wait_us:
            self._block(address, taken.wait_us)
        if not taken.taken:
            raise self._too_many_attempts(taken.wait_us)
        self._metrics.refused.labels("unknown-key").inc()
        # What was sent stays out of the log, its id too: somebody's password may have been sent.
        self._log.warning("unknown key", client=user_ref(address))

    def _block(self, address: str, wait_us: int) -> None:
        self._blocked_until_ms.pop(address, None)
        self._blocked_until_ms[address] = self._clock() + math.ceil(wait_us / US_PER_MS)
        if len(self._blocked_until_ms) > MAX_BLOCKED:
            del self._blocked_until_ms[next(iter(self._blocked_until_ms))]

    def _too_many_attempts(self, wait_us: int) -> TooManyAttempts:
        self._metrics.refused.labels("attempts").inc()
        return TooManyAttempts(
            "too many wrong keys came from this address; no key of it is looked at for now",
            retry_after_s=_whole_seconds(wait_us),
        )

    async def _within_its_rate(self, key: ApiKey) -> Passed:
        own = key.rate_limit_per_s
        rate_per_s = self._limits.rate_per_s if own is None else own
        if not rate_per_s:
            return Passed(key)
        bucket = Bucket("key", key.id, rate_per_s, self._limits.burst)
        taken = await self._tokens.take(bucket)
        if not taken.taken:
            self._metrics.refused.labels("rate").inc()
            raise RateExceeded(bucket, taken)
        return Passed(key, bucket, taken)


def presented_key(headers: Headers) -> str | None:
    """Return the key that a request brings, None if it brings none.

    A bearer token is taken before an `X-API-Key`; other kinds of `Authorization` are none of ours.
    """
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip() or None


def rate_headers(bucket: Bucket, taken: Taken) -> dict[str, str]:
    """Return what a caller should know of its bucket: size, what is left, seconds until full."""
    return {
        "RateLimit-Limit": str(bucket.burst),
        "RateLimit-Remaining": str(taken.left),
        "RateLimit-Reset": str(_whole_seconds(taken.full_us)),
    }


def _whole_seconds(us: int) -> int:
    """Round up: whoever comes back after that is not too early."""
    return max(1, math.ceil(us / US_PER_S))
