"""The one place that builds a client of Redis, for each shape that the servers may have."""

from typing import Any, cast

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from service.config import Settings
from service.redis_address import RedisAddress
from service.store.breaker import Circuits
from service.store.cluster import ClusterClient
from service.store.servers import (
    MAX_CONNECTIONS,
    PACKING,
    SERVER,
    SentinelClient,
    ServerClient,
)

CLIENT_NAME = "sojourn"
RETRIES = 1


def build_server(address: RedisAddress, settings: Settings, circuits: Circuits) -> ServerClient:
    """Return a client of the one server of a URL; what the URL says of a user wins."""
    scheme = address.url.partition("://")[0]
    keep_alive = {} if scheme == "unix" else {"socket_keepalive": True}
    options = _connection(settings) | _tls(settings) | keep_alive | _retrying(RETRIES)
    client = cast("ServerClient", ServerClient.from_url(address.url, **options))
    client.breaker = circuits.of(SERVER)
    # Which the driver chooses by the scheme, whatever it is given.
    client.connection_pool.connection_class = PACKING[scheme]
    return client


def build_sentinel(address: RedisAddress, settings: Settings, circuits: Circuits) -> SentinelClient:
    """Return a client of the primary of a Sentinel's service."""
    secured = {"ssl": True, **_tls(settings)} if address.has_tls else {}
    known = _connection(settings) | _user_of(address)
    own_user = {
        "username": settings.redis_sentinel_username,
        "password": _secret(settings.redis_sentinel_password),
    }
    # Each Sentinel is asked in turn, so one that is away is not asked twice.
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # as published
        address.nodes, sentinel_kwargs=known | secured | own_user | _retrying(0)
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # as published
        address.service,
        sentinel,
        db=address.db,
        socket_keepalive=True,
        **known,
        **secured,
        **_retrying(RETRIES),
    )
    direct = known | secured | _retrying(RETRIES)
    client = SentinelClient(
        sentinel, pool, lambda host, port: Redis(host=host, port=port, **direct)
    )
    client.breaker = circuits.of(SERVER)
    return client


def build_cluster(address: RedisAddress, settings: Settings, circuits: Circuits) -> ClusterClient:
    """Return a client of the Cluster that the nodes belong to."""
    driver = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        # What is redirected or broke is seen to by ClusterClient.
        retry=Retry(NoBackoff(), 0),
        reinitialize_steps=0,
        # One shard that is away is not to take the others with it.
        require_full_coverage=False,
        ssl=address.has_tls,
        **(_connection(settings) | _user_of(address)),
        **_tls(settings),
    )
    return ClusterClient(driver, circuits, settings.redis_connect_timeout_ms / 1000)


def _connection(settings: Settings) -> dict[str, Any]:
    """Return what every connection to a server of the data is made with."""
    return {
        "socket_timeout": settings.redis_timeout_ms / 1000,
        "socket_connect_timeout": settings.redis_connect_timeout_ms / 1000,
        "max_connections": MAX_CONNECTIONS,
        "client_name": CLIENT_NAME,
        "protocol": 2,
        "username": settings.redis_username,
        "password": _secret(settings.redis_password),
    }


def _retrying(times: int) -> dict[str, Any]:
    """Return how often a broken connection is replaced; what timed out is not repeated."""
    return {"retry": Retry(NoBackoff(), times, supported_errors=(RedisConnectionError,))}


def _user_of(address: RedisAddress) -> dict[str, Any]:
    given = {"username": address.username, "password": address.password}
    return {name: value for name, value in given.items() if value is not None}


def _tls(settings: Settings) -> dict[str, Any]:
    """Return whom we trust, and what says who we are."""
    given = {
        "ssl_ca_certs": settings.redis_ca_file,
        "ssl_certfile": settings.redis_cert_file,
        "ssl_keyfile": settings.redis_key_file,
    }
    return {name: str(path) for name, path in given.items() if path is not None}


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
