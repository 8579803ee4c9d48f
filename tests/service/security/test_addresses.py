import pytest

from service.security.addresses import UNKNOWN, ClientAddresses, is_loopback

Peer = tuple[str, int]


def address(peer: str | None, *forwarded: str, trusted: tuple[str, ...] = ()) -> str:
    """Return the address of a request from a peer with these X-Forwarded-For lines."""
    client: Peer | None = (peer, 4711) if peer is not None else None
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    scope = {"type": "http", "client": client, "headers": headers}
    return ClientAddresses(trusted).of(scope)


def test_nobody_may_speak_for_others_unless_named() -> None:
    """Otherwise an attacker is somebody else with every guess, the local machine's too."""
    assert address("127.0.0.1", "203.0.113.9") == "127.0.0.1"
    assert address("10.0.0.9", "203.0.113.9", trusted=("10.0.1.0/24",)) == "10.0.0.9"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (("203.0.113.9",), "203.0.113.9"),
        # What the caller wrote stands before what the proxy appended.
        (("198.51.100.1, 203.0.113.9",), "203.0.113.9"),
        (("198.51.100.1", "203.0.113.9, 10.0.1.2"), "203.0.113.9"),
        (("nonsense, 10.0.1.2",), "10.0.1.2"),
        (("nonsense",), "10.0.1.1"),
        (("",), "10.0.1.1"),
        ((), "10.0.1.1"),
        (("10.0.1.3, 10.0.1.2",), "10.0.1.3"),
    ],
)
def test_a_trusted_proxy_is_believed_up_to_the_first_stranger(
    forwarded: tuple[str, ...], expected: str
) -> None:
    """Read from the end: each proxy appends whom it heard from."""
    assert address("10.0.1.1", *forwarded, trusted=("10.0.1.0/24",)) == expected


def test_addresses_of_one_network_are_one() -> None:
    """A /64 has more addresses than anybody could count; IPv4 inside IPv6 is IPv4."""
    assert address("2001:db8::1") == address("2001:db8::ffff:1") == "2001:db8::/64"
    assert address("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    assert address("::ffff:203.0.113.9") == "203.0.113.9"


def test_a_unix_socket_has_no_address() -> None:
    """All its callers are counted together."""
    assert address(None) == address("") == UNKNOWN


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104  # that it is not loopback is the claim
        ("::", False),
        ("192.168.1.5", False),
        ("shop.example", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    """A name may mean anything tomorrow, so only one name counts."""
    assert is_loopback(host) is expected
