"""What the store answers: what became of an event, an erasure, a merge."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one event; only an accepted one was stored.

    `limit_ms` is what the event's time was held against: of an "erased" one the time of its user's
    erasure, of an "expired" one the time before which nothing is kept.
    """

    kind: Literal["accepted", "duplicate", "expired", "erased"]
    limit_ms: int = 0

    @classmethod
    def of(cls, number: int, oldest_ms: int) -> "Appended":
        """Return what `append_events.lua`, told `oldest_ms`, says of an event by this number."""
        if number == EXPIRED_NUMBER:
            return cls("expired", oldest_ms)
        return cls("erased", -number) if number < 0 else (DUPLICATE, ACCEPTED)[number]


EXPIRED_NUMBER, ACCEPTED_NUMBER = -1, 1
ACCEPTED = Appended("accepted")
DUPLICATE = Appended("duplicate")


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed, and from which time on the user's events are taken again."""

    num_events: int
    num_seen: int
    num_stream_entries: int
    erased_ms: int


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge gave to the other user; the one who gave it was `erased`.

    `num_duplicates` events were there already, `num_left_out` are older than what is kept or than
    an erasure.
    """

    num_events: int
    num_duplicates: int
    num_left_out: int
    num_seen: int
    erased: Erased
