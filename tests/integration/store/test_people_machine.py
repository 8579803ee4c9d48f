"""Any order of appends, reads, erasures and merges, held against lists in plain Python."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from service.contract.events import Event
from service.contract.vocabulary import item_hash
from service.store.embedded import EmbeddedValkey
from service.store.people_codec import Held
from tests.fakes import DAY_MS, FakeClock, held_event
from tests.integration.store.builders import empty, event, store_at

pytestmark = pytest.mark.integration

MAX_EVENTS = 2
RETENTION_DAYS = 5
USERS = ("anna", "ben", "zoe")

# Where something changes: ahead of the clock, now, at and around the retention.
HOURS_AGO = (-1, 0, 1, 2, 24, 24 * RETENTION_DAYS, 24 * RETENTION_DAYS + 1)

T = TypeVar("T")


@dataclass
class Person:
    """What should be held of one user."""

    kept: list[Event] = field(default_factory=list)
    left: list[Event] = field(default_factory=list)
    streamed: list[str] = field(default_factory=list)
    erased_ms: int | None = None

    def take(self, one: Event, now_ms: int) -> str:
        """Store an event unless something speaks against it; say what."""
        if one.timestamp_ms < now_ms - RETENTION_DAYS * DAY_MS:
            return "expired"
        if self.erased_ms is not None and one.timestamp_ms <= self.erased_ms:
            return "erased"
        if one.event_id in {other.event_id for other in self.kept + self.left}:
            return "duplicate"
        # Sorting is stable: of equal times the first to come is the first.
        self.kept = sorted([*self.kept, one], key=lambda other: other.timestamp_ms)
        return "accepted"

    def cut(self, now_ms: int) -> None:
        """Let go what is too old, and remember what is too much."""
        self.kept = self.current(now_ms)
        too_many = max(0, len(self.kept) - MAX_EVENTS)
        self.left += self.kept[:too_many]
        self.kept = self.kept[too_many:]

    def current(self, now_ms: int) -> list[Event]:
        """Return what may be shown."""
        return [one for one in self.kept if one.timestamp_ms >= now_ms - RETENTION_DAYS * DAY_MS]


class PeopleMachine(RuleBasedStateMachine):
    """Does to a real store and to the model what hypothesis thinks of."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.people: defaultdict[str, Person] = defaultdict(Person)
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.run(empty(self.url))
        store = store_at(
            self.url, clock=self.clock, max_events=MAX_EVENTS, retention_days=RETENTION_DAYS
        )
        self.store = self.run(self.stack.enter_async_context(store))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something with the store."""
        return self.runner.run(work)

    def teardown(self) -> None:
        """Close the store."""
        self.run(self.stack.aclose())
        self.runner.close()

    @rule(
        user_id=st.sampled_from(USERS),
        numbers=st.lists(st.integers(0, 11), min_size=1, max_size=5),
        hours_ago=st.sampled_from(HOURS_AGO),
    )
    def append(self, user_id: str, numbers: list[int], hours_ago: int) -> None:
        """Post events of one time, some for the second time."""
        time_ms = self.clock.now_ms - hours_ago * 3_600_000
        sent = [event(n, user_id=user_id, timestamp_ms=time_ms) for n in numbers]
        person = self.people[user_id]
        expected = []
        for one in sent:
            expected.append(person.take(one, self.clock.now_ms))
            if expected[-1] == "accepted":
                person.streamed.append(one.event_id)
        if "accepted" in expected:
            person.cut(self.clock.now_ms)
        results = self.run(self.store.append(sent))
        assert [result.kind for result in results] == expected

    @rule(user_id=st.sampled_from(USERS))
    def erase(self, user_id: str) -> None:
        """Forget a user."""
        person = self.people[user_id]
        newest_ms = person.kept[-1].timestamp_ms if person.kept else 0
        erased_ms = max(self.clock.now_ms, newest_ms, person.erased_ms or 0)
        erased = self.run(self.store.people.erase(user_id))
        assert (erased.num_events, erased.num_seen) == (len(person.kept), len(person.left))
        assert (erased.num_stream_entries, erased.erased_ms) == (len(person.streamed), erased_ms)
        self.people[user_id] = Person(erased_ms=erased_ms)

    @rule(pair=st.permutations(USERS))
    def merge(self, pair: list[str]) -> None:
        """Give one user to another one."""
        source, target = self.people[pair[0]], self.people[pair[1]]
        known = {one.event_id for one in target.kept + target.left}
        seen = [] if target.erased_ms is not None else source.left
        seen = [one for one in seen if one.event_id not in known]
        kinds = [target.take(one, self.clock.now_ms) for one in source.kept]
        target.left += seen
        if "accepted" in kinds or seen:
            target.cut(self.clock.now_ms)
        merged = self.run(self.store.people.merge(pair[0], pair[1]))
        assert (merged.num_events, merged.num_seen) == (kinds.count("accepted"), len(seen))
        self.people[pair[0]] = Person(erased_ms=merged.erased.erased_ms)
        newest_ms = source.kept[-1].timestamp_ms if source.kept else 0
        assert merged.erased.erased_ms == max(self.clock.now_ms, newest_ms, source.erased_ms or 0)

    @rule(hours=st.sampled_from((1, 2, 48)))
    def wait(self, hours: int) -> None:
        """Let time go by."""
        self.clock.advance(hours * 3_600_000)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        """All that can be read of all users, by each way of reading."""
        for user_id in USERS:
            person = self.people[user_id]
            current = person.current(self.clock.now_ms)
            held: Held = self.run(self.store.people.held(user_id))
            assert held.events == tuple(held_event(one) for one in current)
            assert [record.item_hash for record in held.seen] == [
                f"{item_hash(one.item_id):016x}" for one in person.left
            ]
            assert [entry.payload["event_id"] for entry in held.stream] == person.streamed
            assert held.erased_ms == person.erased_ms
            read = self.run(self.store.read(user_id))
            assert read.item_ids == tuple(one.item_id for one in current)


def test_a_store_is_what_a_few_lists_would_be(valkey: EmbeddedValkey) -> None:
    """Thirty stories of up to 20 steps, the same ones each time."""

    class Machine(PeopleMachine):
        url = valkey.url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            # A failure is shown as it was found: to make it smaller takes minutes.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
