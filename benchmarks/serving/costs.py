"""Processor time: of service and Valkey for each event stored, and of the load beside them."""

import http.client
import os
import re
from pathlib import Path
from time import perf_counter

import redis

from benchmarks.serving.memory import worker_pids
from benchmarks.serving.processes import Server
from benchmarks.serving.requests import BenchmarkFailed, Load
from benchmarks.serving.stage import Bench

_ACCEPTED = re.compile(r'^sojourn_events_total\{status="accepted"\} (\S+)$', re.MULTILINE)


def cpu_s(pid: int) -> float:
    """Return the time that a process has run, all of its threads, in its own code and the kernel's.

    >>> 0 < cpu_s(os.getpid())
    True
    """
    # The name, the second field, is in brackets and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    user, system = (int(ticks) for ticks in fields[11:13])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def event_costs(bench: Bench, server: Server, load: Load, redis_url: str) -> tuple[float, float]:
    """Return the events of a load of posts per second that the service ran, and that Valkey ran.

    The service counts the events: what it stored after the load had ended is among them.
    """
    before = _totals(server, redis_url)
    bench.rate(server, load, bench.seconds)
    num_events, ours_s, valkey_s = (
        after - then for after, then in zip(_totals(server, redis_url), before, strict=True)
    )
    return num_events / ours_s, num_events / valkey_s


def _totals(server: Server, redis_url: str) -> tuple[float, float, float]:
    """Return the events accepted so far, and the seconds that service and Valkey have run."""
    ours_s = sum(cpu_s(pid) for pid in worker_pids(server.pid))
    return accepted_events(server.port), ours_s, valkey_cpu_s(redis_url)


def valkey_cpu_s(redis_url: str) -> float:
    """Return the time that Valkey's process has run."""
    with redis.Redis.from_url(redis_url) as client:
        found = client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def rate_beside_load(
    bench: Bench, server: Server, load: Load, redis_url: str
) -> tuple[float, float]:
    """Return a server's answers per second, and the cores that the load and Valkey took meanwhile.

    The generator is a child that has ended by then, or this process itself.
    """
    before_s, began_s = _load_cpu_s(redis_url), perf_counter()
    rate = bench.rate(server, load, bench.seconds)
    took_s = perf_counter() - began_s
    return rate, (_load_cpu_s(redis_url) - before_s) / took_s


def _load_cpu_s(redis_url: str) -> float:
    return sum(os.times()[:4]) + valkey_cpu_s(redis_url)


def accepted_events(port: int) -> float:
    """Return how many events the service has accepted since its start."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = _ACCEPTED.search(answer)
    if found is None:
        raise BenchmarkFailed("/metrics says nothing of accepted events")
    return float(found.group(1))
