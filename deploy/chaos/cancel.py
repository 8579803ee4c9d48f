"""Requests that are given up half way, 100,000 of them: does anybody get another's answer?

Every user has items of their own, named after them, and asks for their history, for what they
repeat, or posts an event. Some give up after a random time, at any point of the request. Every
answer that comes must be the asker's, by its request id and by every name in it. At the end the
service must have no more files open than before, but for connections to Redis that its pools may
have opened meanwhile; thousands of requests are given up, so that what leaks is far more.

    python -m deploy.chaos.cancel --requests 100000
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from deploy.chaos.asking import BROKEN, OK, Answer, Connection, ask_once
from deploy.chaos.bundles import folder_of_bundles
from deploy.chaos.programs import (
    Program,
    ProofFailed,
    free_port,
    run_proof,
    service,
    valkey,
    wait_until,
)

NUM_USERS = 100
ITEMS_EACH = 4
NUM_CALLERS = 32
ABORT_SHARE = 0.5
# Most answers take less at this load, so that givers-up are everywhere between the first byte of
# the request and the last one of the answer.
MAX_PATIENCE_S = 0.04
WARM_UP_SHARE = 0.02
MIN_WARM_UP = 500
# Connections that one of the service's pools may hold.
MAX_POOL = 16
SETTLED_WITHIN_S = 20.0
# The proof is of mix-ups, not of a busy machine's speed.
PATIENT = {"REDIS_TIMEOUT_MS": "10000", "REQUEST_DEADLINE_MS": "20000"}


@dataclass(slots=True)
class Tally:
    """What became of the requests; `mix_ups` are answers that were somebody else's."""

    counts: Counter[str] = field(default_factory=Counter)
    mix_ups: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one user, with what makes its answer that user's."""

    user: str
    number: int
    kind: str

    def parts(self, now_ms: int) -> tuple[str, str, object]:
        """Return method, path and body."""
        if self.kind == "events":
            return "GET", f"/v1/users/{self.user}/events?limit=20", None
        if self.kind == "recommend":
            path = f"/v1/users/{self.user}/recommendations?k={ITEMS_EACH}&exclude_seen=none"
            return "GET", path, None
        event = event_of(self.user, self.number % ITEMS_EACH, now_ms)
        return "POST", "/v1/events", {"events": [event | {"event_id": self.id}]}

    @property
    def id(self) -> str:
        """The request's id, and that of the event that it posts."""
        return f"{self.user}-{self.number}"

    def is_own(self, answer: Answer) -> bool:
        """Say whether an answer is to this request of this user."""
        body = answer.json()
        if answer.headers.get("x-request-id") != self.id:
            return False
        if self.kind == "post":
            return [one["event_id"] for one in body["results"]] == [self.id]
        items = body["items"] if self.kind == "recommend" else body["events"]
        if self.kind == "recommend":
            items = [one for one in items if one["source"] == "repeat"]
        owners = {one["item_id"].partition("/")[0] for one in items}
        return owners == {self.user} and body.get("user_id", self.user) == self.user


def main() -> int:
    """Run the proof; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, redis_port = free_port(), free_port()
        folder_of_bundles(folder / "bundles", ("one",), 200, 16)
        url = f"redis://127.0.0.1:{redis_port}"
        with (
            valkey(folder, redis_port),
            service(folder / "bundles", folder, port, url, **PATIENT) as program,
        ):
            report = asyncio.run(prove(program, port, redis_port, arguments))
    print(json.dumps(report))
    return int(bool(report["mix_ups"] or report["refused"] or report["broken"]))


async def prove(
    program: Program, port: int, redis_port: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Send the requests and return the figures; raises ProofFailed if something leaked."""
    num_requests: int = arguments.requests
    await set_up(port)
    warm_up = max(MIN_WARM_UP, int(WARM_UP_SHARE * num_requests))
    await send_all(port, warm_up, random.Random(arguments.seed), abort_share=0.0)  # noqa: S311  # repeatable
    await asyncio.sleep(1.0)
    before = open_ends(program, redis_port)
    began = time.monotonic()
    tally = await send_all(port, num_requests, random.Random(arguments.seed + 1), ABORT_SHARE)  # noqa: S311  # as above
    took_s = time.monotonic() - began
    wait_until(
        lambda: is_settled(before, open_ends(program, redis_port)),
        f"files and connections about as before, {before}, not {open_ends(program, redis_port)}",
        within_s=SETTLED_WITHIN_S,
    )
    for line in tally.mix_ups[:5]:
        print(line, file=sys.stderr)
    return {
        "requests": num_requests,
        "aborts": tally.counts["aborted"],
        "answers": tally.counts["answered"],
        "refused": tally.counts["refused"],
        "broken": tally.counts["broken"],
        "mix_ups": len(tally.mix_ups),
        "per_s": round(num_requests / took_s),
        "open_files": before[0],
        "redis_connections": before[1],
        "leaked": 0,
    }


async def set_up(port: int) -> None:
    """Give every user items of their own, and a history of them."""
    users = [f"user{number}" for number in range(NUM_USERS)]
    named = [{"item_id": f"{user}/{at}"} for user in users for at in range(ITEMS_EACH)]
    await ask_once(port, "POST", "/v1/items", {"items": named})
    now_ms = time.time_ns() // 1_000_000
    events = [event_of(user, at, now_ms - at) for user in users for at in range(ITEMS_EACH)]
    posted = await ask_once(port, "POST", "/v1/events", {"events": events})
    if posted["accepted"] != len(events):
        raise ProofFailed(f"of {len(events)} events {posted['accepted']} were accepted")


async def send_all(port: int, number: int, rng: random.Random, abort_share: float) -> Tally:
    """Send so many requests, as many at once as there are callers; return what became of them."""
    tally = Tally()
    numbers = iter(range(number))
    async with asyncio.TaskGroup() as callers:
        for _ in range(NUM_CALLERS):
            callers.create_task(call(port, numbers, rng, abort_share, tally))
    return tally


async def call(
    port: int, numbers: Iterator[int], rng: random.Random, abort_share: float, tally: Tally
) -> None:
    """Send requests one after another over one connection, a new one after each that is broken."""
    async with Connection(port) as connection:
        for number in numbers:
            kind = rng.choice(("events", "recommend", "recommend", "post"))
            request = Request(f"user{rng.randrange(NUM_USERS)}", number, kind)
            patience_s = rng.random() * MAX_PATIENCE_S if rng.random() < abort_share else None
            await send(connection, request, patience_s, tally)


async def send(
    connection: Connection, request: Request, patience_s: float | None, tally: Tally
) -> None:
    """Send one request, and give it up when patience ends."""
    method, path, body = request.parts(time.time_ns() // 1_000_000)
    try:
        async with asyncio.timeout(patience_s) as patience:
            answer = await connection.ask(method, path, body, {"X-Request-ID": request.id})
    except BROKEN:
        # Patience that ended is not the service's fault.
        tally.counts["aborted" if patience.expired() else "broken"] += 1
        return
    if answer.status != OK:
        tally.counts["refused"] += 1
        return
    tally.counts["answered"] += 1
    if not request.is_own(answer):
        tally.mix_ups.append(f"{request}: {answer.headers}: {answer.body.decode()[:300]}")


def is_settled(before: tuple[int, int], now: tuple[int, int]) -> bool:
    """Say whether nothing leaked; both are files that are open and connections to Redis.

    >>> is_settled((21, 6), (22, 7)), is_settled((21, 6), (22, 6)), is_settled((21, 6), (61, 46))
    (True, False, False)
    """
    grown = now[1] - before[1]
    return grown <= MAX_POOL and now[0] - before[0] <= grown


def open_ends(program: Program, redis_port: int) -> tuple[int, int]:
    """Return how many files the service has open, and how many connections to Redis there are."""
    with redis.Redis(port=redis_port) as client:
        ours = client.client_id()
        others = [one for one in client.client_list() if int(one["id"]) != ours]
    return program.num_open_files(), len(others)


def event_of(user: str, at: int, now_ms: int) -> dict[str, object]:
    """Return an event of a user with one of their own items."""
    return {
        "user_id": user,
        "item_id": f"{user}/{at}",
        "event_type": "view",
        "timestamp": now_ms,
    }


if __name__ == "__main__":
    sys.exit(run_proof(main))
