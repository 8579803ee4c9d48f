"""The load of the chaos run, and the ledger of what it was promised."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from deploy.chaos.asking import BROKEN, OK, Answer, Connection

NUM_USERS = 40
NUM_ITEMS = 200
NUM_POSTERS = 8
NUM_READERS = 4
EVENTS_PER_POST = 5
# Of the posts that failed, those that nobody sends again.
GIVE_UP_SHARE = 0.1
# Of the events, those that no service may take: they are of tomorrow.
WRONG_SHARE = 0.02
DAY_MS = 86_400_000
RETRY_AFTER_S = 0.25

Event = dict[str, object]


@dataclass(slots=True)
class Ledger:
    """What was sent, by event id, and what was answered. `users` is whose each event is.

    `acknowledged` were accepted, or duplicates of what a lost answer had accepted; `rejected` were
    told to be wrong; every other was sent at least once and never got an answer of its own.
    """

    users: dict[str, str] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    longest_pause_s: float = 0.0
    _last_s: float = field(default_factory=time.monotonic)

    def note(self, answer: Answer) -> None:
        """Note what became of each event of a post."""
        results = answer.json()["results"]
        for result in results:
            self.counts[result["status"]] += 1
            of_its_kind = self.rejected if result["status"] == "rejected" else self.acknowledged
            of_its_kind.add(result["event_id"])
        self.notice_pause()

    def notice_pause(self) -> None:
        """Measure the time since the last acknowledgement."""
        now_s = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, now_s - self._last_s)
        self._last_s = now_s

    def new_phase(self) -> Counter[str]:
        """Return the counts until here and begin anew."""
        counts, self.counts = self.counts, Counter()
        self.longest_pause_s, self._last_s = 0.0, time.monotonic()
        return counts


class Load:
    """Posts and reads at a fixed rate until it is told to stop, whatever happens to the service."""

    def __init__(self, port: int, per_s: float, seed: int) -> None:
        self.ledger = Ledger()
        self._port = port
        self._per_s = per_s
        self._rng = random.Random(seed)  # noqa: S311  # repeatable
        self._stopping = asyncio.Event()
        self._number = 0

    def stop(self) -> None:
        """Let every poster end what it has begun."""
        self._stopping.set()

    async def run(self) -> None:
        """Post and read; returns when all that is to be repeated is acknowledged."""
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_POSTERS):
                group.create_task(self._post(NUM_POSTERS / self._per_s))
            for _ in range(NUM_READERS):
                group.create_task(self._read(NUM_READERS / self._per_s))

    async def _post(self, every_s: float) -> None:
        async with Connection(self._port) as connection:
            while not self._stopping.is_set():
                began = time.monotonic()
                await self._deliver(connection, self._new_events())
                await asyncio.sleep(max(0.0, began + every_s - time.monotonic()))

    async def _deliver(self, connection: Connection, events: list[Event]) -> None:
        """Post events until they are acknowledged, as a caller is told to, or give them up."""
        while not await self._is_taken(connection, events):
            if self._rng.random() < GIVE_UP_SHARE:
                self.ledger.counts["posts_given_up"] += 1
                return
            await asyncio.sleep(RETRY_AFTER_S)

    async def _is_taken(self, connection: Connection, events: list[Event]) -> bool:
        try:
            answer = await connection.ask("POST", "/v1/events", {"events": events})
        except BROKEN:
            self.ledger.counts["posts_unanswered"] += 1
            return False
        if answer.status != OK:
            self.ledger.counts[f"posts_{answer.status}"] += 1
            return False
        self.ledger.note(answer)
        return True

    async def _read(self, every_s: float) -> None:
        async with Connection(self._port) as connection:
            while not self._stopping.is_set():
                user = self._rng.randrange(NUM_USERS)
                try:
                    path = f"/v1/users/user{user}/recommendations"
                    answer = await connection.ask("GET", path)
                except BROKEN:
                    self.ledger.counts["reads_unanswered"] += 1
                else:
                    self._count_read(answer)
                await asyncio.sleep(every_s)

    def _count_read(self, answer: Answer) -> None:
        kind = str(answer.status)
        if answer.status == OK and answer.json()["degraded"]:
            kind = "degraded"
        self.ledger.counts[f"reads_{kind}"] += 1

    def _new_events(self) -> list[Event]:
        return [self._new_event() for _ in range(EVENTS_PER_POST)]

    def _new_event(self) -> Event:
        self._number += 1
        user = f"user{self._rng.randrange(NUM_USERS)}"
        is_wrong = self._rng.random() < WRONG_SHARE
        event_id = f"event-{self._number}"
        self.ledger.users[event_id] = user
        return {
            "event_id": event_id,
            "user_id": user,
            "item_id": f"item-{self._rng.randrange(NUM_ITEMS)}",
            "event_type": "view",
            "timestamp": time.time_ns() // 1_000_000 + DAY_MS * is_wrong,
        }
