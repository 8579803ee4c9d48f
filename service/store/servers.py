"""A single Redis server, or the primary that Sentinels name, behind a circuit breaker."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from itertools import islice
from typing import Any, TypeAlias

import hiredis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError

from service.logs import get_logger
from service.store.breaker import Breaker

SERVER = "Redis"
# Of each server. Who finds all in use waits for a turn: the driver's pools raise an error instead,
# which would look as if the server had failed.
MAX_CONNECTIONS = 16
LOOK_EVERY_S = 1.0
Reply = Any
# What MGET replies: a string for each key, None where there is none.
Values: TypeAlias = list[bytes | None]


class Packing:
    """Packs commands by hiredis; the driver's own way takes ten times as long."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command in the protocol's form."""
        # A name of two words is two arguments.
        name = args[0].split() if isinstance(args[0], str) else [args[0]]
        return [hiredis.pack_command((*name, *args[1:]))]


class PackingConnection(Packing, Connection):
    """A connection by TCP."""


class PackingUnixConnection(Packing, UnixDomainSocketConnection):
    """A connection by a socket of this machine."""


class PackingTlsConnection(Packing, SSLConnection):
    """A connection by TLS."""


PACKING = {
    "redis": PackingConnection,
    "rediss": PackingTlsConnection,
    "unix": PackingUnixConnection,
}


class ServerClient(Redis):
    """Calls one server; what goes by a pipeline, as all of the stores' calls do, is guarded."""

    # Set after the driver's own construction, which reads URLs and pools in several ways.
    breaker: Breaker

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.turns = asyncio.Semaphore(MAX_CONNECTIONS)

    def pipeline(
        self, transaction: bool = True, shard_hint: str | None = None
    ) -> "GuardedPipeline":
        """Return a pipeline whose round trip the breaker may refuse."""
        return GuardedPipeline(self, transaction, shard_hint)

    async def check(self) -> None:
        """Raise what the driver raises unless the server answers."""
        pipeline = self.pipeline(transaction=False)
        pipeline.ping()
        await pipeline.execute()

    async def get_groups(self, groups: Sequence[Sequence[str]]) -> list[Values | Exception]:
        """Return the strings at keys, group by group; each group's keys are in one slot.

        One command for all of them: reading a reply costs more than its bytes do.
        """
        pipeline = self.pipeline(transaction=False)
        pipeline.execute_command("MGET", *(key for group in groups for key in group))
        [values] = await pipeline.execute()
        found = iter(values)
        return [list(islice(found, len(group))) for group in groups]

    def slot_group(self, partition: int) -> int:
        """Return the same for partitions whose keys one script may touch: here, for all."""
        return 0

    async def ask_every(self, *command: str) -> dict[str, Reply | Exception]:
        """Return what every server of the data replies, by its name, "" if there is only one."""
        return {"": await _asked(self, *command)}


class GuardedPipeline(Pipeline):
    """The driver's pipeline; its round trip is one call for the breaker."""

    def __init__(self, client: ServerClient, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._breaker = client.breaker
        self._turns = client.turns

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands and return their replies; raises CircuitOpen too."""
        execute = super().execute
        async with self._turns:
            # The driver would write the command into an error that it raises, user id and all.
            replies = await self._breaker.run(lambda: execute(raise_on_error=False))
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


class SentinelClient(ServerClient):
    """Calls the primary that the Sentinels name; asks them when it connects, and once a second.

    A primary that was replaced while it runs goes on to answer for up to ten seconds, until the
    Sentinels make a replica of it; what it takes meanwhile is lost. So its connections are closed
    as soon as there is another one.
    """

    def __init__(
        self,
        sentinel: Sentinel,
        pool: SentinelConnectionPool,
        connect_to: Callable[[str, int], Redis],
    ) -> None:
        super().__init__(connection_pool=pool)
        self._sentinel = sentinel
        self._service = pool.service_name
        self._connect_to = connect_to
        self._pool = pool
        self._primary: tuple[Any, int] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked_s = -LOOK_EVERY_S
        self._log = get_logger(__name__)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> GuardedPipeline:
        """Return a pipeline; behind it, the Sentinels are asked if that is due."""
        loop = asyncio.get_running_loop()
        is_due = loop.time() - self._looked_s >= LOOK_EVERY_S
        if is_due and (self._looking is None or self._looking.done()):
            self._looked_s = loop.time()
            self._looking = loop.create_task(self._look(), context=Context())
        return super().pipeline(transaction, shard_hint)

    @property
    def sentinels(self) -> list[Redis]:
        """The clients of the Sentinels, the one that answered last first."""
        return list(self._sentinel.sentinels)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to the servers and to the Sentinels."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await super().aclose(close_connection_pool=True)
        await self._sentinel.aclose()

    async def ask_every(self, *command: str) -> dict[str, Reply | Exception]:
        """Return the primary's reply and those of the replicas, any of which may be next."""
        primary = await self._sentinel.discover_master(self._service)
        replicas = await self._sentinel.discover_slaves(self._service)
        places = [(_text(host), int(port)) for host, port in [primary, *replicas]]
        replies = await asyncio.gather(*(self._ask_at(*place, *command) for place in places))
        return {
            f"{host}:{port}": reply for (host, port), reply in zip(places, replies, strict=True)
        }

    async def _look(self) -> None:
        """Close the connections to a primary that is one no longer; its calls are sent again."""
        try:
            primary = await self._sentinel.discover_master(self._service)
        except (RedisError, OSError) as exc:
            self._log.warning("sentinels_not_asked", error=f"{type(exc).__name__}: {exc}")
            return
        known = {self._primary, self._pool.master_address} - {None, primary}
        self._primary = primary
        # A Sentinel that heard of it late may have sent a connection back since the last look.
        if known or any(place != _place(primary) for place in self._places()):
            self._pool.master_address = primary
            await self._pool.disconnect()
            self._log.warning("redis_primary_changed", primary=f"{_text(primary[0])}:{primary[1]}")

    def _places(self) -> list[tuple[str, int]]:
        """Return where the connections of the pool lead."""
        # The driver has no public way to them.
        pool = self._pool
        connections: list[Any] = [*pool._available_connections, *pool._in_use_connections]
        return [_place((one.host, one.port)) for one in connections if one.is_connected]

    async def _ask_at(self, host: str, port: int, *command: str) -> Reply | Exception:
        client = self._connect_to(host, port)
        try:
            return await _asked(client, *command)
        finally:
            await client.aclose()


async def _asked(client: Redis, *command: str) -> Reply | Exception:
    try:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # as published
    except (RedisError, OSError) as exc:
        return exc


def _place(address: tuple[Any, Any]) -> tuple[str, int]:
    return _text(address[0]), int(address[1])


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
