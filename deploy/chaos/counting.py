"""Where the events are after the chaos: every place is looked at, by event id."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deploy.chaos.asking import ask_once
from deploy.chaos.load import Ledger
from service.store.history_codec import event_hash

Counts = Counter[str]


@dataclass(frozen=True, slots=True)
class Found:
    """How often each event is in a place: by user and hash in histories, by id elsewhere."""

    histories: Counter[tuple[str, str]]
    streams: Counts
    files: Counts


async def count_held(port: int, users: Iterable[str]) -> tuple[Counter[tuple[str, str]], Counts]:
    """Return what the service shows of users: histories with what left them, and the streams."""
    histories: Counter[tuple[str, str]] = Counter()
    streams: Counts = Counter()
    for user in users:
        held = await ask_once(port, "GET", f"/v1/users/{user}")
        histories.update((user, one["event_hash"]) for one in held["events"] + held["seen"])
        events = (one["payload"] for one in held["stream"] if one["field"] == "event")
        streams.update(str(event["event_id"]) for event in events)
    return histories, streams


def count_files(out: Path) -> Counts:
    """Return how often each event is in the files of a collector."""
    counts: Counts = Counter()
    for path in out.glob("events/*/*.parquet"):
        with pq.ParquetFile(path) as file:
            counts.update(file.read(["event_id"])["event_id"].to_pylist())
    return counts


def judge(ledger: Ledger, found: Found) -> dict[str, Any]:
    """Return the figures of a run; everything in `wrong` must be 0."""
    histories = Counter(
        {one: found.histories[user, event_hash(one).hex()] for one, user in ledger.users.items()}
    )
    places = {"histories": histories, "streams": found.streams, "files": found.files}
    unanswered = ledger.users.keys() - ledger.acknowledged - ledger.rejected
    wrong = {}
    for name, counts in places.items():
        wrong[f"missing_in_{name}"] = sum(not counts[one] for one in ledger.acknowledged)
        wrong[f"doubled_in_{name}"] = sum(number > 1 for number in counts.values())
        wrong[f"rejected_in_{name}"] = sum(counts[one] > 0 for one in ledger.rejected)
        wrong[f"unknown_in_{name}"] = len(counts.keys() - ledger.users.keys())
    return {
        "sent": len(ledger.users),
        "acknowledged": len(ledger.acknowledged),
        "rejected": len(ledger.rejected),
        "never_answered": len(unanswered),
        "never_answered_but_stored": sum(found.files[one] > 0 for one in unanswered),
        "in_histories": histories.total(),
        "in_streams": found.streams.total(),
        "in_files": found.files.total(),
        "wrong": wrong,
    }
