"""Kill a primary under a stream of events, and say how long it took and what was lost.

    python -m deploy.chaos.failover [cluster] [sentinel] [--seconds 5]

Starts local servers of its own, appends events by the store that the service uses, kills the
primary of one of the writers with SIGKILL, and goes on until every writer gets through again. Then
it looks for every event that was acknowledged. Each run is given up after two minutes.

A replica copies behind the primary's answers: what was acknowledged in the last moments before the
kill and was not copied yet is lost with the primary. docs/redis.md says how to make that window
small. Exits 1 if an event is missing from before the window, or if nobody took over.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.chaos.topologies import Servers, running_cluster, running_sentinel
from service.config import Settings
from service.contract.events import Event, ItemId, UserId
from service.contract.vocabulary import item_hash
from service.errors import ServiceError
from service.metrics import Metrics
from service.store.client import connect
from service.store.history import HistoryStore
from service.store.keys import partition_of, stream_key

LIMIT_S = 120.0
NUM_WRITERS = 12
# Far more than a replica on the same machine is behind.
WINDOW_S = 1.0
# Callers are told to wait a second; a test has less time.
RETRY_S = 0.05
# Between two events of a writer; so many fit into two minutes, and all of them are remembered.
PAUSE_S = 0.005
MAX_SEEN = 50_000

RUNS: dict[str, Callable[[Path], AbstractContextManager[Servers]]] = {
    "cluster": running_cluster,
    "sentinel": running_sentinel,
}


@dataclass(slots=True)
class Writer:
    """One user's stream of events: what was acknowledged, and when (`time.monotonic`)."""

    user_id: str
    acknowledged_s: dict[str, float] = field(default_factory=dict)
    num_failed: int = 0

    async def write(self, store: HistoryStore, stop: asyncio.Event) -> None:
        """Append one event after the other; one that fails is sent again, as callers should."""
        number = 0
        while not stop.is_set():
            item_id = f"i{number}"
            try:
                await store.append([self._event(item_id)])
            except ServiceError:
                self.num_failed += 1
                await asyncio.sleep(RETRY_S)
                continue
            self.acknowledged_s[item_id] = time.monotonic()
            number += 1
            await asyncio.sleep(PAUSE_S)

    def _event(self, item_id: str) -> Event:
        now_ms = time.time_ns() // 1_000_000
        return Event(
            event_id=f"{self.user_id}-{item_id}",
            user_id=UserId(self.user_id),
            item_id=ItemId(item_id),
            event_type="view",
            timestamp_ms=now_ms,
        )

    def first_after(self, moment_s: float) -> float | None:
        """Return when the first event after a moment was acknowledged, None if none was yet."""
        return next((at for at in self.acknowledged_s.values() if at > moment_s), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fail-over; times in seconds after the kill.

    `missing_s` are the times before the kill at which events were acknowledged that are missing.
    """

    recovery_s: float
    num_acknowledged: int
    num_failed: int
    missing_s: tuple[float, ...]

    @property
    def is_within_the_window(self) -> bool:
        """Whether only such events are missing as a replica may not have had yet."""
        return all(age_s < WINDOW_S for age_s in self.missing_s)


async def fail_over(servers: Servers, seconds: float) -> Outcome:
    """Write for some seconds, kill, write until all get through again, and look for everything."""
    settings = Settings(redis_url=servers.url, max_seen=MAX_SEEN, stream_max_events=0)
    client = connect(settings)
    store = HistoryStore(client, settings, Metrics())
    writers = [Writer(f"u{number}") for number in range(NUM_WRITERS)]
    stop = asyncio.Event()
    try:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.write(store, stop))
            await asyncio.sleep(seconds)
            killed_s = await _kill_primary_of(servers, writers[0], settings)
            await _until_all_write(writers, killed_s)
            await asyncio.sleep(seconds)
            stop.set()
        return await _outcome(store, writers, killed_s)
    finally:
        await store.close()
        await client.aclose()


async def _kill_primary_of(servers: Servers, writer: Writer, settings: Settings) -> float:
    key = stream_key(partition_of(writer.user_id, settings.num_partitions))
    primary = await asyncio.to_thread(servers.primary_of, key)
    # At once: what happens between the signal and the measured moment would count as before.
    primary.process.kill()
    killed_s = time.monotonic()
    await asyncio.to_thread(primary.process.wait)
    return killed_s


async def _until_all_write(writers: list[Writer], killed_s: float) -> None:
    # What was on its way may be acknowledged a moment after the kill; two rounds are sure.
    for _ in range(2):
        since_s = max(time.monotonic(), killed_s + RETRY_S)
        while any(writer.first_after(since_s) is None for writer in writers):  # noqa: ASYNC110  # twelve writers, one of them last
            await asyncio.sleep(RETRY_S)


async def _outcome(store: HistoryStore, writers: list[Writer], killed_s: float) -> Outcome:
    missing: list[float] = []
    for writer in writers:
        history = await store.read(writer.user_id)
        there = {*map(item_hash, history.item_ids), *history.seen_hashes.tolist()}
        missing += [
            killed_s - at_s
            for item_id, at_s in writer.acknowledged_s.items()
            if item_hash(item_id) not in there
        ]
    # The writers of the killed primary wait longest for their first event after the kill.
    firsts = [writer.first_after(killed_s + RETRY_S) or killed_s for writer in writers]
    return Outcome(
        recovery_s=max(firsts) - killed_s,
        num_acknowledged=sum(len(writer.acknowledged_s) for writer in writers),
        num_failed=sum(writer.num_failed for writer in writers),
        missing_s=tuple(sorted(missing)),
    )


def _report(name: str, outcome: Outcome) -> None:
    print(
        f"{name}: writers got through again {outcome.recovery_s:.2f} s after the kill; "
        f"{outcome.num_acknowledged} events acknowledged, {outcome.num_failed} calls refused"
    )
    if outcome.missing_s:
        print(
            f"{name}: {len(outcome.missing_s)} acknowledged events are missing, acknowledged "
            f"{min(outcome.missing_s) * 1000:.1f} to {max(outcome.missing_s) * 1000:.1f} ms "
            f"before the kill"
        )
    else:
        print(f"{name}: no acknowledged event is missing")


def main() -> int:
    """Run what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("shapes", nargs="*", choices=[*RUNS, []], default=[])
    parser.add_argument("--seconds", type=float, default=5.0, help="before the kill and after")
    options = parser.parse_args()
    is_well = True
    for name in options.shapes or RUNS:
        try:
            outcome = _run(name, options.seconds)
        except TimeoutError:
            print(f"{name}: nobody took over within {LIMIT_S:g} s")
            is_well = False
        else:
            _report(name, outcome)
            is_well &= outcome.is_within_the_window
    return 0 if is_well else 1


def _run(name: str, seconds: float) -> Outcome:
    with (
        tempfile.TemporaryDirectory(prefix="sojourn-chaos-") as folder,
        RUNS[name](Path(folder)) as servers,
    ):
        return asyncio.run(fail_over(servers, seconds))


if __name__ == "__main__":
    sys.exit(main())
