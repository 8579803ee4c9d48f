"""A service of a few lines for the client's tests, behind httpx's own mock transport."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from sojourn_client import AsyncSojourn, Event, Retries, Sojourn
from sojourn_client.spool import Spool

BASE_URL = "http://sojourn.test"
AT_ONCE = Retries(base_s=0)
Reply: TypeAlias = httpx.Response | Exception
LOST = httpx.ReadError("the answer was lost")
DOWN = httpx.ConnectError("refused")

LIST = {"recommendation_id": "r-1", "model_version": "v-1", "items": [], "degraded": []}


class Answering:
    """Answers each request with the next of `replies`, then with `default`; keeps the requests.

    Without a default it stores events as the service does: an id counts once.
    """

    def __init__(self, *replies: Reply, default: Reply | None = None) -> None:
        self.replies = list(replies)
        self.default = default
        self.requests: list[httpx.Request] = []
        self.stored: dict[str, dict[str, Any]] = {}
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        self.gate.wait(10)
        reply = self.replies.pop(0) if self.replies else self.default
        if isinstance(reply, Exception):
            raise reply
        return self._store(request) if reply is None else reply

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the asynchronous client."""
        return self(request)

    def sojourn(self, **options: Any) -> Sojourn:
        """Return a client of it."""
        given: dict[str, Any] = {"transport": httpx.MockTransport(self), "retries": AT_ONCE}
        return Sojourn(BASE_URL, **(given | options))

    def async_sojourn(self, **options: Any) -> AsyncSojourn:
        """Return an asynchronous client of it."""
        given: dict[str, Any] = {"transport": httpx.MockTransport(self.ask), "retries": AT_ONCE}
        return AsyncSojourn(BASE_URL, **(given | options))

    @property
    def body(self) -> Any:
        """The last request's body."""
        return json.loads(self.requests[-1].content)

    @property
    def target(self) -> str:
        """The last request's method, path and query string, as they were sent."""
        request = self.requests[-1]
        return f"{request.method} {request.url.raw_path.decode()}"

    def _store(self, request: httpx.Request) -> httpx.Response:
        events = json.loads(request.content)["events"]
        results = [self._result(event) for event in events]
        statuses = [result["status"] for result in results]
        sums = {
            "accepted": statuses.count("accepted"),
            "duplicates": statuses.count("duplicate"),
            "rejected": statuses.count("rejected"),
        }
        return httpx.Response(200, json=sums | {"results": results})

    def _result(self, event: Mapping[str, Any]) -> dict[str, Any]:
        event_id = event["event_id"]
        if event["event_type"] == "wrong":
            error = {"field": "event_type", "value": "'wrong'", "fix": "must be another"}
            return {"event_id": event_id, "status": "rejected", "error": error}
        status = "duplicate" if event_id in self.stored else "accepted"
        self.stored[event_id] = dict(event)
        return {"event_id": event_id, "status": status}


def problem(status: int, slug: str, **more: Any) -> httpx.Response:
    """Return a problem as the service sends it; `retry_after` becomes its header."""
    headers = {"Content-Type": "application/problem+json"}
    if "retry_after" in more:
        headers["Retry-After"] = str(more.pop("retry_after"))
    document = {
        "type": f"urn:sojourn:problem:{slug}",
        "title": slug,
        "status": status,
        "detail": f"{slug}, that is why",
        "instance": "request-7",
    }
    return httpx.Response(status, json=document | more, headers=headers)


def event(number: int = 1, **overrides: Any) -> Event:
    """Return a valid event."""
    fields: dict[str, Any] = {
        "user_id": "anna",
        "item_id": f"item-{number}",
        "event_type": "view",
        "timestamp": 1_768_392_000_000 + number,
    }
    return Event(**(fields | overrides))


@contextmanager
def opened(path: Path) -> Iterator[Spool]:
    """Own a spool for a while."""
    spool = Spool(path)
    try:
        yield spool
    finally:
        spool.release()
