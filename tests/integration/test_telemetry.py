"""Traces of the real service, as a collector of OpenTelemetry receives them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.errors import TelemetryMissing
from service.tracing import check_telemetry
from tests.builders import event_json
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.integration.otlp import Receiver, attributes, receiving
from tests.integration.processes import LoggedProcess, serving, start_service, stop

pytestmark = pytest.mark.integration

GET = "GET /v1/users/{user_id}/recommendations"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED = 0x01
SECRET = "anna-the-user"  # noqa: S105  # no password: what must not be found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Run a receiver for the module."""
    with receiving() as running:
        yield running


@contextmanager
def traced(
    bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, ratio: str = "1"
) -> Iterator[tuple[LoggedProcess, httpx.Client]]:
    """Run the service with traces to a URL, sent ten times a second."""
    monkeypatch.setenv("SOJOURN_TRACES_ENDPOINT", url)
    monkeypatch.setenv("SOJOURN_TRACES_RATIO", ratio)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(bundle, "--data-dir", str(folder)) as running:
        yield running


def recommend(client: httpx.Client, **headers: str) -> httpx.Response:
    """Ask for a user's recommendations."""
    path = f"/v1/users/{SECRET}/recommendations?k=3"
    return client.get(path, headers=headers)


def test_a_request_is_a_span_with_its_parts(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """Route, status, request id, what it waited for; and nothing of who asked for what."""
    with traced(bundle_path, tmp_path, monkeypatch, receiver.url) as (process, client):
        posted = event_json(user_id=SECRET, event_id="1")
        client.post("/v1/events", json={"events": [posted]})
        answer = recommend(client)
        missing = client.get(f"/v1/no-such-thing/{SECRET}")
        client.get("/readyz")
        [post] = receiver.named("POST /v1/events")
        [get] = receiver.named(GET)
        [unmatched] = receiver.named("GET unmatched")
        assert process.end() == 0
    assert [part.name for part in receiver.parts_of(post)] == ["redis-append"]
    assert [part.name for part in receiver.parts_of(get)] == ["redis-read", "ranker"]
    assert all(part.trace_id == get.trace_id for part in receiver.parts_of(get))
    assert attributes(receiver.parts_of(get)[1].attributes) == {"sojourn.batch.size": 1}
    assert attributes(get.attributes) == {
        "http.request.method": "GET",
        "http.route": "/v1/users/{user_id}/recommendations",
        "http.response.status_code": 200,
        "sojourn.request_id": answer.headers["x-request-id"],
    }
    named, _, flags = answer.headers["traceresponse"].rpartition("-")
    assert named == f"00-{get.trace_id.hex()}-{get.span_id.hex()}"
    assert int(flags, 16) & SAMPLED
    assert (missing.status_code, unmatched.status.code) == (404, Status.STATUS_CODE_UNSET)
    assert receiver.resources[0]["service.name"] == "sojourn"
    assert not any("readyz" in span.name for span in receiver.spans)
    assert SECRET not in "".join(map(str, receiver.spans))


def test_a_caller_s_trace_goes_on_here(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """As W3C Trace Context says: its id, its span as the parent, its choice before our ratio."""
    receiver.spans.clear()
    with traced(bundle_path, tmp_path, monkeypatch, receiver.url, "0") as (process, client):
        own = recommend(client)
        unsampled = recommend(client, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
        broken = recommend(client, traceparent="00-zz")
        sampled = recommend(client, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
        [span] = receiver.named(GET)
        assert process.end() == 0
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert sampled.headers["traceresponse"].startswith(f"00-{TRACE_ID}-")
    assert sum(span.name == GET for span in receiver.spans) == 1
    for answer in (own, unsampled, broken):
        assert answer.status_code == 200
        assert "traceresponse" not in answer.headers


@pytest.mark.parametrize("collector", ["dead", "slow"])
def test_a_collector_that_is_away_harms_no_answer(
    collector: str, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens, or every call takes a minute: answers come as ever, and so does the end."""
    with receiving() as receiver:
        receiver.delay_s = 60.0
        url = receiver.url if collector == "slow" else "http://127.0.0.1:9/v1/traces"
        with traced(bundle_path, tmp_path, monkeypatch, url) as (process, client):
            slowest_s = 0.0
            # More spans than wait to be sent: the oldest are dropped.
            for _ in range(800):
                began_s = time.monotonic()
                assert recommend(client).status_code == 200
                slowest_s = max(slowest_s, time.monotonic() - began_s)
            began_s = time.monotonic()
            assert process.end() == 0
            ended_s = time.monotonic() - began_s
    assert slowest_s < 1.0
    assert ended_s < 6.0
    assert collector == "dead" or receiver.num_calls > 0


def test_without_the_packages_the_start_says_what_to_install(
    bundle_path: Path, tmp_path: Path
) -> None:
    """One line and status 1, before anything is started."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n", "utf-8")
    env = dict(os.environ) | {
        "PYTHONPATH": str(tmp_path),
        "SOJOURN_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces",
    }
    process = start_service(bundle_path, "--data-dir", str(tmp_path / "data"), env=env)
    assert process.wait() == 1
    stop(process)
    assert process.output.startswith("error: traces_endpoint: the packages for traces are not")
    assert "pip install 'sojourn[telemetry]'" in process.output
    assert len(process.output.splitlines()) == 1


def test_telemetry_that_is_missing_is_told_only_if_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most services send no traces."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    check_telemetry(None)
    with pytest.raises(TelemetryMissing, match=r"sojourn\[telemetry\]"):
        check_telemetry("http://127.0.0.1:4318/v1/traces")


def test_without_traces_nothing_of_them_is_loaded() -> None:
    """Memory and time at the start for nothing; a part of the SDK is loaded by redis-py."""
    code = (
        "import sys, service.app\n"
        "loaded = [name for name in sys.modules if name.startswith("
        "('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'service.telemetry'))]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_the_framework_s_own_spans_stay_off(
    settings: Settings, bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold paths and queries; a global provider alone would begin them."""
    from opentelemetry import trace  # noqa: PLC0415  # the test's own
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # as above
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415  # as above
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415  # as above
        InMemorySpanExporter,
    )

    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    async with client_of(create_app(settings, **fake_stores(), bundle=bundle)) as client:
        await client.get(f"/v1/users/{SECRET}/recommendations")
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector/v1/traces", "http:///v1"])
def test_an_endpoint_is_a_whole_url(url: str) -> None:
    """A host alone would be taken for a scheme, and nothing would arrive anywhere."""
    with pytest.raises(ValueError, match="write the whole URL"):
        Settings(traces_endpoint=url)
