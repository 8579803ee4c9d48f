"""The connection to Redis: timeouts, one retry, scripts, and errors in the service's own words."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from service.config import Settings
from service.errors import StoreMismatch, StoreUnavailable
from service.logs import get_logger
from service.metrics import Metrics
from service.redis_address import parse_redis_url
from service.store.breaker import CircuitOpen, Circuits
from service.store.cluster import ClusterClient
from service.store.connecting import build_cluster, build_sentinel, build_server
from service.store.durability import durability_warnings
from service.store.keys import LAYOUT_VERSION, META_KEY
from service.store.servers import ServerClient

RedisClient: TypeAlias = ServerClient | ClusterClient


def connect(settings: Settings, circuits: Circuits | None = None) -> RedisClient:
    """Return a client of the servers at `redis_url`; it connects when it is first used.

    A broken connection is replaced and the call repeated once, a timeout is not repeated: every
    call is idempotent, but a server that hangs should cost a caller one timeout only. Clients that
    share `circuits` share what they know of servers that are away.
    """
    if settings.redis_url is None:
        raise ValueError("redis_url is not set; start the embedded server and pass its URL")
    address = parse_redis_url(settings.redis_url)
    circuits = circuits or Circuits(settings, Metrics())
    if address.shape == "cluster":
        return build_cluster(address, settings, circuits)
    if address.shape == "sentinel":
        return build_sentinel(address, settings, circuits)
    return build_server(address, settings, circuits)


@contextmanager
def translate_redis_errors(metrics: Metrics, operation: str) -> Iterator[None]:
    """Turn what redis raises into StoreUnavailable, with its cause, and count it."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as exc:
        raise unavailable(metrics, operation, exc) from exc


def unavailable(metrics: Metrics, operation: str, cause: Exception) -> StoreUnavailable:
    """Count a failed call and return the error that says so."""
    metrics.redis_errors.labels(operation).inc()
    wait_s = cause.retry_after_s if isinstance(cause, CircuitOpen) else 0
    return StoreUnavailable(
        f"Redis did not do {operation!r}: {type(cause).__name__}: {cause}",
        retry_after_s=max(1, math.ceil(wait_s)),
    )


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a script: its keys, which share a hash tag, and its arguments."""

    keys: Sequence[str]
    args: Sequence[bytes | str | int | float]


class Script:
    """One Lua script of the package `scripts`."""

    def __init__(self, name: str) -> None:
        self._text = (files("service.store") / "scripts" / name).read_text("utf-8")
        digest = hashlib.sha1(self._text.encode(), usedforsecurity=False)
        self._sha = digest.hexdigest()

    async def run(self, client: RedisClient, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run the calls in one round trip; return each one's result, or the error it met.

        A restarted server has forgotten the script. Calls that it refuses for that reason had no
        effect and are sent again with the script's text, which also teaches it to the server.
        """
        results = await self._send(client, "EVALSHA", self._sha, calls)
        unknown = [at for at, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            again = await self._send(client, "EVAL", self._text, [calls[at] for at in unknown])
            for at, result in zip(unknown, again, strict=True):
                results[at] = result
        return results

    @staticmethod
    async def _send(
        client: RedisClient, command: str, script: str, calls: Sequence[ScriptCall]
    ) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(command, script, len(call.keys), *call.keys, *call.args)
        return list(await pipeline.execute(raise_on_error=False))


async def prepare_store(
    client: RedisClient, settings: Settings, metrics: Metrics, *, warn: bool = True
) -> None:
    """Check that the store's layout is ours, claim an empty one, and warn of settings that lose.

    Only one of a process's stores needs to warn. Raises StoreMismatch if the data was written with
    another layout or number of partitions.
    """
    expected = {"layout": LAYOUT_VERSION, "num_partitions": settings.num_partitions}
    with translate_redis_errors(metrics, "prepare"):
        stored = await _stored_layout(client, expected, claim=False)
        if None in stored:
            stored = await _stored_layout(client, expected, claim=True)
        warnings = await durability_warnings(client) if warn else []
    for (name, value), found in zip(expected.items(), stored, strict=True):
        if found is None or int(found) != value:
            raise StoreMismatch(
                f"{META_KEY}: {name} is {_text(found)} in Redis and {value} here; "
                f"set it as it was, or start with an empty store"
            )
    for warning in warnings:
        get_logger(__name__).warning("store_may_lose_histories", reason=warning)


async def _stored_layout(
    client: RedisClient, expected: dict[str, int], *, claim: bool
) -> list[bytes | None]:
    """Return what the store says of its layout; with `claim` what it does not say is set first.

    Asked before it is claimed: a server whose memory is full refuses even a write without effect.
    """
    pipeline = client.pipeline(transaction=False)
    for name, value in expected.items() if claim else ():
        pipeline.execute_command("HSETNX", META_KEY, name, value)
    pipeline.execute_command("HMGET", META_KEY, *expected)
    stored: list[bytes | None] = (await pipeline.execute())[-1]
    return stored


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
