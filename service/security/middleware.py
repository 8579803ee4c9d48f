"""Pure ASGI middleware: keys, the number of requests at once, and headers of every answer."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeAlias

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded, ServiceError
from service.metrics import Metrics
from service.problems import route_problem, service_problem
from service.security.gate import Gate, Passed, RateExceeded, rate_headers
from service.security.scopes import AccessTable

# Where the lifespan puts the gate, and the guard what it found, for the endpoints' check.
GATE_STATE = "gate"
ACCESS_STATE = "access"
KEY_ID_STATE = "key_id"
SCOPES_STATE = "scopes"
POLICY_VIOLATION = 1008

# What machines ask in order to help; an overloaded process must still answer them.
EXEMPT_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
NO_STORE = b"no-store"
# Nothing of an answer in JSON is to be loaded, framed or run.
POLICY_OF_DATA = b"default-src 'none'; frame-ancestors 'none'"
# The framework's pages of documentation load their parts from elsewhere; nobody may frame them.
POLICY_OF_PAGES = b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
HEADERS_OF_ALL: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", NO_STORE),
]
HEADERS_OF_DATA = [(b"content-security-policy", POLICY_OF_DATA), *HEADERS_OF_ALL]
HEADERS_OF_PAGES = [(b"content-security-policy", POLICY_OF_PAGES), *HEADERS_OF_ALL]


class GuardMiddleware:
    """Asks for a key before anything of a request is read; only there if there are keys.

    A request that fits no entry of the table goes no further, whatever the routers know: a route
    that was forgotten in the table is closed, and so are websockets.
    """

    def __init__(self, app: ASGIApp, table: AccessTable) -> None:
        self._app = app
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; the lifespan passes through."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = self._table.find(scope["method"], scope["path"])
        if access is None:
            await self._no_entry(scope, receive, send)
            return
        state = scope["state"]
        state[ACCESS_STATE] = access
        if access.scope is None:
            await self._app(scope, receive, send)
            return
        gate: Gate = state[GATE_STATE]
        try:
            passed = await gate.admit(scope, access)
        except RateExceeded as exc:
            headers = rate_headers(exc.bucket, exc.taken)
            await service_problem(exc)(scope, receive, _with_headers(send, headers))
        except ServiceError as exc:
            await service_problem(exc)(scope, receive, send)
        else:
            state[KEY_ID_STATE] = passed.key.id
            state[SCOPES_STATE] = passed.key.scopes
            await self._app(scope, receive, _with_headers(send, _headers_of(passed)))

    async def _no_entry(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self._table.methods(scope["path"])
        if methods:
            allowed = {"Allow": ", ".join(methods)}
            answer = route_problem(HTTPStatus.METHOD_NOT_ALLOWED, allowed)
        else:
            answer = route_problem(HTTPStatus.NOT_FOUND)
        await answer(scope, receive, send)


class ConcurrencyMiddleware:
    """Refuses a request before any work while `max_concurrency` are being answered."""

    def __init__(self, app: ASGIApp, max_concurrency: int, metrics: Metrics) -> None:
        self._app = app
        self._max_concurrency = max_concurrency
        self._metrics = metrics
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP, and questions after health, pass through."""
        if scope["type"] != "http" or scope["path"] in EXEMPT_PATHS:
            await self._app(scope, receive, send)
            return
        if self._num_open >= self._max_concurrency:
            self._metrics.refused.labels("concurrency").inc()
            full = Overloaded(f"this process answers {self._num_open} requests already")
            await service_problem(full)(scope, receive, send)
            return
        self._num_open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_open -= 1


class SecurityHeadersMiddleware:
    """Tells browsers to guess no types, frame nothing, keep nothing and tell nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _marked(list(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, marked)


def _marked(headers: RawHeaders) -> RawHeaders:
    """Return headers and what an answer does not say itself: the page has a policy of its own."""
    said = dict(headers)
    is_page = said.get(b"content-type", b"").startswith(b"text/html")
    added = HEADERS_OF_PAGES if is_page else HEADERS_OF_DATA
    return [*headers, *(pair for pair in added if pair[0] not in said)]


def _headers_of(passed: Passed) -> Mapping[str, str]:
    if passed.bucket is None or passed.taken is None:
        return {}
    return rate_headers(passed.bucket, passed.taken)


def _with_headers(send: Send, added: Mapping[str, str]) -> Send:
    if not added:
        return send

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(added)
        await send(message)

    return marked
