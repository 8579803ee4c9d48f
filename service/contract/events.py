"""The event: one user did one thing to one item at one time and, if known, at one place."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import NamedTuple, NewType

from service.contract.errors import InvalidField

UserId = NewType("UserId", str)
ItemId = NewType("ItemId", str)

MAX_EVENT_ID_CHARS = 64
MAX_ID_CHARS = 128
MAX_CONTEXT_ENTRIES = 16
# 48 bits hold the time in a stored history; this is the year 9999.
MIN_TIMESTAMP_MS = 1
MAX_TIMESTAMP_MS = 253_402_300_799_999

# Each event type and its weight; the sign is its polarity, so a dislike counts against an item.
# A type's place here, from 1, is its code in stored histories: append new ones, never insert.
EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "view": 1.0,
        "click": 1.0,
        "play": 1.0,
        "read": 1.0,
        "cart": 2.0,
        "purchase": 3.0,
        "rating": 1.0,
        "check-in": 1.0,
        "like": 2.0,
        "dislike": -1.0,
        "share": 2.0,
    }
)
EVENT_TYPES = tuple(EVENT_WEIGHTS)
EVENT_TYPE_CODES = {name: code for code, name in enumerate(EVENT_TYPES, start=1)}

Scalar = str | int | float | bool
_NO_NUMBERS = "null,null,null,null"
# A copy is made in half of the time of a new one.
_EVENT_ID_HASH = hashlib.blake2b(digest_size=16)
NO_CONTEXT: Mapping[str, Scalar] = MappingProxyType({})


# Of what cannot be changed, a named tuple is made in a fraction of a frozen dataclass's time.
class Event(NamedTuple):
    """One event. Times are ms since the epoch, UTC; coordinates WGS 84 degrees.

    `tz_offset_min` is the local time's offset from UTC in minutes, None if unknown;
    `event_id` is the client's or derived from the other fields (`derive_event_id`).
    """

    event_id: str
    user_id: UserId
    item_id: ItemId
    event_type: str
    timestamp_ms: int
    tz_offset_min: int | None = None
    value: float | None = None
    duration_s: float | None = None
    lat: float | None = None
    lon: float | None = None
    recommendation_id: str | None = None
    context: Mapping[str, Scalar] = NO_CONTEXT


def derive_event_id(
    user_id: str,
    item_id: str,
    event_type: str,
    timestamp_ms: int,
    *,
    value: float | None = None,
    duration_s: float | None = None,
    lat: float | None = None,
    lon: float | None = None,
) -> str:
    """Return the id of an event that came without one, 32 hexadecimal characters.

    Equal fields give an equal id, so that a retry is a duplicate.
    """
    # The JSON list of the fields, as `json.dumps` writes it, in a third of its time.
    quoted = encode_basestring_ascii
    numbers = _NO_NUMBERS
    if not value is duration_s is lat is lon is None:
        known = ["null" if x is None else repr(x) for x in (value, duration_s, lat, lon)]
        numbers = ",".join(known)
    text = f"[{quoted(user_id)},{quoted(item_id)},{quoted(event_type)},{timestamp_ms},{numbers}]"
    digest = _EVENT_ID_HASH.copy()
    digest.update(text.encode("ascii"))
    return digest.hexdigest()


def user_hash(user_id: str) -> str:
    """Return what stands for an erased user where the id may no longer be: 32 hexadecimal digits.

    Store and collector must agree on it: a tombstone holds off late events of the user, and a mark
    in the event stream has the collector drop the user's rows.
    """
    return hashlib.blake2b(user_id.encode(), digest_size=16, person=b"erased-user").hexdigest()


def check_id(name: str, text: str, max_chars: int = MAX_ID_CHARS) -> str:
    """Return an outside id unchanged, or raise InvalidField naming what is wrong with it."""
    if not text or len(text) > max_chars:
        raise InvalidField(name, text, f"must have 1 to {max_chars} characters")
    if "\x00" in text or not _encodable(text):
        raise InvalidField(name, text, "must be Unicode text without NUL characters")
    return text


def check_ids(name: str, texts: Sequence[str]) -> None:
    """Raise InvalidField for the first id that is wrong, named by its place: `name.0`.

    That their lengths are right is known already.
    """
    # All at once: lists have thousands, and nearly all are right.
    together = "\n".join(texts)
    if "\x00" not in together and _encodable(together):
        return
    for place, text in enumerate(texts):
        check_id(f"{name}.{place}", text)


def check_coordinates(lat: float | None, lon: float | None) -> None:
    """Raise InvalidField unless both coordinates are absent or both are on the globe."""
    for name, value, limit in (("lat", lat, 90.0), ("lon", lon, 180.0)):
        if value is not None and not (math.isfinite(value) and -limit <= value <= limit):
            raise InvalidField(name, value, f"must be between {-limit:g} and {limit:g} degrees")
    if (lat is None) != (lon is None):
        missing = "lat" if lat is None else "lon"
        raise InvalidField(missing, None, "must be given together with the other coordinate")


def check_amount(name: str, value: float | None, *, minimum: float = -math.inf) -> None:
    """Raise InvalidField unless the value is absent, or finite and at least `minimum`."""
    if value is not None and not (math.isfinite(value) and value >= minimum):
        least = "" if minimum == -math.inf else f" of at least {minimum:g}"
        raise InvalidField(name, value, f"must be a finite number{least}")


def parse_timestamp(value: str | int) -> tuple[int, int | None]:
    """Return (ms since the epoch in UTC, offset in minutes or None) of a timestamp.

    Takes RFC 3339 text with an offset or whole milliseconds; anything else raises InvalidField.
    """
    if isinstance(value, str):
        return _parse_rfc3339(value)
    if not MIN_TIMESTAMP_MS <= value <= MAX_TIMESTAMP_MS:
        limits = f"{MIN_TIMESTAMP_MS} to {MAX_TIMESTAMP_MS}"
        raise InvalidField("timestamp", value, f"must be {limits} ms since 1970")
    return value, None


def _parse_rfc3339(text: str) -> tuple[int, int | None]:
    fix = "must be RFC 3339 with an offset, as 2026-01-31T18:30:00+01:00, or whole milliseconds"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidField("timestamp", text, fix) from exc
    offset = moment.utcoffset()
    if offset is None or "T" not in text.upper().replace(" ", "T", 1):
        raise InvalidField("timestamp", text, fix)
    try:
        timestamp_ms = round(moment.timestamp() * 1000)
    except (OverflowError, ValueError) as exc:
        raise InvalidField("timestamp", text, fix) from exc
    if not MIN_TIMESTAMP_MS <= timestamp_ms <= MAX_TIMESTAMP_MS:
        raise InvalidField("timestamp", text, "must be after 1970 and before the year 10000")
    # `Z` says that the local offset is not known, not that the user lives on UTC.
    known = not text.upper().endswith("Z")
    return timestamp_ms, round(offset.total_seconds() / 60) if known else None


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
