"""Check that what was acknowledged outlives a restart of Redis and of the service.

Run it while the services of docker-compose.yml are up, with BASE_URL set if they are not at
http://127.0.0.1:8000. COMPOSE names the command, `docker-compose` or `docker compose`.
Exits 1 and says why when something was lost.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
READY_TIMEOUT_S = 120
NUM_EVENTS = 3
K = 10

# A proxy of the environment is not for our own service.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Lost(Exception):
    """The service does not remember what it acknowledged."""


def main() -> int:
    """Run the check; return the exit status."""
    user_id = f"restart-{uuid.uuid4().hex[:8]}"
    # One instant for every question, so that only the events can change the answers.
    now_ms = time.time_ns() // 1_000_000
    try:
        stranger = recommend("nobody-" + user_id, now_ms)
        events = make_events(user_id, stranger, now_ms)
        expect(post(events), accepted=len(events), duplicates=0)
        before = recommend(user_id, now_ms)
        print(f"stranger: {stranger}\nbefore:   {before}")
        check(before != stranger, "the events do not show in the recommendations")
        restart()
        after = recommend(user_id, now_ms)
        print(f"after:    {after}")
        check(after == before, "the recommendations changed with the restart")
        expect(post(events), accepted=0, duplicates=len(events))
        check(recommend(user_id, now_ms) == before, "repeated events changed the recommendations")
    except (Lost, OSError, subprocess.CalledProcessError) as exc:
        print(f"after the restart: {exc}", file=sys.stderr)
        return 1
    print(f"after the restart of redis and service all {len(events)} events are remembered")
    return 0


def make_events(user_id: str, item_ids: list[str], now_ms: int) -> list[dict[str, Any]]:
    """Return events on the last of the given items, a minute apart, before now."""
    return [
        {"user_id": user_id, "item_id": item_id, "event_type": "rating", "value": 5.0,
         "timestamp": now_ms - 60_000 * (NUM_EVENTS - position)}
        for position, item_id in enumerate(item_ids[-NUM_EVENTS:])
    ]  # fmt: skip


def post(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Post events; return the answer."""
    return call("/v1/events", {"events": events})


def recommend(user_id: str, now_ms: int) -> list[str]:
    """Return the item ids recommended to a user at a fixed time."""
    query = urllib.parse.urlencode({"k": K, "now": now_ms})
    answer = call(f"/v1/users/{user_id}/recommendations?{query}")
    if answer["degraded"]:
        raise Lost(f"the answer is degraded: {answer['degraded']}")
    return [item["item_id"] for item in answer["items"]]


def restart() -> None:
    """Restart both services and wait until the service is ready again."""
    default = "docker-compose" if shutil.which("docker-compose") else "docker compose"
    command = [*shlex.split(os.environ.get("COMPOSE", default)), "restart", "redis", "service"]
    print(f"$ {shlex.join(command)}", flush=True)
    subprocess.run(command, check=True)  # noqa: S603  # the caller's own compose
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            http.open(f"{BASE_URL}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise Lost(f"not ready within {READY_TIMEOUT_S} s")


def call(path: str, body: object = None) -> dict[str, Any]:
    """GET, or POST a body; return the JSON answer; raise Lost with a problem's detail."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(BASE_URL + path, data, headers)  # noqa: S310  # the caller's
    try:
        with http.open(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as exc:
        problem = exc.read().decode(errors="replace")
        raise Lost(f"{path}: {exc.code}: {problem}") from exc
    return answer


def expect(answer: dict[str, Any], *, accepted: int, duplicates: int) -> None:
    """Raise Lost unless the answer counts so many accepted and duplicate events."""
    found = (answer["accepted"], answer["duplicates"])
    check(found == (accepted, duplicates), f"expected {accepted}, {duplicates}: {answer}")


def check(fact: bool, otherwise: str) -> None:
    """Raise Lost unless a fact holds."""
    if not fact:
        raise Lost(otherwise)


if __name__ == "__main__":
    sys.exit(main())
