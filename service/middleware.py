"""Pure ASGI middleware: request id, access log, timing, and the limit of a body."""

import asyncio
import re
from time import perf_counter

from prometheus_client import Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.deadline import request_began_s
from service.errors import BodyTooLarge
from service.logs import ACCESS_LOGGER, get_logger, log_request, request_id
from service.metrics import Metrics
from service.problems import internal_problem, service_problem
from service.random_ids import random_id

REQUEST_ID_HEADER = b"x-request-id"
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Labels come from us, never from a client: a method may be any word.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED_ROUTE = "unmatched"
# Asked for every few seconds by machines; their lines would hide the others.
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
CLIENT_LEFT_STATUS = 499


class RequestMiddleware:
    """Gives a request its id, times it by route template, logs it, and answers for bugs.

    The outermost one: it wraps everything, so that no error passes without a problem response.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = get_logger(ACCESS_LOGGER)
        # Found once for each set of labels: the search costs more than the note.
        self._timers: dict[tuple[str, str, str], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id = _request_id(scope)
        token = request_id.set(own_id)
        began = request_began_s.set(asyncio.get_running_loop().time())
        answer = _Answer(send, own_id)
        started_s = perf_counter()
        try:
            await self._answer(scope, receive, answer)
        finally:
            self._record(scope, answer.status, perf_counter() - started_s)
            request_began_s.reset(began)
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            self._metrics.unhandled_errors.inc()
            self._log.exception("unhandled error", route=route_of(scope))
            if answer.has_started:
                raise
            await internal_problem()(scope, receive, answer.send)

    def _record(self, scope: Scope, status: int, elapsed_s: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        labels = (route, method, str(status))
        timer = self._timers.get(labels)
        if timer is None:
            timer = self._timers[labels] = self._metrics.request_seconds.labels(*labels)
        timer.observe(elapsed_s)
        key_id = scope.get("state", {}).get("key_id")
        elapsed_ms = round(elapsed_s * 1000, 2)
        log_request(method, route, status, elapsed_ms, key_id, is_quiet=route in QUIET_ROUTES)


class BodyLimitMiddleware:
    """Refuses bodies above a number of bytes, whether announced or streamed in chunks."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            await service_problem(BodyTooLarge(self._reason()))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                # The framework passes on this one kind of error while it reads a body.
                raise HTTPException(BodyTooLarge.status, self._reason(), {"Connection": "close"})
            return message

        await self._app(scope, counted, send)

    def _reason(self) -> str:
        return f"the body has more than {self._max_body_bytes} bytes; send it in smaller parts"


class _Answer:
    """Passes an answer on with the request's id in its header; remembers how it began."""

    def __init__(self, send: Send, own_id: str) -> None:
        self._send = send
        self._own_id = own_id
        self.has_started = False
        self.status = CLIENT_LEFT_STATUS

    async def send(self, message: Message) -> None:
        """Send one message of the answer."""
        if message["type"] == "http.response.start":
            self.has_started = True
            self.status = message["status"]
            named = (REQUEST_ID_HEADER, self._own_id.encode())
            message["headers"] = [*message.get("headers", ()), named]
        await self._send(message)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER:
            given: str = value.decode("latin-1")
            return given if SANE_REQUEST_ID.fullmatch(given) else random_id()
    return random_id()


def route_of(scope: Scope) -> str:
    """Return the template of the matched route, never the path: ids in it would be labels."""
    route = scope.get("route")
    # The guard refuses before a route is chosen; then the entry of its table names it.
    named = scope.get("state", {}).get("access")
    otherwise = UNMATCHED_ROUTE if named is None else named.template
    path: str = getattr(route, "path_format", getattr(route, "path", otherwise))
    return path
