"""Any order of events, items, erasures and questions over HTTP, held against plain sets."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from service.app import create_app
from service.config import Settings
from service.store.embedded import EmbeddedValkey
from tests.builders import ITEM_FACTS, ITEM_ROWS
from tests.clients import client_of
from tests.fakes import FakeClock
from tests.integration.store.builders import PATIENT_MS, empty

pytestmark = pytest.mark.integration

USERS = ("anna", "ben", "zoe")
LIVE = ("live-1", "live-2", "live-3")
KNOWN = (*ITEM_ROWS, *LIVE)
NEVER_KNOWN = "never-1"
CATEGORIES = ("action", "drama", "classic")
MS_PER_MIN = 60_000

ITEMS = st.sampled_from(KNOWN)
SOME_ITEMS = st.sets(st.sampled_from((*KNOWN, NEVER_KNOWN)), max_size=4)

T = TypeVar("T")


class ServiceMachine(RuleBasedStateMachine):
    """Does to a service on a real Valkey what hypothesis thinks of, and to a model of it.

    The model: each user's events by id and time, each item's categories if it is there, and which
    items are available.
    """

    url: ClassVar[str]
    bundle_path: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.events: defaultdict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
        self.erased_ms: dict[str, int] = {}
        self.categories = {
            item_id: set(ITEM_FACTS.get(item_id, {}).get("categories", ())) for item_id in ITEM_ROWS
        }
        self.hidden: set[str] = set()
        self.deleted: set[str] = set()
        self.number = 0
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.run(empty(self.url))
        app = create_app(self._settings(), clock=self.clock)
        self.client = self.run(self.stack.enter_async_context(client_of(app)))

    def _settings(self) -> Settings:
        return Settings(
            bundle_path=self.bundle_path,
            redis_url=self.url,
            redis_timeout_ms=PATIENT_MS,
            request_deadline_ms=PATIENT_MS,
            # What the machine does not do itself is not to happen beside it.
            catalogue_poll_ms=60_000,
            model_poll_ms=60_000,
            watch_bundles=False,
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something with the service."""
        return self.runner.run(work)

    def teardown(self) -> None:
        """Stop the service."""
        self.run(self.stack.aclose())
        self.runner.close()

    def ask(self, method: str, path: str, body: object = None, status: int = 200) -> httpx.Response:
        """Send a request, which must be answered with this status."""
        answer = self.run(self.client.request(method, path, json=body))
        assert answer.status_code == status, answer.text
        return answer

    @rule(
        user_id=st.sampled_from(USERS),
        item_ids=st.lists(st.sampled_from((*KNOWN, NEVER_KNOWN)), min_size=1, max_size=3),
        minutes_ago=st.sampled_from((0, 1, 90)),
        again=st.booleans(),
    )
    def post(self, user_id: str, item_ids: list[str], minutes_ago: int, again: bool) -> None:
        """Post events of one time; the same ones again are duplicates."""
        time_ms = self.clock.now_ms - minutes_ago * MS_PER_MIN
        sent = [
            {
                "event_id": f"e{self.number + at}",
                "user_id": user_id,
                "item_id": item_id,
                "event_type": "view",
                "timestamp": time_ms,
            }
            for at, item_id in enumerate(item_ids)
        ]
        self.number += len(sent)
        is_late = time_ms <= self.erased_ms.get(user_id, 0)
        first = self.ask("POST", "/v1/events", {"events": sent}).json()
        assert (first["accepted"], first["rejected"]) == (
            (0, len(sent)) if is_late else (len(sent), 0)
        )
        if again:
            second = self.ask("POST", "/v1/events", {"events": sent}).json()
            assert (second["accepted"], second["duplicates"]) == (0, 0 if is_late else len(sent))
        if not is_late:
            self.events[user_id] |= {
                str(one["event_id"]): (str(one["item_id"]), time_ms) for one in sent
            }

    @rule(item_id=ITEMS, categories=st.none() | st.sets(st.sampled_from(CATEGORIES), max_size=2))
    def put(self, item_id: str, categories: set[str] | None) -> None:
        """Say what an item is; what is left out is as the bundle says."""
        body = {} if categories is None else {"categories": sorted(categories)}
        shown = self.ask("PUT", f"/v1/items/{item_id}", body).json()
        if categories is None:
            categories = set(ITEM_FACTS.get(item_id, {}).get("categories", ()))
        assert set(shown["categories"]) == categories
        self.categories[item_id] = categories
        self.hidden.discard(item_id)
        self.deleted.discard(item_id)

    @rule(item_id=ITEMS, available=st.booleans())
    def flip(self, item_id: str, available: bool) -> None:
        """Say whether an item is available, and nothing else."""
        body = {"items": [{"item_id": item_id, "available": available}]}
        assert self.ask("POST", "/v1/items", body).json()["accepted"] == 1
        if item_id not in self.categories:
            self.categories[item_id] = set(ITEM_FACTS.get(item_id, {}).get("categories", ()))
        (self.hidden.discard if available else self.hidden.add)(item_id)
        self.deleted.discard(item_id)

    @rule(item_id=ITEMS)
    def delete(self, item_id: str) -> None:
        """Let an item be no more."""
        is_there = item_id in self.categories
        self.ask("DELETE", f"/v1/items/{item_id}", status=204 if is_there else 404)
        if is_there:
            self.deleted.add(item_id)
        self.categories.pop(item_id, None)
        self.hidden.discard(item_id)

    @rule(user_id=st.sampled_from(USERS))
    def erase(self, user_id: str) -> None:
        """Forget a user."""
        erased = self.ask("DELETE", f"/v1/users/{user_id}").json()
        assert erased["events"] == len(self.events[user_id])
        self.events[user_id] = {}
        self.erased_ms[user_id] = self.clock.now_ms

    @rule(minutes=st.sampled_from((1, 60)))
    def wait(self, minutes: int) -> None:
        """Let time go by."""
        self.clock.advance(minutes * MS_PER_MIN)

    @rule(
        user_id=st.sampled_from(USERS),
        k=st.integers(1, 10),
        exclude=SOME_ITEMS,
        category=st.none() | st.sampled_from(CATEGORIES),
        exclude_seen=st.sampled_from(("none", "all")),
    )
    def recommend(
        self, user_id: str, k: int, exclude: set[str], category: str | None, exclude_seen: str
    ) -> None:
        """Ask for a list of the whole catalogue; its length is known."""
        body: dict[str, Any] = {"user_id": user_id, "k": k, "exclude": sorted(exclude)}
        body["exclude_seen"] = exclude_seen
        if category is not None:
            body["filter"] = {"must": [{"key": "categories", "match": {"value": category}}]}
        may = self.may_be_shown(exclude, category)
        unseen = may - self.seen(user_id) if exclude_seen == "all" else may
        allowed = unseen or may
        answer = self.ask("POST", "/v1/recommendations", body).json()
        shown = self.check_list(answer, user_id, allowed, k)
        assert len(shown) == min(k, len(allowed))
        assert answer["degraded"] == (["all-seen"] if may and not unseen else [])

    @rule(user_id=st.sampled_from(USERS), k=st.integers(1, 5), candidates=SOME_ITEMS)
    def choose(self, user_id: str, k: int, candidates: set[str]) -> None:
        """Ask for the best of some items, of which nobody may know one."""
        if not candidates:
            return
        body = {"user_id": user_id, "k": k, "candidates": sorted(candidates)}
        answer = self.ask("POST", "/v1/recommendations", body).json()
        known = self.may_be_shown(set(), None) & candidates
        # What was deleted is no stranger: it is shown to nobody.
        strangers = candidates - self.categories.keys() - self.deleted
        shown = self.check_list(answer, user_id, known | strangers, k)
        assert len(shown) >= min(k, len(known))

    @invariant()
    def every_history_is_as_it_should_be(self) -> None:
        """What was posted and not erased, newest first; of one time, the last to come first."""
        for user_id in USERS:
            page = self.ask("GET", f"/v1/users/{user_id}/events").json()
            oldest_first = sorted(self.events[user_id].values(), key=lambda one: one[1])
            items = [item_id for item_id, _ in reversed(oldest_first)]
            assert [one["item_id"] for one in page["events"]] == items

    def check_list(
        self, answer: dict[str, Any], user_id: str, allowed: set[str], k: int
    ) -> list[str]:
        """Check what holds of every list, and return its ids."""
        shown = [one["item_id"] for one in answer["items"]]
        assert len(shown) == len(set(shown)) <= k
        assert set(shown) <= allowed
        assert shown or not allowed
        repeated = {one["item_id"] for one in answer["items"] if one["source"] == "repeat"}
        assert repeated <= self.seen(user_id)
        return shown

    def may_be_shown(self, exclude: set[str], category: str | None) -> set[str]:
        """Return the items that are there, available, not excluded, and of the category."""
        return {
            item_id
            for item_id, categories in self.categories.items()
            if item_id not in self.hidden | exclude and (category is None or category in categories)
        }

    def seen(self, user_id: str) -> set[str]:
        """Return the items of a user's events."""
        return {item_id for item_id, _ in self.events[user_id].values()}


def test_a_service_is_what_a_few_sets_would_be(valkey: EmbeddedValkey, bundle_path: Path) -> None:
    """Twenty stories of up to 25 steps, the same ones each time."""

    class Machine(ServiceMachine):
        url = valkey.url

    Machine.bundle_path = bundle_path
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            # A failure is shown as it was found: to make it smaller takes minutes.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
