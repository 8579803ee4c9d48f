from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.config import Settings
from service.redis_address import parse_redis_url


def test_several_nodes_of_a_cluster_are_given_by_commas() -> None:
    """One of them may be away when the service starts."""
    address = parse_redis_url("redis+cluster://a:7000,b,[::1]:7002")
    assert (address.shape, address.has_tls) == ("cluster", False)
    assert address.nodes == (("a", 7_000), ("b", 6_379), ("::1", 7_002))


def test_sentinels_have_a_service_and_a_database() -> None:
    """The Sentinels may watch several groups."""
    address = parse_redis_url("rediss+sentinel://shop:p%40ss@a,b:26380/orders/2")
    assert (address.shape, address.has_tls) == ("sentinel", True)
    assert address.nodes == (("a", 26_379), ("b", 26_380))
    assert (address.service, address.db) == ("orders", 2)
    assert (address.username, address.password) == ("shop", "p@ss")


@pytest.mark.parametrize("url", ["redis://a:1/0", "rediss://a", "unix:///run/redis.sock"])
def test_the_driver_reads_what_is_said_of_one_server(url: str) -> None:
    """Its options after a ? have always worked."""
    address = parse_redis_url(url)
    assert (address.shape, address.url) == ("server", url)
    assert address.has_tls == url.startswith("rediss")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a", "must start with one of redis://"),
        ("redis+sentinel://a:hunter2@b", "name the Sentinel's service"),
        ("redis+sentinel://a/shop/first", "is a number"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis+cluster://a:port", "is no host:port"),
        ("redis+cluster://a,,b", "is no host:port"),
        ("redis+cluster://a?db=1", "takes no options"),
    ],
)
def test_a_url_that_says_something_else_is_refused(url: str, reason: str) -> None:
    """At the start, with the reason and without the password."""
    with pytest.raises(ValidationError, match=reason) as caught:
        Settings(redis_url=url)
    assert "hunter2" not in str(caught.value)


def test_what_is_for_sentinels_needs_sentinels() -> None:
    """A setting that does nothing is a mistake that nobody sees."""
    with pytest.raises(ValidationError, match=r"need redis\+sentinel://"):
        Settings(redis_url="redis://a", redis_sentinel_password=SecretStr("word"))
    with pytest.raises(ValidationError, match="need rediss://"):
        Settings(redis_url="redis+cluster://a", redis_ca_file=Path("ca.crt"))
    settings = Settings(redis_url="rediss+cluster://a", redis_ca_file=Path("ca.crt"))
    assert settings.redis_ca_file == Path("ca.crt")
