"""Two replicas on one Valkey: what is said to one of them, the other one knows.

An event is read from the other replica right after its post. An item that is put on one is to be
recommended, and to have similar ones, on the other within a second; so is one that is taken away
to be gone. A model that is activated on one is to be served by the other within a second.

    python -m deploy.chaos.replicas
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deploy.chaos.asking import OK, Connection, ask_once
from deploy.chaos.bundles import CATEGORIES, folder_of_bundles
from deploy.chaos.programs import ProofFailed, free_port, run_proof, service, valkey

WITHIN_S = 1.0
NUM_ITEMS = 500
DIM = 32
POLL_S = 0.01
# How long something is waited for before it counts as never.
PATIENCE_S = 10.0


class Replica:
    """One of the two, over one connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = Connection(port)

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer, which must be a success."""
        answer = await self._connection.ask(method, path, body)
        if answer.status != OK:
            raise ProofFailed(f"{method} {path}: {answer.status}: {answer.body.decode()[:300]}")
        return answer.json()

    async def shows(self, item_id: str) -> bool:
        """Say whether an item is recommended, and has similar items, here."""
        condition = {"key": "attributes.brand", "match": {"value": item_id}}
        body = {"k": 1, "filter": {"must": [condition]}}
        items = (await self.ask("POST", "/v1/recommendations", body))["items"]
        similar = await self._connection.ask("GET", f"/v1/items/{item_id}/similar?k=3")
        return [one["item_id"] for one in items] == [item_id] and similar.status == OK

    async def hides(self, item_id: str) -> bool:
        """Say whether an item is recommended no more."""
        return not await self.shows(item_id)

    async def version(self) -> str:
        """Return the model that an answer names."""
        answer = await self.ask("GET", "/v1/users/nobody/recommendations?k=1")
        return str(answer["model_version"])

    async def activate(self, version: str) -> None:
        """Ask for a model; it may take as long as a load does."""
        await ask_once(self._port, "POST", f"/v1/models/{version}/activate")

    def close(self) -> None:
        """Close the connection."""
        self._connection.abort()


def main() -> int:
    """Run the proof; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--posts", type=int, default=200)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--switches", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis_port, ports = free_port(), (free_port(), free_port())
        bundles = folder / "bundles"
        versions = folder_of_bundles(bundles, ("one", "two"), NUM_ITEMS, DIM)
        url = f"redis://127.0.0.1:{redis_port}"
        with (
            valkey(folder, redis_port),
            service(bundles, folder, ports[0], url, name="one"),
            service(bundles, folder, ports[1], url, name="two"),
        ):
            report = asyncio.run(prove(ports, versions, arguments))
    print(json.dumps(report))
    late = [part for part, figures in report.items() if figures.get("max_ms", 0) > 1_000 * WITHIN_S]
    return int(bool(late or report["events"]["not_read"]))


async def prove(
    ports: tuple[int, int], versions: list[str], arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return the figures of each part; every second time the replicas change parts."""
    one, two = Replica(ports[0]), Replica(ports[1])
    pairs = ((one, two), (two, one))
    not_read = [
        number for number in range(arguments.posts) if not await is_read(*pairs[number % 2], number)
    ]
    shown, hidden = [], []
    for number in range(arguments.items):
        here, there = pairs[number % 2]
        shown.append(await put(here, there, number))
        hidden.append(await hide(here, there, number))
    switched = [
        await switch(*pairs[number % 2], versions[(number + 1) % 2])
        for number in range(arguments.switches)
    ]
    for replica in (one, two):
        replica.close()
    return {
        "events": {"posts": arguments.posts, "not_read": len(not_read)},
        "items_shown": figures(shown),
        "items_hidden": figures(hidden),
        "models": figures(switched),
    }


async def is_read(here: Replica, there: Replica, number: int) -> bool:
    """Say whether the other replica shows an event as soon as its post is answered."""
    now_ms = time.time_ns() // 1_000_000
    item_id = f"item-{number}"
    event = {"user_id": "anna", "item_id": item_id, "event_type": "view", "timestamp": now_ms}
    await here.ask("POST", "/v1/events", {"events": [event]})
    page = await there.ask("GET", "/v1/users/anna/events?limit=5")
    return item_id in [one["item_id"] for one in page["events"]]


async def put(here: Replica, there: Replica, number: int) -> float:
    """Put a new item here; return the seconds until it is shown there."""
    item_id = f"new-{number}"
    body = {"categories": [CATEGORIES[0]], "attributes": {"brand": item_id}}
    await here.ask("PUT", f"/v1/items/{item_id}", body)
    return await seconds_until(lambda: there.shows(item_id))


async def hide(here: Replica, there: Replica, number: int) -> float:
    """Say that an item is not available; return the seconds until it is shown there no more."""
    item_id = f"new-{number}"
    await here.ask("POST", "/v1/items", {"items": [{"item_id": item_id, "available": False}]})
    return await seconds_until(lambda: there.hides(item_id))


async def switch(here: Replica, there: Replica, version: str) -> float:
    """Activate a model here; return the seconds until it is served there."""
    await here.activate(version)

    async def is_there() -> bool:
        return await there.version() == version

    return await seconds_until(is_there)


async def seconds_until(is_so: Callable[[], Awaitable[bool]]) -> float:
    """Return how long it took from now on; raises ProofFailed after PATIENCE_S."""
    began = time.monotonic()
    while not await is_so():
        if time.monotonic() - began > PATIENCE_S:
            raise ProofFailed(f"the other replica did not follow within {PATIENCE_S:g} s")
        await asyncio.sleep(POLL_S)
    return time.monotonic() - began


def figures(seconds: list[float]) -> dict[str, Any]:
    """Return number, median and maximum of durations."""
    return {
        "times": len(seconds),
        "median_ms": round(1_000 * statistics.median(seconds), 1),
        "max_ms": round(1_000 * max(seconds), 1),
    }


if __name__ == "__main__":
    sys.exit(run_proof(main))
