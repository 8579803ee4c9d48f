"""A small receiver of OTLP over HTTP: it reads spans as any collector does."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.processes import seconds_until


class Receiver:
    """The spans that arrived; `delay_s` is how long every answer takes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.delay_s = 0.0
        self.num_calls = 0
        self.closing = threading.Event()

    def take(self, body: bytes) -> None:
        """Read what one call brings."""
        request = ExportTraceServiceRequest.FromString(body)
        for one in request.resource_spans:
            self.resources.append(attributes(one.resource.attributes))
            for scope in one.scope_spans:
                self.spans.extend(scope.spans)

    def named(self, name: str, number: int = 1) -> list[Span]:
        """Return the spans of a name once there are so many."""
        seconds_until(lambda: sum(span.name == name for span in self.spans) >= number)
        return [span for span in self.spans if span.name == name]

    def parts_of(self, request: Span) -> list[Span]:
        """Return the spans whose parent is a request's."""
        return [span for span in self.spans if span.parent_span_id == request.span_id]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver at a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            receiver.num_calls += 1
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                receiver.take(body)
            receiver.closing.wait(receiver.delay_s)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def attributes(pairs: Any) -> dict[str, Any]:
    """Return attributes as a dictionary of their values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
