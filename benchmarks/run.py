"""Latency and throughput of a bundle on this machine, against the bare server.

Starts the service on its embedded Valkey, gives users histories, and measures in turn, five rounds:
/livez (the same server and middleware, doing nothing), GET recommendations for users with 0, 20 and
200 events, POST of one and of 50 events. One client, one keep-alive connection, on loopback.
Prints medians over the rounds and ratios within a round; machines differ, ratios less so.

    python benchmarks/run.py --bundle bundles --json bench.json
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from service.contract.bundle import ITEMS_FILE, read_manifest, resolve_bundle

ROUNDS = 5
HISTORIES = (0, 20, 200)
BASE = "livez"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("bundles"))
    parser.add_argument("--requests", type=int, default=400, help="per case and round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundle = resolve_bundle(arguments.bundle)
    with running_service(bundle) as port:
        client = Client(port)
        cases = make_cases(client, bundle)
        rounds = [
            {name: measure(call, arguments.requests) for name, call in cases.items()}
            for _ in range(ROUNDS)
        ]
    report = summarise(rounds, bundle)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


class Client:
    """One keep-alive connection; any answer but 200 ends the benchmark."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def get(self, path: str) -> None:
        """GET a path and read the answer."""
        self._connection.request("GET", path)
        self._finish(path)

    def post(self, path: str, body: object) -> None:
        """POST a JSON body and read the answer."""
        headers = {"content-type": "application/json"}
        self._connection.request("POST", path, json.dumps(body), headers)
        self._finish(path)

    def _finish(self, path: str) -> None:
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            sys.exit(f"{path}: {response.status}: {answer.decode()}")


def make_cases(client: Client, bundle: Path) -> dict[str, Callable[[int], None]]:
    """Store the histories and return what is measured, by name, each called with a number."""
    items = pq.read_table(bundle / ITEMS_FILE)["item_id"].to_pylist()
    now_ms = time.time_ns() // 1_000_000

    def events(user: str, count: int, first: int) -> dict[str, object]:
        rows = [
            {
                "user_id": user,
                "item_id": items[(first + place) % len(items)],
                "event_type": "view",
                "timestamp": now_ms - 1_000_000 + first + place,
            }
            for place in range(count)
        ]
        return {"events": rows}

    for length in HISTORIES[1:]:
        client.post("/v1/events", events(f"bench-{length}", length, 0))
    cases: dict[str, Callable[[int], None]] = {BASE: lambda _: client.get("/livez")}
    for length in HISTORIES:
        path = f"/v1/users/bench-{length}/recommendations?k=10"
        cases[f"get_{length}_events"] = lambda _, path=path: client.get(path)  # type: ignore[misc]  # bound per case
    for count in (1, 50):
        # Numbered, so that each POST appends new events to a full history.
        cases[f"post_{count}_events"] = lambda number, count=count: client.post(  # type: ignore[misc]  # bound per case
            "/v1/events", events(f"bench-post-{count}", count, number * count)
        )
    return cases


def measure(call: Callable[[int], None], num_requests: int) -> list[float]:
    """Return the seconds of each request, after a tenth of them as warm-up."""
    for number in range(num_requests // 10):
        call(number)
    seconds = []
    for number in range(num_requests):
        started = time.perf_counter()
        call(num_requests + number)
        seconds.append(time.perf_counter() - started)
    return seconds


def summarise(rounds: list[dict[str, list[float]]], bundle: Path) -> dict[str, object]:
    """Return medians over the rounds of each round's percentiles, and ratios to the bare server."""
    manifest = read_manifest(bundle)
    cases = {}
    for name in rounds[0]:
        quantiles = [statistics.quantiles(taken[name], n=100) for taken in rounds]
        ratios = [statistics.median(t[BASE]) / statistics.median(t[name]) for t in rounds]
        cases[name] = {
            "p50_ms": statistics.median(q[49] for q in quantiles) * 1000,
            "p95_ms": statistics.median(q[94] for q in quantiles) * 1000,
            "p99_ms": statistics.median(q[98] for q in quantiles) * 1000,
            "ratio_bare": statistics.median(ratios),
        }
    return {
        "bundle": manifest.bundle_version,
        "num_items": manifest.num_items,
        "window_len": manifest.features.window_len,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "rounds": len(rounds),
        "cases": cases,
    }


def show(report: dict[str, object]) -> None:
    """Print the report as a table."""
    print(
        f"bundle {report['bundle']}: {report['num_items']} items, window {report['window_len']}; "
        f"{report['cores']} cores, {report['rounds']} rounds"
    )
    print(f"{'case':<16}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'bare ÷ it':>11}")
    cases = report["cases"]
    assert isinstance(cases, dict)  # noqa: S101 - built a few lines above
    for name, figures in cases.items():
        print(
            f"{name:<16}{figures['p50_ms']:>9.2f}{figures['p95_ms']:>9.2f}"
            f"{figures['p99_ms']:>9.2f}{figures['ratio_bare']:>11.2f}"
        )


@contextlib.contextmanager
def running_service(bundle: Path) -> Iterator[int]:
    """Run the service on a free port and a fresh data folder; yield the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as data_dir:
        command = [sys.executable, "-m", "service", "run", "--bundle", str(bundle), "--embedded"]
        command += ["--port", str(port), "--data-dir", data_dir]
        environment = os.environ | {"SOJOURN_LOG_LEVEL": "WARNING"}
        service = subprocess.Popen(command, env=environment)  # noqa: S603 - our own program
        try:
            wait_until_ready(port, service)
            yield port
        finally:
            service.terminate()
            service.wait(30)


def wait_until_ready(port: int, service: "subprocess.Popen[bytes]") -> None:
    """Return when /readyz answers 200; exit if the service ends or takes a minute."""
    for _ in range(300):
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return
        if service.poll() is not None:
            break
        time.sleep(0.2)
    sys.exit("the service did not become ready")


if __name__ == "__main__":
    main()
