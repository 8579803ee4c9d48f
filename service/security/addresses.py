"""Which address a request came from: the socket's, or what a proxy that we trust says of it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

UNKNOWN = "unknown"
LOCALHOST = "localhost"
# A home or an office has a /64, and could otherwise come from a new address with each request.
IPV6_PREFIX_BITS = 64


class ClientAddresses:
    """Names the callers; `trusted` are the networks of the proxies that may speak for others."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = [ip_network(network) for network in trusted]

    def of(self, scope: Scope) -> str:
        """Return the caller's address, of IPv6 its /64; UNKNOWN for a Unix socket.

        Each proxy appends whom it heard from to `X-Forwarded-For`, so the list is read from its
        end and up to the first address that is no proxy of ours: what stands before it, the caller
        may have written.
        """
        client = scope.get("client")
        address = _address(client[0] if client else "")
        if address is None:
            return UNKNOWN
        for forwarded in reversed(self._forwarded(scope, address)):
            before = _address(forwarded)
            if before is None:
                break
            address = before
            if not self._trusts(address):
                break
        return _named(address)

    def _forwarded(self, scope: Scope, peer: IPv4Address | IPv6Address) -> list[str]:
        if not self._trusts(peer):
            return []
        lines = Headers(scope=scope).getlist("x-forwarded-for")
        return [part for line in lines for part in line.split(",")]

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at the host."""
    address = _address(host)
    return host == LOCALHOST if address is None else address.is_loopback


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _named(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv6Address):
        return str(ip_network((address, IPV6_PREFIX_BITS), strict=False))
    return str(address)
