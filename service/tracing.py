"""What a request says about its own time, while it is traced; nothing otherwise.

Whoever works for many requests at once finds the trace of each in its context, and needs to know
nothing of OpenTelemetry, which `service.telemetry` loads where traces are wanted.
"""

from contextvars import ContextVar
from importlib.util import find_spec
from typing import Protocol

from service.errors import TelemetryMissing

# What the extra `telemetry` brings.
EXTRA_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class Part(Protocol):
    """One part of a request's work, from when it was asked for to its end."""

    def begin(self, num_together: int) -> None:
        """Note that the wait is over, and how many requests the work is done for together."""
        ...

    def end(self, error: BaseException | None) -> None:
        """Note the end, and what it ended with, if that was an error."""
        ...


class RequestTrace(Protocol):
    """The trace of one request."""

    def part(self, name: str) -> Part:
        """Begin a part of the request's work."""
        ...


# Set for the time of one request, if it is traced.
request_trace: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)


def begin_part(name: str) -> Part | None:
    """Begin a part of the work of this context's request; None if the request is not traced."""
    trace = request_trace.get()
    return None if trace is None else trace.part(name)


def check_telemetry(endpoint: str | None) -> None:
    """Raise TelemetryMissing if traces are wanted and the packages for them are not there."""
    if endpoint is None or all(map(_is_there, EXTRA_MODULES)):
        return
    raise TelemetryMissing(
        "traces_endpoint: the packages for traces are not installed; "
        "pip install 'sojourn[telemetry]', or leave SOJOURN_TRACES_ENDPOINT out"
    )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        # Not even the package that it is in.
        return False
