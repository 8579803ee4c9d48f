"""Events as callers make them: each has its id from the start, so that a retry is a duplicate."""

import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Moment: TypeAlias = datetime | str | int
Scalar: TypeAlias = str | int | float | bool


def new_event_id() -> str:
    """Return an id that no other event has: 122 random bits of the system's, after a fork too."""
    return uuid.uuid4().hex


def moment(value: Moment) -> str | int:
    """Return a time as the service reads it: RFC 3339 with an offset, or ms since 1970.

    Raises ValueError for a datetime without a time zone: nobody could know when that was.
    """
    if not isinstance(value, datetime):
        return value
    if value.utcoffset() is None:
        raise ValueError(
            f"{value.isoformat()} has no time zone; give it the user's, as in "
            "datetime.now(ZoneInfo('Europe/Paris'))"
        )
    return value.isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One user did one thing to one item at one time and, if known, at one place.

    The offset of `timestamp` is the user's: their hour of day is what matters. `value` is a rating,
    for example; `duration_s` seconds; `lat` and `lon` WGS 84 degrees, both or neither.
    `recommendation_id` names the list that led to the event. `event_id` is made with the event, so
    that it may be posted again and again and counts once; give one only if you have your own.
    """

    user_id: str
    item_id: str
    event_type: str
    timestamp: Moment
    event_id: str = field(default_factory=new_event_id)
    value: float | None = None
    duration_s: float | None = None
    lat: float | None = None
    lon: float | None = None
    recommendation_id: str | None = None
    context: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check here, where the caller is, what a thread could only find too late.

        Raises ValueError for a time without a zone and for NaN, TypeError for what is no JSON.
        """
        object.__setattr__(self, "timestamp", moment(self.timestamp))
        json.dumps(self.to_json(), allow_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return the event as it is sent, without what is not known."""
        document = {name: getattr(self, name) for name in NAMES}
        document["context"] = dict(self.context) or None
        return {name: value for name, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Event":
        """Return the event that `to_json` wrote; raises TypeError for what it would not write."""
        return cls(**document)


NAMES = tuple(one.name for one in dataclasses.fields(Event))
