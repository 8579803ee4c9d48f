"""What both clients tell httpx, and how they read what it brings."""

import email.utils
import json
import platform
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import httpx

from sojourn_client.calls import Call
from sojourn_client.errors import BadAnswer, NoAnswer, refused

T = TypeVar("T")

JSON = "application/json"
# The service closes a connection that nobody uses after five seconds; one that is just being closed
# would lose a call.
KEEPALIVE_S = 3.0
# For one of the connections to become free.
POOL_TIMEOUT_S = 10.0
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the service is and how to talk to it; seconds are per step of one try.

    `connect_timeout_s` is for the connection, `timeout_s` for each wait for the service's bytes.
    """

    base_url: str
    api_key: str | None
    timeout_s: float
    connect_timeout_s: float
    max_connections: int

    def __post_init__(self) -> None:
        """Raise ValueError for what is no address, before a thread finds out."""
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, not {self.base_url!r}")

    def __repr__(self) -> str:
        """Return the address, and never the key."""
        return f"Connection({self.base_url!r})"

    @property
    def limits(self) -> httpx.Limits:
        """The limits of the pool."""
        return httpx.Limits(
            max_connections=self.max_connections,
            max_keepalive_connections=self.max_connections,
            keepalive_expiry=KEEPALIVE_S,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What every request says."""
        said = {"Accept": f"{JSON}, application/problem+json", "User-Agent": user_agent()}
        if self.api_key:
            said["Authorization"] = f"Bearer {self.api_key}"
        return said

    def timeout(self, left_s: float) -> httpx.Timeout:
        """Return the timeouts of a try, none of which passes what is left of the call's time."""
        return httpx.Timeout(
            min(self.timeout_s, left_s),
            connect=min(self.connect_timeout_s, left_s),
            pool=min(POOL_TIMEOUT_S, left_s),
        )

    def url(self, path: str) -> str:
        """Return the whole address of a path; ids in it are encoded already."""
        return self.base_url.rstrip("/") + path


def tls(verify: bool | str) -> ssl.SSLContext | bool:
    """Return what httpx takes: a file of certificates becomes what it is checked against."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


def user_agent() -> str:
    """Return the name and version that the service's operator sees."""
    try:
        number = version("sojourn")
    except PackageNotFoundError:
        # Run from a checkout that was not installed.
        number = "0"
    return f"sojourn-client/{number} httpx/{httpx.__version__} python/{platform.python_version()}"


def content_headers(call: Call[T]) -> Mapping[str, str]:
    """Return the headers that belong to a call's body."""
    return {} if call.body is None else {"Content-Type": JSON}


def answer_of(call: Call[T], response: httpx.Response) -> T:
    """Return what the service said; raises Refused or BadAnswer."""
    if response.status_code in call.statuses and not _is_problem(response):
        return call.read(_document(response) if response.content else None)
    try:
        document = response.json()
    except ValueError:
        document = None
    raise refused(
        response.status_code,
        document,
        text=response.text,
        request_id=response.headers.get("X-Request-ID"),
        retry_after_s=retry_after_s(response.headers.get("Retry-After")),
    )


def no_answer(call: Call[T], error: httpx.RequestError) -> NoAnswer:
    """Return our error for what httpx raised; it names no host and no key."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    path = call.path.partition("?")[0]
    was_sent = not isinstance(error, NEVER_SENT)
    return NoAnswer(f"no answer to {call.method} {path} ({reason})", was_sent=was_sent)


def retry_after_s(text: str | None) -> float | None:
    """Return what Retry-After says in seconds from now, None if it says nothing readable."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _is_problem(response: httpx.Response) -> bool:
    return str(response.headers.get("Content-Type", "")).startswith("application/problem+json")


def _document(response: httpx.Response) -> object:
    try:
        return json.loads(response.content)
    except ValueError as exc:
        found = response.headers.get("Content-Type", "no type")
        raise BadAnswer(f"the answer is no JSON but {found}: {exc}") from exc
