"""Where Redis is: what `SOJOURN_REDIS_URL` says, read once, whatever shape the servers have."""

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

Shape: TypeAlias = Literal["server", "sentinel", "cluster"]

SHAPES: dict[str, Shape] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
TLS_SCHEMES = frozenset(scheme for scheme in SHAPES if scheme.startswith("rediss"))
DEFAULT_PORTS: dict[Shape, int] = {"server": 6_379, "sentinel": 26_379, "cluster": 6_379}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The shape of the servers, and where to ask first.

    `url` is what the driver reads of a single server; `nodes` are the sentinels, or some nodes of
    a Cluster, as (host, port). `service` and `db` are the Sentinel's.
    """

    shape: Shape
    has_tls: bool
    url: str = ""
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None


def parse_redis_url(url: str) -> RedisAddress:
    """Return what a URL says; raises ValueError that names the mistake and never the password.

    >>> parse_redis_url("redis+sentinel://a,b:26380/shop").nodes
    (('a', 26379), ('b', 26380))
    """
    scheme, _, _ = url.partition("://")
    shape = SHAPES.get(scheme)
    if shape is None:
        raise ValueError(f"must start with one of {', '.join(f'{name}://' for name in SHAPES)}")
    has_tls = scheme in TLS_SCHEMES
    if shape == "server":
        return RedisAddress(shape, has_tls, url=url)
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError(f"{scheme}:// takes no options after ? or #; use the settings")
    username, password, hosts = _authority(parts)
    service, db = _path(shape, parts.path.strip("/"))
    nodes = tuple(_node(host, DEFAULT_PORTS[shape]) for host in hosts.split(","))
    return RedisAddress(
        shape, has_tls, nodes=nodes, service=service, db=db, username=username, password=password
    )


def _authority(parts: SplitResult) -> tuple[str | None, str | None, str]:
    said, has_user, hosts = parts.netloc.rpartition("@")
    if not has_user:
        return None, None, hosts
    username, _, password = said.partition(":")
    return unquote(username) or None, unquote(password) or None, hosts


def _path(shape: Shape, path: str) -> tuple[str, int]:
    if shape == "cluster":
        if path not in ("", "0"):
            raise ValueError("a Cluster has only database 0; leave the path out")
        return "", 0
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("name the Sentinel's service after the hosts: .../service-name")
    if db and not db.isdigit():
        raise ValueError("the database after the service's name is a number")
    return unquote(service), int(db or 0)


def _node(text: str, default_port: int) -> tuple[str, int]:
    """Return host and port of one of several hosts; IPv6 addresses stand in brackets."""
    try:
        one = urlsplit(f"//{text}")
        host, port = one.hostname, one.port
    except ValueError as exc:
        raise ValueError(f"{text!r} is no host:port") from exc
    if not host or one.path:
        raise ValueError(f"{text!r} is no host:port; write host:port,host:port")
    return host, port or default_port
