"""Chaos: under constant load whatever can die dies, and every acknowledged event is there, once.

A service of two workers on a Valkey with an append-only file is posted to and asked, while a
collector carries the events away. In turn: kill -9 of a worker, of the whole service, of Valkey; a
Valkey that answers half a second late; a full disk for the collector, and kill -9 of it. Posts
that fail are sent again, as callers are told to, but for a tenth of them.

Then every event id is looked for: in the user's history or the record of what left it, in the
stream, and in the collector's files. Ends with 1 if an acknowledged event is missing or doubled
anywhere, if a rejected one was kept, or one that was never answered is there twice.

    python -m deploy.chaos.run
"""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from deploy.chaos.bundles import folder_of_bundles
from deploy.chaos.counting import Found, count_files, count_held, judge
from deploy.chaos.disk import SmallDisk
from deploy.chaos.load import NUM_ITEMS, NUM_USERS, Load
from deploy.chaos.programs import (
    Program,
    collector,
    free_port,
    run_proof,
    service,
    valkey,
    wait_until,
)
from deploy.chaos.proxy import SlowProxy

NUM_WORKERS = 2
SLOW_S = 0.5
# Nothing may have left the streams and the records when they are counted.
SETTINGS = {
    "WORKERS": str(NUM_WORKERS),
    "MAX_SEEN": "10000",
    "STREAM_MAX_EVENTS": "1000000",
    "SHUTDOWN_GRACE_S": "5",
}
BOUND_S = 540.0
NO_ROOM = re.compile(r'^sojourn_collector_errors_total\{kind="disk"\} (\S+)$', re.MULTILINE)


class Chaos:
    """The programs, and what is done to them."""

    def __init__(self, stack: ExitStack, folder: Path, phase_s: float, fsync: str) -> None:
        self.port, redis_port, self.proxy_port = free_port(), free_port(), free_port()
        folder_of_bundles(folder / "bundles", ("one",), NUM_ITEMS, 16)
        self.proxy = SlowProxy(self.proxy_port, redis_port)
        self.disk = stack.enter_context(SmallDisk(folder / "disk"))
        self.out = self.disk.path / "collected"
        url = f"redis://127.0.0.1:{self.proxy_port}"
        self._valkey = stack.enter_context(valkey(folder, redis_port, fsync))
        self._service = service(folder / "bundles", folder, self.port, url, **SETTINGS)
        self._metrics_port = free_port()
        options = ("--metrics-port", str(self._metrics_port))
        self._collector = collector(self.out, folder, url, *options)
        self._last_collector = collector(self.out, folder, url, "--once", name="last-collector")
        self._stack = stack
        self._phase_s = phase_s

    async def start(self) -> None:
        """Start the service and the collector, which reach Valkey by the proxy in this process."""
        for program in (self._service, self._collector):
            self._stack.push(program)
            await asyncio.to_thread(program.start)

    async def calm(self) -> None:
        """Let nothing happen for a while."""
        await asyncio.sleep(self._phase_s)

    async def kill_worker(self) -> None:
        """Kill one of the workers; the parent starts another."""
        before = set(self._service.workers())
        os.kill(min(before), signal.SIGKILL)
        await self._in_time(lambda: len(set(self._service.workers()) - before) == 1, "a new worker")

    async def kill_service(self) -> None:
        """Kill parent and workers at once, and start the service again."""
        await self._kill_and_start(self._service)

    async def kill_valkey(self) -> None:
        """Kill Valkey, and start it on its file."""
        await self._kill_and_start(self._valkey)

    async def slow_valkey(self) -> None:
        """Let every answer of Valkey come later than the service waits for."""
        self.proxy.delay_s = SLOW_S
        await self.calm()
        self.proxy.delay_s = 0.0

    async def full_disk(self) -> None:
        """Leave the collector no room until it has noticed, and a while longer."""
        before = await asyncio.to_thread(self._num_full)
        self.disk.fill(self._collector)
        what = "the collector notices that there is no room"
        await self._in_time(lambda: self._num_full() > before, what)
        await self.calm()
        self.disk.free(self._collector)

    async def kill_collector(self) -> None:
        """Kill the collector in the middle of what it writes, and start it again."""
        self._collector.kill()
        before = self._num_starts()
        self._collector.launch()
        await self._in_time(lambda: self._num_starts() > before, "the collector is there again")

    def end_collector(self) -> None:
        """Let the collector finish its files, and another one take what is left in the streams."""
        self._collector.end()
        self._last_collector.launch()
        self._last_collector.wait()

    def _num_starts(self) -> int:
        return self._collector.log.read_bytes().count(b"collector_started")

    def _num_full(self) -> float:
        """Return how often the collector could not write.

        Not from its log, which a limit on what it writes would keep from growing too.
        """
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5.0) as answer:  # our own program
            found = NO_ROOM.search(answer.read().decode())
        return float(found[1]) if found else 0.0

    async def _kill_and_start(self, program: Program) -> None:
        program.kill()
        await asyncio.sleep(min(1.0, self._phase_s))
        await asyncio.to_thread(program.start)

    async def _in_time(self, is_so: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(wait_until, is_so, what)


def main() -> int:
    """Run the chaos; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--phase-s", type=float, default=8.0, help="of calm after each fault")
    parser.add_argument("--per-s", type=float, default=40.0, help="posts, and as many reads")
    parser.add_argument("--appendfsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        chaos = Chaos(stack, Path(name), arguments.phase_s, arguments.appendfsync)
        load = Load(chaos.port, arguments.per_s, arguments.seed)
        found = asyncio.run(asyncio.wait_for(prove(chaos, load), BOUND_S))
    report = judge(load.ledger, found)
    print(json.dumps(report))
    return int(any(report["wrong"].values()))


async def prove(chaos: Chaos, load: Load) -> Found:
    """Do everything in turn under load, and return what is found of the events afterwards."""
    faults: tuple[Callable[[], Awaitable[None]], ...] = (
        chaos.calm,
        chaos.kill_worker,
        chaos.kill_service,
        chaos.kill_valkey,
        chaos.slow_valkey,
        chaos.full_disk,
        chaos.kill_collector,
    )
    async with chaos.proxy:
        await chaos.start()
        totals: Counter[str] = Counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            for fault in faults:
                totals += await phase(chaos, load, fault)
            load.stop()
        print(json.dumps({"full_disk": chaos.disk.kind} | totals), flush=True)
        await asyncio.to_thread(chaos.end_collector)
        users = [f"user{number}" for number in range(NUM_USERS)]
        histories, streams = await count_held(chaos.port, users)
        return Found(histories, streams, count_files(chaos.out))


async def phase(chaos: Chaos, load: Load, fault: Callable[[], Awaitable[None]]) -> Counter[str]:
    """Do one thing, let it be calm again, and print and return what the load was told meanwhile."""
    load.ledger.new_phase()
    began = time.monotonic()
    await fault()
    lasted_s = time.monotonic() - began
    await chaos.calm()
    load.ledger.notice_pause()
    pause_s = load.ledger.longest_pause_s
    counts = load.ledger.new_phase()
    figures = {"lasted_s": round(lasted_s, 1), "longest_pause_s": round(pause_s, 2)}
    name = getattr(fault, "__name__", "fault")
    print(json.dumps({"phase": name} | figures | dict(sorted(counts.items()))), flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(run_proof(main))
