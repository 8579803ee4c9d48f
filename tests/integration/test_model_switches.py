"""Models on real processes: two replicas on one Valkey, kills, and twenty reloads under load."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.contract import bundle as contract
from service.store.embedded import EmbeddedValkey
from tests.folders import add_bundle, flip_a_byte, point_at
from tests.integration.processes import LoggedProcess, log_lines, seconds_until, serving

pytestmark = pytest.mark.integration

FOLLOW_WITHIN_S = 1.0
NUM_WARM_UP_RELOADS = 6
NUM_RELOADS = 20
NUM_CALLERS = 4
# A reload of a tiny bundle may leave a page here and there; the process has about 150 MB.
MAX_GROWTH = 1.05
ONE_CONNECTION_EACH = {"connection": "close"}


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a Valkey that outlives the services."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server.url


@contextmanager
def replicas(folder: Path, redis_url: str, number: int = 2) -> Iterator[list[httpx.Client]]:
    """Run services on one folder and one Valkey."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(serving(folder, "--redis", redis_url)) for _ in range(number)
        ]
        yield [client for _, client in started]


def version_of(client: httpx.Client) -> str:
    """Return the version that an answer names."""
    answer = client.get("/v1/users/anna/recommendations", headers=ONE_CONNECTION_EACH)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model_version"])


def activate(client: httpx.Client, version: str) -> httpx.Response:
    """Ask for a version."""
    return client.post(f"/v1/models/{version}/activate")


def test_what_is_activated_on_one_replica_the_other_serves_within_a_second(
    folder: Path, old: str, new: str, redis_url: str
) -> None:
    """And a rollback too, asked of the other one."""
    with replicas(folder, redis_url) as (one, other):
        before = version_of(one), version_of(other)
        assert activate(one, new).status_code == 200
        there = seconds_until(lambda: version_of(other) == new)
        at_once = version_of(one)
        told = seconds_until(lambda: served_by_all(one) == [new, new])
        assert other.post("/v1/models/rollback").json()["active"] == old
        back = seconds_until(lambda: version_of(one) == old)
    assert (before, at_once) == ((old, old), new)
    assert max(there, back, told) < FOLLOW_WITHIN_S


def test_two_replicas_that_are_asked_for_different_models_end_on_one(
    folder: Path, old: str, new: str, redis_url: str
) -> None:
    """Whichever came last: no replica stays on its own."""
    third = add_bundle(folder, "third")
    with replicas(folder, redis_url) as clients, ThreadPoolExecutor(2) as pool:
        for versions in ((new, third), (third, old), (old, new)):
            answers = list(pool.map(activate, clients, versions))
            assert [answer.json()["active"] for answer in answers] == list(versions)
            end = str(listed(clients[0])["active"])
            assert end in versions
            seconds_until(lambda: {version_of(client) for client in clients} == {end})  # noqa: B023  # asked at once


def test_a_damaged_bundle_leaves_both_replicas_on_the_old_one(
    folder: Path, old: str, new: str, redis_url: str
) -> None:
    """By a call and by a moved pointer; the reason is in the answer, in health and in the log."""
    flip_a_byte(folder / new / contract.ITEM_MATRIX_FILE)
    with replicas(folder, redis_url) as clients:
        refused = activate(clients[0], new)
        point_at(folder, new, at_s=int(time.time()))
        for client in clients:
            seconds_until(partial(is_behind, client))
        states = [(health(client)["status"], version_of(client)) for client in clients]
    assert (refused.status_code, states) == (409, [("ready", old)] * 2)
    assert "item_matrix.npy: SHA-256" in refused.json()["detail"]


def served_by_all(client: httpx.Client) -> list[str]:
    """Return the version that each process says it serves."""
    return [process["version"] for process in listed(client)["processes"]]


def is_behind(client: httpx.Client) -> bool:
    """Say whether a replica cannot serve what it should."""
    return bool(health(client)["model_problems"])


def health(client: httpx.Client) -> dict[str, Any]:
    """Return what health says."""
    return dict(client.get("/healthz").json())


def test_a_killed_service_comes_back_with_what_was_announced(
    folder: Path, old: str, new: str, redis_url: str
) -> None:
    """CURRENT still names the old one, which is not what the other replicas serve."""
    with serving(folder, "--redis", redis_url) as (process, client):
        assert activate(client, new).status_code == 200
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
    with serving(folder, "--redis", redis_url) as (_, client):
        assert version_of(client) == new
        states = {model["version"]: model["state"] for model in listed(client)["models"]}
    assert states == {old: "previous", new: "active"}


def listed(client: httpx.Client) -> dict[str, Any]:
    """Return the list of models."""
    return dict(client.get("/v1/models").json())


def test_a_moved_pointer_is_followed_by_every_worker(
    folder: Path, old: str, new: str, tmp_path: Path
) -> None:
    """An export moves CURRENT; each connection is taken by either of the two workers."""
    options = ("--data-dir", str(tmp_path / "data"))
    with serving(folder, *options, workers=2) as (process, client):
        assert {version_of(client) for _ in range(8)} == {old}
        point_at(folder, new, at_s=int(time.time()))
        seconds_until(lambda: {version_of(client) for _ in range(8)} == {new})
        text = client.get("/metrics", headers=ONE_CONNECTION_EACH).text
        assert process.end() == 0
    shown = [line for line in text.splitlines() if line.startswith("sojourn_bundle_info{")]
    assert shown == [f'sojourn_bundle_info{{name="new",version="{new}"}} 1.0']
    assert "sojourn_model_switches_total 2.0" in text


class Callers:
    """Threads that ask for recommendations without a pause, and count what they are told."""

    def __init__(self, client: httpx.Client) -> None:
        self.versions: Counter[str] = Counter()
        self._client = client
        self._stopping = threading.Event()

    def __enter__(self) -> "Callers":
        self._pool = ThreadPoolExecutor(NUM_CALLERS)
        self._running = [self._pool.submit(self._call) for _ in range(NUM_CALLERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()
        for caller in self._running:
            caller.result()

    def _call(self) -> None:
        while not self._stopping.is_set():
            answer = self._client.get("/v1/users/anna/recommendations")
            assert answer.status_code == 200, answer.text
            body = answer.json()
            assert body["source"] == "model", body
            assert body["degraded"] == [], body
            self.versions[body["model_version"]] += 1


def test_twenty_reloads_under_load_lose_no_request_and_keep_no_memory(
    folder: Path, old: str, new: str, tmp_path: Path
) -> None:
    """What a reload keeps, a year of daily models would not fit in."""
    event = {"user_id": "anna", "item_id": "action-1", "event_type": "view", "timestamp": 1}
    options = ("--data-dir", str(tmp_path / "data"))
    with serving(folder, *options) as (process, client):
        assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
        with Callers(client) as callers:
            reload(client, (new, old), NUM_WARM_UP_RELOADS)
            before = resident_bytes(process)
            took_s = reload(client, (new, old), NUM_RELOADS)
            after = resident_bytes(process)
        text = client.get("/metrics").text
        assert process.end() == 0
    switches = NUM_WARM_UP_RELOADS + NUM_RELOADS
    assert f"sojourn_model_switches_total {switches}.0" in text
    assert set(callers.versions) == {old, new}
    assert not [line for line in log_lines(process) if line.get("level") == "error"]
    growth = after / before
    figures = {
        "requests": sum(callers.versions.values()),
        "reload_ms": round(1_000 * took_s / NUM_RELOADS, 1),
        "rss_before_mb": round(before / 1e6, 1),
        "rss_growth": round(growth, 4),
    }
    print(json.dumps(figures))  # noqa: T201  # shown with -s, for docs/operations.md
    assert growth < MAX_GROWTH, figures


def reload(client: httpx.Client, versions: tuple[str, str], times: int) -> float:
    """Activate two versions in turn and return how long it took, in seconds."""
    began = time.monotonic()
    for number in range(times):
        assert activate(client, versions[number % 2]).status_code == 200
    return time.monotonic() - began


def resident_bytes(process: LoggedProcess) -> int:
    """Return the memory of a process that is in RAM; skips where the system does not say."""
    status = Path(f"/proc/{process.popen.pid}/status")
    if not status.exists():
        pytest.skip("no /proc here")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1_024
