"""Users with histories: what each did, drawn once and written through POST /v1/events."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.catalogue import Spec, clusters, item_id
from benchmarks.serving.generator import send_all
from benchmarks.serving.requests import Request, post
from service.contract.features import Window

# Most of what a user does is on items of a few clusters, the rest on any.
CLUSTERS_PER_USER = 3
SHARE_OF_OWN = 0.8
DAYS_BACK = 30
MS_PER_DAY = 86_400_000
# Sent one after another and few at once: the service stores those of a moment in one call of Redis,
# and that of a thousand events on full histories may outlast its time limit on a busy machine.
EVENTS_PER_POST, CONNECTIONS = 200, 1


@dataclass(frozen=True, slots=True)
class Users:
    """What users did, oldest first: items and times in ms, both (users, events)."""

    items: NDArray[np.int64]
    times_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)

    def user_ids(self) -> list[str]:
        """Return the ids of the users, in order."""
        return [user_id(place) for place in range(len(self))]

    def window(self, user: int) -> Window:
        """Return all that a user did."""
        length = self.items.shape[1]
        unknown = np.full(length, np.nan, np.float32)
        return Window(
            items=self.items[user],
            event_types=np.ones(length, np.int64),
            timestamps_ms=self.times_ms[user],
            tz_offsets_min=np.zeros(length, np.int64),
            values=unknown, durations_s=unknown, lats=unknown, lons=unknown,
        )  # fmt: skip


def user_id(place: int) -> str:
    """Return the id of a user with a history."""
    return f"user-{place:06d}"


def draw(spec: Spec, num_users: int, num_events: int, seed: int = 1) -> Users:
    """Return users with so many events each in the last 30 days."""
    rng = np.random.default_rng(seed)
    groups, shape = clusters(spec.num_items), (num_users, num_events)
    own = rng.integers(len(groups), size=(num_users, CLUSTERS_PER_USER))
    chosen = np.take_along_axis(own, rng.integers(CLUSTERS_PER_USER, size=shape), axis=1)
    items = groups[chosen, rng.integers(groups.shape[1], size=shape)]
    anywhere = rng.random(shape) >= SHARE_OF_OWN
    items = np.where(anywhere, rng.integers(1, spec.num_items + 1, shape), items)
    now_ms = time.time_ns() // 1_000_000
    # An hour ago at the latest, so that events of the benchmark are always newer.
    ages = rng.integers(MS_PER_DAY // 24, DAYS_BACK * MS_PER_DAY, shape)
    return Users(items, np.sort(now_ms - ages, axis=1))


def write(port: int, users: Users, *, step: int | None = None) -> None:
    """Store the histories by the service; raises BenchmarkFailed if an event is not accepted.

    With a `step` every user comes again for each so many events, otherwise once.
    """
    num_events = users.items.shape[1]
    for first in range(0, num_events, step or num_events):
        span = slice(first, first + (step or num_events))
        send_all(port, _posts(users, span), '"duplicates":0,"rejected":0', CONNECTIONS)


def _posts(users: Users, span: slice) -> Iterator[Request]:
    """Yield posts of whole users, as many as fit in EVENTS_PER_POST."""
    width = users.items[:, span].shape[1]
    size = max(1, EVENTS_PER_POST // width)
    for first in range(0, len(users), size):
        chosen = range(first, min(first + size, len(users)))
        rows = [row for user in chosen for row in _rows(users, user, span)]
        yield post("/v1/events", {"events": rows})


def _rows(users: Users, user: int, span: slice) -> Iterator[dict[str, object]]:
    for item, time_ms in zip(users.items[user, span], users.times_ms[user, span], strict=True):
        yield {
            "user_id": user_id(user),
            "item_id": item_id(int(item)),
            "event_type": "view",
            "timestamp": int(time_ms),
        }
