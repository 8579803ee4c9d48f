"""How much is kept of a user and for how long, as the scripts are told."""

import struct
from collections.abc import Sequence
from typing import TypeAlias

from service.config import Settings
from service.contract.events import EVENT_WEIGHTS
from service.store import keys

Argument: TypeAlias = bytes | str | int | float
# By event type, its code from 1: what an event adds to its item's counter.
_LIMITS = struct.Struct("<8d")
WEIGHTS = struct.pack(f"<{len(EVENT_WEIGHTS)}d", *EVENT_WEIGHTS.values())
# A stream that carries no events still tells collectors of erasures.
MIN_STREAM_ENTRIES = 1_000


def oldest_ms(now_ms: int, settings: Settings) -> int:
    """Return the time before which no event is kept, ms since the epoch, at least 0."""
    return max(0, now_ms - settings.retention_days * keys.MS_PER_DAY)


def append_limits(
    settings: Settings, now_ms: int, num_users: int, days: Sequence[int]
) -> list[Argument]:
    """Return the first arguments of `append_events.lua` when users post events.

    `days` are those, since the epoch, whose counters the call names.
    """
    return [*_limits(settings, now_ms, settings.stream_max_events, b"", num_users), *days]


def merge_limits(settings: Settings, now_ms: int, seen: bytes) -> list[Argument]:
    """Return the first arguments when events come from another user: nothing enters the stream."""
    return _limits(settings, now_ms, 0, seen, 1)


def erase_limits(settings: Settings, now_ms: int) -> list[Argument]:
    """Return the arguments of `erase_user.lua` that say when and for how long."""
    return [
        now_ms,
        settings.tombstone_days * keys.SECONDS_PER_DAY,
        settings.history_ttl_days * keys.SECONDS_PER_DAY,
        max(settings.stream_max_events, MIN_STREAM_ENTRIES),
        oldest_ms(now_ms, settings),
    ]


def _limits(
    settings: Settings, now_ms: int, stream_max_events: int, foreign_seen: bytes, num_users: int
) -> list[Argument]:
    limits = _LIMITS.pack(
        settings.max_events,
        settings.max_seen,
        settings.history_ttl_days * keys.SECONDS_PER_DAY,
        stream_max_events,
        keys.COUNTER_TTL_S,
        keys.COUNTER_MAX_ITEMS,
        oldest_ms(now_ms, settings),
        num_users,
    )
    return [limits, foreign_seen, WEIGHTS]
