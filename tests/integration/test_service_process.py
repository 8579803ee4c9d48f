"""The service as an operator runs it: `python -m service run`, a real Valkey, real signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.chaos.topologies import Servers
from service.contract import bundle as contract
from tests.builders import event_json, make_bundle
from tests.integration.processes import (
    READY_LINE,
    ROOT,
    TIMEOUT_S,
    log_lines,
    serving,
    start_service,
    stop,
    valkey_at,
)

pytestmark = pytest.mark.integration

MIDNIGHT = {"now": "2026-01-14T00:00:00+00:00"}


def post(client: httpx.Client, *items: str, user_id: str = "anna") -> dict[str, Any]:
    """Post an event on each of these items, and return the answer."""
    events = [event_json(item_id=item, user_id=user_id) for item in items]
    answer = client.post("/v1/events", json={"events": events})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def recommended(client: httpx.Client, user_id: str = "anna") -> list[str]:
    """Return the ids that a user is recommended."""
    answer = client.get(f"/v1/users/{user_id}/recommendations", params=MIDNIGHT)
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_a_posted_event_changes_the_answer_and_survives_a_restart(
    bundle_path: Path, tmp_path: Path
) -> None:
    """The whole promise on embedded Valkey: read your writes, and no lost history."""
    options = ("--embedded", "--data-dir", str(tmp_path / "data"))
    with serving(bundle_path, *options) as (process, client):
        before = recommended(client)
        posted = post(client, "action-1")
        after = recommended(client)
        assert process.end() == 0
    with serving(bundle_path, *options) as (process, client):
        restarted = recommended(client)
        again = post(client, "action-1")
        assert process.end() == 0
    assert posted["accepted"] == again["duplicates"] == 1
    assert before[0] == "drama-1"
    assert after[0] == restarted[0] == "action-1"
    assert after == restarted


def test_every_line_of_the_log_is_json_and_names_no_user(bundle_path: Path, tmp_path: Path) -> None:
    """Log collectors parse lines, and personal data does not belong in them."""
    with serving(bundle_path, "--data-dir", str(tmp_path)) as (process, client):
        recommended(client, "anna-the-user")
        post(client, "action-1", user_id="anna-the-user")
        client.get("/v1/users/anna-the-user/events?cursor=anna-the-user")
        users = {"from_user_id": "anna-the-user", "into_user_id": "also-the-user"}
        assert client.post("/v1/users/merge", json=users).json()["events"] == 1
        assert client.get("/v1/users/also-the-user").json()["num_events"] == 1
        assert client.delete("/v1/users/also-the-user").json()["events"] == 1
        assert client.delete("/v1/users", params={"user_id": "anna-the-user"}).is_success
        process.end()
    lines = log_lines(process)
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["route"] for line in requests][::6] == [
        "/v1/users/{user_id}/recommendations",
        "/v1/users",
    ]
    assert requests[0]["request_id"]
    [merged, erased, again] = [line for line in lines if line["logger"] == "service.store.people"]
    assert merged["into"] == erased["user"] != merged["user"] == again["user"]
    assert "the-user" not in process.output


def test_a_request_in_flight_is_finished_before_the_process_ends(
    bundle_path: Path, tmp_path: Path
) -> None:
    """SIGTERM comes with every rollout; the server has asked for the body when it arrives."""
    body = b'{"k": 1}'
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nHost: service\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with serving(bundle_path, "--data-dir", str(tmp_path)) as (process, client):
        address = urlsplit(str(client.base_url))
        with socket.create_connection((address.hostname, address.port), timeout=30) as caller:
            caller.sendall(head.encode())
            assert caller.recv(1_000).startswith(b"HTTP/1.1 100")
            process.popen.send_signal(signal.SIGTERM)
            process.wait_for("Shutting down")
            caller.sendall(body)
            answer = caller.recv(10_000)
        assert process.wait() == 0
    assert answer.startswith(b"HTTP/1.1 200")


def test_ctrl_c_ends_cleanly_too(bundle_path: Path, tmp_path: Path) -> None:
    """And it stops the embedded server: its directory can be used at once."""
    for _ in range(2):
        with serving(bundle_path, "--data-dir", str(tmp_path)) as (process, client):
            assert client.get("/readyz").status_code == 200
            assert process.end(signal.SIGINT) == 0


def test_metrics_of_two_workers_are_one_sum(bundle_path: Path, tmp_path: Path) -> None:
    """Each connection is taken by either worker; every scrape must see the requests of both."""
    num_calls = 40
    with serving(bundle_path, "--data-dir", str(tmp_path), workers=2) as (process, client):
        close = {"connection": "close"}
        for number in range(num_calls):
            events = {"events": [event_json(event_id=str(number))]}
            assert client.post("/v1/events", json=events, headers=close).json()["accepted"] == 1
        scrapes = [client.get("/metrics", headers=close).text for _ in range(8)]
        assert process.end() == 0
    for text in scrapes:
        assert f'sojourn_events_total{{status="accepted"}} {num_calls}.0' in text
        labels = 'method="POST",route="/v1/events",status="200"'
        assert f"sojourn_request_seconds_count{{{labels}}} {num_calls}.0" in text


def test_a_second_worker_sees_what_the_first_has_stored(bundle_path: Path, tmp_path: Path) -> None:
    """Processes share nothing but Redis, so whoever answers reads the event."""
    close = {"connection": "close"}
    with serving(bundle_path, "--data-dir", str(tmp_path), workers=2) as (_, client):
        client.headers.update(close)
        for number in range(12):
            user_id = f"user-{number}"
            post(client, "drama-2", user_id=user_id)
            assert recommended(client, user_id)[0] == "drama-1"
            answer = client.get(f"/v1/users/{user_id}/recommendations")
            assert answer.json()["source"] == "model"


def test_the_service_becomes_ready_when_redis_comes(
    bundle_path: Path, tmp_path: Path, free_port: int
) -> None:
    """Down at the start, up, down during requests, up: no restart, and no 500 in between."""
    with serving(bundle_path, "--redis", f"redis://127.0.0.1:{free_port}/0") as (process, client):
        answers = [readiness_and_source(client)]
        for _ in range(2):
            with valkey_at(free_port, tmp_path):
                until_ready(client)
                post(client, "action-1")
                answers.append(readiness_and_source(client))
            refused = client.post("/v1/events", json={"events": [event_json()]})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            answers.append(readiness_and_source(client))
        text = client.get("/metrics").text
        assert process.end() == 0
    down: tuple[int, int, str, list[str]] = (200, 503, "popular", ["redis"])
    up: tuple[int, int, str, list[str]] = (200, 200, "model", [])
    assert answers == [down, up, down, up, down]
    assert "sojourn_redis_errors_total{" in text
    assert "sojourn_unhandled_errors_total 0.0" in text


def until_ready(client: httpx.Client) -> None:
    """Return when the service is ready: a Redis that was away is tried again once a second."""
    end_s = time.monotonic() + TIMEOUT_S
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end_s, client.get("/readyz").text
        time.sleep(0.05)


def readiness_and_source(client: httpx.Client) -> tuple[int, int, str, list[str]]:
    """Return the statuses of liveness and readiness, and how a recommendation is made."""
    answer = client.get("/v1/users/anna/recommendations").json()
    live, ready = client.get("/livez").status_code, client.get("/readyz").status_code
    return live, ready, answer["source"], answer["degraded"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_flipped_byte_ends_the_start_with_the_reason(tmp_path: Path, workers: str) -> None:
    """A supervisor sees the exit code, a person the line; there is no traceback to wade through."""
    folder = make_bundle(tmp_path / "bundle")
    damaged = bytearray((folder / contract.ITEM_MATRIX_FILE).read_bytes())
    damaged[-1] ^= 1
    (folder / contract.ITEM_MATRIX_FILE).write_bytes(damaged)
    process = start_service(folder, "--data-dir", str(tmp_path / "data"), "--workers", workers)
    assert process.wait() != 0
    stop(process)
    assert "item_matrix.npy: SHA-256" in process.output
    assert "Traceback" not in process.output
    assert READY_LINE not in process.output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--redis", "redis://x", "--embedded"), "exclude each other"),
        (("--redis", "http://user:hunter2@x"), "redis_url"),
        (("--port", "70000"), "port"),
        (("--workers", "0"), "workers"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    bundle_path: Path, options: tuple[str, ...], reason: str
) -> None:
    """Which option, and what is wrong with it."""
    process = start_service(bundle_path, *options)
    assert process.wait() == 1
    assert process.output.startswith("error: ")
    assert reason in process.output
    assert "hunter2" not in process.output
    assert len(process.output.splitlines()) == 1


def test_a_port_that_is_taken_ends_the_start_in_one_line(bundle_path: Path) -> None:
    """Otherwise everything is started first, and only the server's own log says what is wrong."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start_service(bundle_path, "--port", str(port))
        assert process.wait() == 1
    assert process.output.startswith(f"error: port: cannot listen on 127.0.0.1:{port}")
    assert len(process.output.splitlines()) == 1


def test_the_bundle_may_come_from_the_environment(bundle_path: Path, tmp_path: Path) -> None:
    """As in a container, where no option is given."""
    env = os.environ | {"SOJOURN_BUNDLE": str(bundle_path), "SOJOURN_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "service", "run", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    with process, process.stderr:
        started = any(READY_LINE in line for line in process.stderr)
        process.terminate()
    assert started


def test_the_service_never_loads_torch(bundle_path: Path) -> None:
    """The serving image has none, and it would cost every worker hundreds of megabytes."""
    code = (
        "import sys, pathlib, service.__main__, service.app; "
        "from service.bundle_loader import load_bundle; "
        "load_bundle(pathlib.Path(sys.argv[1])); "
        "print(sorted({'torch', 'onnx', 'daft', 'training'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_cluster_serves_every_user_from_every_worker(bundle_path: Path, cluster: Servers) -> None:
    """Users are on three servers; whoever answers reads what the other worker stored."""
    with serving(bundle_path, "--redis", cluster.url, workers=2) as (process, client):
        client.headers.update({"connection": "close"})
        users = [f"of-cluster-{number}" for number in range(24)]
        for user_id in users:
            post(client, "drama-2", user_id=user_id)
        assert {recommended(client, user_id)[0] for user_id in users} == {"drama-1"}
        health = client.get("/healthz").json()
        assert (health["redis"], health["redis_breaker"]) == ("ok", "closed")
        assert client.delete(f"/v1/users/{users[0]}").json()["events"] == 1
        assert process.end() == 0
