"""Times as the API writes them."""

from datetime import UTC, datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(timestamp_ms: int, tz_offset_min: int | None = None) -> str:
    """Return RFC 3339 text with milliseconds; `Z` if the local offset is not known.

    >>> rfc3339(1_768_392_000_000, 60)
    '2026-01-14T13:00:00.000+01:00'
    """
    moment = EPOCH + timedelta(milliseconds=timestamp_ms)
    if tz_offset_min is None:
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        local = moment.astimezone(timezone(timedelta(minutes=tz_offset_min)))
    except OverflowError:
        # A local time in the year 10000; the moment is what counts.
        return rfc3339(timestamp_ms)
    return local.isoformat(timespec="milliseconds")
