"""Opening hours in the syntax of OpenStreetMap, read by a library. The only importer of it."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from opening_hours import OpeningHours, validate

from service.contract.errors import InvalidField

MS_PER_MIN = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The last minute that can be asked about: an offset must not carry a time out of the calendar.
LAST_MIN = (datetime(9999, 12, 31, 23, 59, tzinfo=UTC) - EPOCH) // timedelta(minutes=1)
# Distinct texts, not items: shops of a city share a few hundred.
MAX_PARSED = 20_000


@lru_cache(maxsize=MAX_PARSED)
def parse_opening_hours(text: str) -> OpeningHours:
    """Return opening hours ready to be asked; raises InvalidField for anything else."""
    if not validate(text):
        fix = "must be opening hours as OpenStreetMap writes them, as Mo-Fr 09:00-18:00"
        raise InvalidField("opening_hours", text, fix)
    # Without a country: public holidays would need one, and it is never guessed.
    return OpeningHours(text, auto_country=False, auto_timezone=False)


def is_open(text: str, local_min: int) -> bool:
    """Say whether a place is open; `local_min` are the place's local minutes since 1970."""
    return parse_opening_hours(text).is_open(_moment(local_min))


def local_minutes(time_ms: int, tz_offset_min: int) -> int:
    """Return local minutes since 1970 of a time in ms, UTC, and its local offset."""
    return min(time_ms // MS_PER_MIN + tz_offset_min, LAST_MIN)


def _moment(local_min: int) -> datetime:
    return (EPOCH + timedelta(minutes=local_min)).replace(tzinfo=None)
