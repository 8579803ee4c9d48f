"""A Redis Cluster: one round trip to each node that keys lead to, each behind its own breaker.

The driver's own pipeline fails as a whole when one node does, closes all connections, those in use
too, before it tries again, and sends a redirected command's ASKING on whatever connection is free.
So it is given the commands of one node at a time, without repeats, and what nodes answer is seen
to here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextvars import Context
from typing import Any, TypeAlias

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from service.logs import get_logger
from service.store.breaker import FAILURES, CircuitOpen, Circuits
from service.store.servers import MAX_CONNECTIONS, Values

CLUSTER = "the Cluster"
ERRORS = (RedisError, RedisClusterException, OSError)
# The first sending, and one after each of: another node has the slot, it is on its way, repeat.
MAX_SENDINGS = 4
TRY_AGAIN_S = 0.02
# A fail-over takes seconds; asking who has which slot makes every connection anew.
REFRESH_EVERY_S = 0.5

Command: TypeAlias = Sequence[str | bytes | int | float]


class ClusterClient:
    """Calls a Cluster; a node that is away fails its own commands only. Belongs to one loop."""

    def __init__(self, driver: RedisCluster, circuits: Circuits, connect_timeout_s: float) -> None:
        self.driver = driver
        self._circuits = circuits
        self._connect_timeout_s = connect_timeout_s
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._starting: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_s = 0.0
        self._log = get_logger(__name__)

    def pipeline(self, transaction: bool = False) -> "ClusterRound":
        """Return a round of commands, each about keys of one slot."""
        if transaction:
            raise ValueError("commands on several nodes are no transaction; use a script")
        return ClusterRound(self)

    async def check(self) -> None:
        """Raise what a node answers unless at least one primary does: others serve their users."""
        await self._start()
        nodes = self.driver.get_primaries()
        replies = await asyncio.gather(*(self._trip(node, [("PING",)], ()) for node in nodes))
        errors = [reply for [reply] in replies if isinstance(reply, Exception)]
        if len(errors) == len(nodes):
            raise errors[0]

    async def get_groups(self, groups: Sequence[Sequence[str]]) -> list[Values | Exception]:
        """Return the strings at keys, group by group, or the error that a group's node met."""
        return await self.send([("MGET", *group) for group in groups])

    def slot_group(self, partition: int) -> int:
        """Return the same for partitions whose keys one script may touch: each is a slot."""
        return partition

    async def ask_every(self, *command: str) -> dict[str, Any]:
        """Return every node's reply, or the error it met, by the node's name; replicas too."""
        await self._start()
        nodes = self.driver.get_nodes()
        replies = await asyncio.gather(*(self._trip(node, [command], ()) for node in nodes))
        return {node.name: reply for node, [reply] in zip(nodes, replies, strict=True)}

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Return each command's reply, or the error it met; raises if no node is to be found."""
        await self._start()
        results: list[Any] = [None] * len(commands)
        todo = list(range(len(commands)))
        asking: dict[int, ClusterNode] = {}
        for sending in range(MAX_SENDINGS):
            await self._send_some(commands, todo, asking, results)
            asking = {}
            again = [
                at for at in todo if await self._is_due_again(at, results[at], asking, sending)
            ]
            if not again:
                break
            todo = again
        if any(isinstance(result, (*FAILURES, ClusterDownError)) for result in results):
            self._refresh_soon()
        return results

    async def aclose(self) -> None:
        """Close every connection."""
        tasks = [task for task in (self._starting, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.driver.aclose()

    async def _send_some(
        self,
        commands: Sequence[Command],
        todo: Sequence[int],
        asking: dict[int, ClusterNode],
        results: list[Any],
    ) -> None:
        places: defaultdict[ClusterNode, list[int]] = defaultdict(list)
        for at in todo:
            try:
                node = asking.get(at) or self._node_of(commands[at])
            except SlotNotCoveredError as exc:
                results[at] = exc
            else:
                places[node].append(at)
        replies = await asyncio.gather(
            *(
                self._trip(node, [commands[at] for at in ats], [at in asking for at in ats])
                for node, ats in places.items()
            )
        )
        for ats, answers in zip(places.values(), replies, strict=True):
            for at, answer in zip(ats, answers, strict=True):
                results[at] = answer

    def _node_of(self, command: Command) -> ClusterNode:
        node = self.driver.get_node_from_key(str(_first_key(command)))
        if node is None:
            raise SlotNotCoveredError(f"no node has the slot of {_first_key(command)!r}")
        return node

    async def _trip(
        self, node: ClusterNode, commands: Sequence[Command], asking: Sequence[bool]
    ) -> list[Any]:
        """Send commands to one node; return its replies, or errors in their places."""
        asks = asking or [False] * len(commands)

        async def send() -> list[Any]:
            pipeline = self.driver.pipeline()
            for command, is_asking in zip(commands, asks, strict=True):
                if is_asking:
                    # Counts for the next command of the same connection, so it goes before it.
                    pipeline.execute_command("ASKING", target_nodes=node)
                pipeline.execute_command(*command, target_nodes=node)
            replies = await pipeline.execute(raise_on_error=False, allow_redirections=False)
            return _without_asking(replies, asks)

        turns = self._turns.setdefault(node.name, asyncio.Semaphore(MAX_CONNECTIONS))
        try:
            async with turns:
                return await self._circuits.of(node.name).run(send, _has_failed)
        except ERRORS as exc:
            return [exc] * len(commands)

    async def _is_due_again(
        self, at: int, result: Any, asking: dict[int, ClusterNode], sending: int
    ) -> bool:
        """Say whether a command should be sent again, and prepare for it."""
        if isinstance(result, MovedError):
            await self.driver.nodes_manager.move_slot(result)
            return True
        if isinstance(result, AskError):
            node = self.driver.get_node(result.host, result.port)
            if node is None:
                self._refresh_soon()
                return False
            asking[at] = node
            return True
        if isinstance(result, TryAgainError):
            await asyncio.sleep(TRY_AGAIN_S)
            return True
        # As with one server: a connection that broke is replaced, what timed out is not repeated.
        return (
            sending == 0
            and isinstance(result, RedisConnectionError)
            and not isinstance(result, CircuitOpen)
        )

    async def _start(self) -> None:
        """Find the nodes before the first call; whoever comes meanwhile waits for the same."""
        if self.driver.get_default_node() is not None:
            return
        if self._starting is None or self._starting.done():
            loop = asyncio.get_running_loop()
            self._starting = loop.create_task(self._find_nodes(), context=Context())
            self._starting.add_done_callback(_look_at)
        # A caller that leaves must not stop it for the others.
        await asyncio.shield(self._starting)

    async def _find_nodes(self) -> None:
        async def find() -> None:
            async with asyncio.timeout(2 * self._connect_timeout_s):
                await self.driver.initialize()

        await self._circuits.of(CLUSTER).run(find)

    def _refresh_soon(self) -> None:
        """Ask who has which slot, behind the calls, if that was not done a moment ago."""
        loop = asyncio.get_running_loop()
        is_running = self._refreshing is not None and not self._refreshing.done()
        if is_running or loop.time() - self._refreshed_s < REFRESH_EVERY_S:
            return
        self._refreshed_s = loop.time()
        self._refreshing = loop.create_task(self._refresh(), context=Context())

    async def _refresh(self) -> None:
        before = {node.name for node in self.driver.get_nodes()}
        try:
            async with asyncio.timeout(2 * self._connect_timeout_s):
                await self.driver.nodes_manager.initialize()
        except ERRORS as exc:
            self._log.warning("cluster_not_read", error=f"{type(exc).__name__}: {exc}")
        self._circuits.forget(before - {node.name for node in self.driver.get_nodes()})


class ClusterRound:
    """Commands that go out together, as the driver's pipeline on one server takes them."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[Command] = []

    def execute_command(self, *command: str | bytes | int | float) -> "ClusterRound":
        """Add a command."""
        self._commands.append(command)
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Return the replies in order; an error is raised, or else stands in its place."""
        results = await self._client.send(self._commands)
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results


def _first_key(command: Command) -> Any:
    """Return the key that the command is sent by: all others are in its slot."""
    return command[3] if command[0] in ("EVAL", "EVALSHA") else command[1]


def _without_asking(replies: Sequence[Any], asks: Sequence[bool]) -> list[Any]:
    following = iter(replies)
    kept = []
    for is_asking in asks:
        if is_asking:
            next(following)
        kept.append(next(following))
    return kept


def _has_failed(replies: list[Any]) -> bool:
    return any(isinstance(reply, FAILURES) for reply in replies)


def _look_at(task: "asyncio.Task[None]") -> None:
    """Retrieve an error that nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()
