"""Closed-loop throughput by wrk, where it is installed."""

import math
import re
import subprocess
import tempfile
from pathlib import Path

from benchmarks.serving.requests import BenchmarkFailed, Load

SCRIPT = Path(__file__).with_name("wrk.lua")
GRACE_S = 30.0
_RESULT = re.compile(
    r"^RESULT requests=(\d+) duration_us=(\d+) bad=(\d+) failed=(\d+)$", re.MULTILINE
)
_BAD = re.compile(r"^BAD (.*)$", re.MULTILINE)


def run_wrk(port: int, load: Load, *, connections: int, seconds: float, first_ms: int) -> float:
    """Return the answers per second of one thread of wrk; raises BenchmarkFailed for a wrong one.

    wrk counts whole seconds, so `seconds` is rounded up.
    """
    whole = math.ceil(seconds)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requests:
        requests.writelines(request.line() for request in load.requests)
        requests.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s"]
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}/"]
        command += ["--", requests.name, load.expected, str(first_ms)]
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, check=False, timeout=whole + GRACE_S
        )
    return rate_of(done.stdout + done.stderr)


def rate_of(output: str) -> float:
    """Return the answers per second in the script's output; raises BenchmarkFailed."""
    found = _RESULT.search(output)
    if found is None:
        raise BenchmarkFailed(f"wrk gave no result: {output.strip()[-500:]}")
    requests, duration_us, bad, failed = (int(number) for number in found.groups())
    if bad or failed or not requests:
        first = _BAD.search(output)
        said = f", the first: {first.group(1)}" if first else ""
        raise BenchmarkFailed(f"wrk: {requests} answers, {bad} wrong, {failed} failed{said}")
    return requests / (duration_us / 1_000_000)
