"""The part of the composition root that builds what asks for keys."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from service.config import Settings
from service.metrics import Metrics
from service.security.addresses import ClientAddresses
from service.security.gate import Gate, Limits
from service.security.limits import SharedTokens, Tokens
from service.security.ring import KeyRing
from service.store.breaker import Circuits
from service.store.client import connect
from service.store.tokens import TokenStore


def open_gate(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    *,
    tokens: SharedTokens | None,
    clock: Callable[[], int],
    circuits: Circuits,
) -> Gate | None:
    """Return what asks for keys, None if there is no file of them; raises KeysRefused."""
    if settings.keys_file is None:
        return None
    ring = KeyRing(settings.keys_file, metrics, clock)
    if tokens is None and settings.redis_url is not None:
        client = connect(settings, circuits)
        stack.push_async_callback(client.aclose)
        tokens = own = TokenStore(client, settings, metrics)
        stack.push_async_callback(own.close)
    return Gate(
        ring,
        Tokens(tokens, clock),
        limits=Limits(
            settings.rate_limit_per_s, settings.rate_limit_burst, settings.auth_failures_per_min
        ),
        addresses=ClientAddresses(settings.trusted_proxies),
        metrics=metrics,
        clock=clock,
    )
