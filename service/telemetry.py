"""Traces: a span for each request that is chosen, one for each part of it, sent as OTLP over HTTP.

FastAPI's own telemetry puts the path and the query into its spans, which here are users' ids and
what they look for; so it is turned off, and these spans have the route's template instead. They are
sent in batches by a thread of their own: a collector that is slow or away costs spans, no answer.

Imported only where traces are wanted: OpenTelemetry is an extra.
"""

import threading

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import request_id
from service.middleware import METHODS, QUIET_ROUTES, route_of
from service.tracing import Part, request_trace

# W3C Trace Context; Level 2 has the name of the answer's.
TRACE_HEADERS = (b"traceparent", b"tracestate")
ANSWER_HEADER = b"traceresponse"
# How long one sending may take, its repeats included, and the last one at the end.
EXPORT_TIMEOUT_S = 5.0
FLUSH_S = 2.0
SERVER_ERROR = 500


class Telemetry:
    """Sends spans of a share of the requests to one endpoint, until it is closed.

    A caller's `traceparent` decides for its own requests whether they are traced.
    """

    def __init__(self, endpoint: str, ratio: float, version: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "sojourn", "service.version": version}),
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("sojourn", version)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose requests are traced."""
        return TracingMiddleware(app, self.tracer)

    def close(self) -> None:
        """Send what waits, and give up after a while; blocks so long."""
        # A thread that nobody waits for in the end: with a dead collector it may hang in a call.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(FLUSH_S)
        if sending.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # as published


class TracingMiddleware:
    """Gives a request that is chosen its span; inside the one that gives it its id."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP, and what machines ask for, passes through."""
        if scope["type"] != "http" or scope["path"] in QUIET_ROUTES:
            await self._app(scope, receive, send)
            return
        span = self._span(scope)
        if not span.is_recording():
            await self._app(scope, receive, send)
            return
        await self._traced(span, scope, receive, send)

    def _span(self, scope: Scope) -> Span:
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in TRACE_HEADERS
        }
        return self._tracer.start_span(
            _method(scope), self._propagator.extract(carrier), SpanKind.SERVER
        )

    async def _traced(self, span: Span, scope: Scope, receive: Receive, send: Send) -> None:
        own = span.get_span_context()
        named = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}".encode()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (ANSWER_HEADER, named)]
            await send(message)

        token = request_trace.set(_Trace(self._tracer, set_span_in_context(span)))
        error: Exception | None = None
        try:
            await self._app(scope, receive, answer)
        except Exception as exc:
            error = exc
            raise
        finally:
            request_trace.reset(token)
            _finish(span, scope, status, error)


class _Trace:
    """Begins the parts of one request."""

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self._tracer = tracer
        self._context = context

    def part(self, name: str) -> Part:
        """Begin a part, from when it is asked for."""
        return _Part(self._tracer.start_span(name, self._context))


class _Part:
    """The span of a part: its wait is up to the event `begun`, the rest is work."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def begin(self, num_together: int) -> None:
        """Note that the wait is over, and how many requests the work is done for together."""
        self._span.add_event("begun")
        self._span.set_attribute("sojourn.batch.size", num_together)

    def end(self, error: BaseException | None) -> None:
        """Note the end; an error by its kind only, since its words may name a user."""
        if error is not None:
            _fail(self._span, type(error).__name__)
        self._span.end()


def _finish(span: Span, scope: Scope, status: int, error: Exception | None) -> None:
    route = route_of(scope)
    span.update_name(f"{_method(scope)} {route}")
    span.set_attributes(
        {
            "http.request.method": _method(scope),
            "http.route": route,
            "sojourn.request_id": request_id.get(),
        }
    )
    if status:
        span.set_attribute("http.response.status_code", status)
    if error is not None:
        _fail(span, type(error).__name__)
    elif status >= SERVER_ERROR or not status:
        _fail(span, str(status or "no answer"))
    span.end()


def _method(scope: Scope) -> str:
    """Return the method, a word of the convention for what is none."""
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
