"""After an erasure the bytes are gone: from every key of Redis, every collected file and every log.

A user with a history, with events that left it, with lists and exposures, is collected and then
erased. What was to be found before must not be found after: the user's id, the ids of the events,
and the items in their order, in either direction. Looked at are the names and the dumps of all
keys, the append-only file after its rewrite, the collector's files as bytes and as rows, and the
logs of all programs. An event that comes late is refused and stays out.

    python -m deploy.chaos.erasure
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import redis

from deploy.chaos.asking import ask_once
from deploy.chaos.bundles import folder_of_bundles
from deploy.chaos.programs import (
    Program,
    ProofFailed,
    collector,
    free_port,
    run_proof,
    service,
    valkey,
    wait_until,
)

NUM_ITEMS = 8
# Fewer, so that some of the events are in the record of what left the history.
SETTINGS = {"MAX_EVENTS": "6", "LOG_LEVEL": "debug"}
# Of one item's id from the next, wherever they are written one after another.
NEAR = 64
COLLECTED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Traces:
    """What must not be found of a user; the items are nobody else's."""

    user: str
    items: Sequence[str]
    event_ids: Sequence[str]

    def in_bytes(self, data: bytes) -> list[str]:
        """Return the names of the traces that are in these bytes."""
        found = ["the id"] if self.user.encode() in data else []
        found += ["an event's id"] * any(one.encode() in data for one in self.event_ids)
        for items in (self.items, self.items[::-1]):
            gap = b".{0,%d}" % NEAR
            if re.search(gap.join(item.encode() for item in items), data, re.DOTALL):
                found.append("the sequence of items")
        return found


@dataclass(frozen=True, slots=True)
class Places:
    """Everywhere that a user could have left something."""

    folder: Path
    redis_port: int

    @property
    def out(self) -> Path:
        """The collector's folder."""
        return self.folder / "collected"

    def keys(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name of every key with it and its dump."""
        with redis.Redis(port=self.redis_port) as client:
            for name in client.scan_iter(count=1_000):
                yield f"key {name!r}", name + b"\n" + (client.dump(name) or b"")

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the bytes of every collected file, and of every parquet file its rows."""
        for path in self.out.rglob("*"):
            if path.is_file():
                yield f"file {path.name}", path.read_bytes()
            if path.suffix == ".parquet":
                yield f"rows of {path.name}", repr(rows(path)).encode()

    def logs(self) -> Iterator[tuple[str, bytes]]:
        """Yield every program's log."""
        for path in self.folder.glob("*.log"):
            yield f"log {path.name}", path.read_bytes()

    def appended(self) -> Iterator[tuple[str, bytes]]:
        """Yield the files of Valkey, after it has written them anew."""
        with redis.Redis(port=self.redis_port) as client:
            client.bgrewriteaof()
            wait_until(lambda: not rewrites(client), "the append-only file is written anew")
        for path in (self.folder / "valkey").rglob("*"):
            if path.is_file():
                yield f"append-only {path.name}", path.read_bytes()


def main() -> int:
    """Run the proof; return the exit status."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args()
    with tempfile.TemporaryDirectory() as name:
        places = Places(Path(name), free_port())
        port = free_port()
        folder_of_bundles(places.folder / "bundles", ("one",), 50, 16)
        url = f"redis://127.0.0.1:{places.redis_port}"
        # Compressed values would hide from a search of their bytes.
        plain = ("--rdbcompression", "no")
        with (
            valkey(places.folder, places.redis_port, options=plain),
            service(places.folder / "bundles", places.folder, port, url, **SETTINGS),
            collector(places.out, places.folder, url) as collecting,
        ):
            report = asyncio.run(prove(places, port, collecting))
    print(json.dumps(report))
    return int(bool(report["found_after"]))


async def prove(places: Places, port: int, collecting: Program) -> dict[str, Any]:
    """Fill, erase and search; raises ProofFailed if there was nothing to find before."""
    traces = new_traces()
    others = [new_traces() for _ in range(3)]
    for one in (*others[:2], traces, *others[2:]):
        await act(port, one)
    await collected(places, traces, is_there=True)
    found_before = search(traces, places.keys(), places.files())
    if {what.split()[0] for what in found_before} != {"key", "file", "rows"}:
        raise ProofFailed(f"there was not enough to find before: {found_before}")
    erased = await ask_once(port, "DELETE", f"/v1/users/{traces.user}")
    late = await ask_once(port, "POST", "/v1/events", {"events": [event_of(traces, 0)]})
    if late["rejected"] != 1:
        raise ProofFailed(f"a late event was taken: {late}")
    await collected(places, traces, is_there=False)
    # Another post wakes nothing of the first user.
    await act(port, others[0])
    await asyncio.to_thread(collecting.end)
    everywhere = (places.keys(), places.files(), places.logs(), places.appended())
    searched = [list(place) for place in everywhere]
    return {
        "erased": erased,
        "late_event": late["results"][0]["error"]["fix"],
        "found_before": len(found_before),
        "searched": dict(
            zip(("keys", "files", "logs", "append_only"), map(len, searched), strict=True)
        ),
        "bytes": sum(len(data) for place in searched for _, data in place),
        "found_after": search(traces, *map(iter, searched)),
        "others_are_there": all(search(one, iter(searched[0])) for one in others),
    }


def new_traces() -> Traces:
    """Return a user whose items are in no order but the user's."""
    items = [f"item-{uuid.uuid4().hex}" for _ in range(NUM_ITEMS)]
    while items in (sorted(items), sorted(items, reverse=True)):
        # The order in which others keep ids would not be the user's.
        random.shuffle(items)
    return Traces(f"person-{uuid.uuid4().hex}", items, [uuid.uuid4().hex for _ in items])


async def act(port: int, one: Traces) -> None:
    """Let a user's items be known, post the user's events, and ask for lists of every kind."""
    items = [{"item_id": item_id} for item_id in sorted(one.items)]
    await ask_once(port, "POST", "/v1/items", {"items": items})
    events = [event_of(one, at) for at in range(NUM_ITEMS)]
    await ask_once(port, "POST", "/v1/events", {"events": events})
    await ask_once(port, "GET", f"/v1/users/{one.user}/recommendations?exclude_seen=none")
    body = {"user_id": one.user, "k": 3, "paginate": True, "exclude_seen": "none"}
    page = await ask_once(port, "POST", "/v1/recommendations", body)
    following = {"user_id": one.user, "k": 3, "cursor": page["next_cursor"]}
    await ask_once(port, "POST", "/v1/recommendations", following)
    await ask_once(port, "GET", f"/v1/users/{one.user}/events")


def event_of(one: Traces, at: int) -> dict[str, object]:
    """Return one of a user's events, a minute after the one before, until some minutes ago."""
    minutes_ago = NUM_ITEMS + 1 - at
    return {
        "event_id": one.event_ids[at],
        "user_id": one.user,
        "item_id": one.items[at],
        "event_type": "view",
        "timestamp": time.time_ns() // 1_000_000 - 60_000 * minutes_ago,
    }


async def collected(places: Places, traces: Traces, *, is_there: bool) -> None:
    """Wait until the collector's events and exposures have the user, or have no more."""

    def is_so() -> bool:
        trees = ("events", "exposures")
        found = [any(has_user(path, traces) for path in tree_of(places, tree)) for tree in trees]
        return all(found) if is_there else not any(found)

    what = "the collector has the user" if is_there else "the collector has erased the user"
    await asyncio.to_thread(wait_until, is_so, what, within_s=COLLECTED_WITHIN_S)


def tree_of(places: Places, tree: str) -> Iterator[Path]:
    """Yield the files of a tree."""
    return (places.out / tree).rglob("*.parquet")


def has_user(path: Path, traces: Traces) -> bool:
    """Say whether a file has a row of the user; one that goes meanwhile has not."""
    try:
        return traces.user in repr(rows(path))
    except FileNotFoundError:
        return False


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    with pq.ParquetFile(path) as file:
        found: list[dict[str, Any]] = file.read().to_pylist()
    return found


def rewrites(client: redis.Redis) -> bool:
    """Say whether an append-only file is being written anew."""
    state = client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def search(traces: Traces, *places: Iterator[tuple[str, bytes]]) -> list[str]:
    """Return where something was found, and what."""
    return [
        f"{where}: {what}"
        for place in places
        for where, data in place
        for what in traces.in_bytes(data)
    ]


if __name__ == "__main__":
    sys.exit(run_proof(main))
