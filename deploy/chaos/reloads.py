"""Twenty switches of models under 200 requests a second: none may fail, and nothing may stay.

Two bundles of a realistic size are activated in turn while recommendations are asked for at a
fixed rate, whatever the answers take. Before the memory is looked at, some switches warm up what
allocators and caches keep.

    python -m deploy.chaos.reloads
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from deploy.chaos.asking import BROKEN, OK, Connection, ask_once
from deploy.chaos.bundles import folder_of_bundles
from deploy.chaos.programs import Program, free_port, run_proof, service, valkey

NUM_ITEMS = 3_500
DIM = 64
NUM_USERS = 50
EVENTS_EACH = 50
# Enough that a second of waiting does not hold the others up.
NUM_CONNECTIONS = 64
WARM_UP_RELOADS = 6
PAUSE_S = 0.5
MAX_GROWTH = 1.05
PATIENT = {"REDIS_TIMEOUT_MS": "10000", "REQUEST_DEADLINE_MS": "20000", "WATCH_BUNDLES": "false"}


class Load:
    """Asks at a fixed rate, and counts what it is told."""

    def __init__(self, port: int, per_s: float) -> None:
        self.versions: Counter[str] = Counter()
        self.failed: list[str] = []
        self.slowest_s = 0.0
        self.offered_per_s = 0.0
        self._port = port
        self._per_s = per_s
        self._free: asyncio.Queue[Connection] = asyncio.Queue()

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until told to stop, and wait for the last answers."""
        for _ in range(NUM_CONNECTIONS):
            self._free.put_nowait(Connection(self._port))
        began, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as asked:
            while not stopping.is_set():
                asked.create_task(self._ask(number))
                number += 1
                await asyncio.sleep(max(0.0, began + number / self._per_s - time.monotonic()))
            self.offered_per_s = number / (time.monotonic() - began)
        while not self._free.empty():
            self._free.get_nowait().abort()

    async def _ask(self, number: int) -> None:
        began = time.monotonic()
        connection = await self._free.get()
        path = f"/v1/users/user{number % NUM_USERS}/recommendations"
        try:
            answer = await connection.ask("GET", path)
        except BROKEN as exc:
            self.failed.append(repr(exc))
        else:
            body = answer.json()
            if answer.status == OK and body["source"] == "model" and not body["degraded"]:
                self.versions[body["model_version"]] += 1
            else:
                self.failed.append(answer.body.decode()[:300])
        finally:
            self._free.put_nowait(connection)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def main() -> int:
    """Run the proof; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--per-s", type=float, default=200.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, redis_port = free_port(), free_port()
        bundles = folder / "bundles"
        versions = folder_of_bundles(bundles, ("one", "two"), NUM_ITEMS, DIM)
        url = f"redis://127.0.0.1:{redis_port}"
        with valkey(folder, redis_port), service(bundles, folder, port, url, **PATIENT) as program:
            report = asyncio.run(prove(program, port, versions, arguments))
    print(json.dumps(report))
    return int(report["failed"] > 0 or report["rss_growth"] > MAX_GROWTH)


async def prove(
    program: Program, port: int, versions: list[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Switch under load and return the figures."""
    await set_up(port)
    load, stopping = Load(port, arguments.per_s), asyncio.Event()
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stopping))
        await switch(port, versions, WARM_UP_RELOADS)
        before = program.resident_bytes()
        took_s = await switch(port, versions, arguments.reloads)
        after = program.resident_bytes()
        stopping.set()
    asked = sum(load.versions.values()) + len(load.failed)
    for line in load.failed[:5]:
        print(line, file=sys.stderr)
    return {
        "reloads": arguments.reloads,
        "reload_ms": round(1_000 * took_s / arguments.reloads),
        "requests": asked,
        "offered_per_s": round(load.offered_per_s),
        "answered_per_s": round(asked / (time.monotonic() - began)),
        "failed": len(load.failed),
        "slowest_ms": round(1_000 * load.slowest_s),
        "served_by": len(load.versions),
        "rss_before_mb": round(before / 1e6, 1),
        "rss_after_mb": round(after / 1e6, 1),
        "rss_growth": round(after / before, 4),
    }


async def set_up(port: int) -> None:
    """Give every user a history that the model can read."""
    now_ms = time.time_ns() // 1_000_000
    for user in range(NUM_USERS):
        events = [
            {
                "user_id": f"user{user}",
                "item_id": f"item-{(user * 97 + at * 31) % NUM_ITEMS}",
                "event_type": "view",
                "timestamp": now_ms - at,
            }
            for at in range(EVENTS_EACH)
        ]
        await ask_once(port, "POST", "/v1/events", {"events": events})


async def switch(port: int, versions: list[str], times: int) -> float:
    """Activate the versions in turn; return the seconds that the switches took, without pauses."""
    took_s = 0.0
    for number in range(times):
        began = time.monotonic()
        wanted = versions[(number + 1) % len(versions)]
        answer = await ask_once(port, "POST", f"/v1/models/{wanted}/activate")
        took_s += time.monotonic() - began
        if answer["active"] != wanted:
            raise OSError(f"{wanted} was asked for, and {answer['active']} is active")
        await asyncio.sleep(PAUSE_S)
    return took_s


if __name__ == "__main__":
    sys.exit(run_proof(main))
