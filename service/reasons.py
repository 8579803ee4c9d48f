"""Why an item is in a list, in one sentence a person can read."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from service.contract.exposures import Source
from service.filters import Asked
from service.recommendation import EXAMPLE, ItemExplanation, PastEvent

# What is weaker than this share of the strongest term is left unsaid.
LEAST_SHARE = 0.2
DEEDS = {
    "view": "viewed",
    "click": "clicked",
    "play": "played",
    "read": "read",
    "cart": "put in the cart",
    "purchase": "bought",
    "rating": "rated",
    "check-in": "were at",
    "like": "liked",
    "dislike": "disliked",
    "share": "shared",
}
OF_SOURCE: dict[Source, str] = {
    "popular": "Popular at the moment.",
    "nearby": "Near where you are.",
    "repeat": "You came back to it before.",
    "explore": "Shown to learn what you think of it.",
    "new": "New here.",
    "similar": "Similar to what you look at.",
}
UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3_600))
MINUTE_S, MS_PER_S = 60, 1_000
# From which local hour on a part of the day goes.
DAY_PARTS = ((22, "nights"), (17, "evenings"), (12, "afternoons"), (5, "mornings"), (0, "nights"))
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reason_of(
    source: Source, why: ItemExplanation | None, history: Sequence[PastEvent], asked: Asked
) -> str | None:
    """Return the reason of one item: by its strongest terms, else by its source."""
    if why is None:
        return OF_SOURCE.get(source)
    terms = [(why.events[place], _because(history[place], asked)) for place in why.because[:1]]
    terms += [
        (why.shares["repeat"], "it is something you come back to"),
        (why.shares["time"], f"it is likelier on {_part_of_week(asked)} than at other times"),
        (why.shares["text"], "its description fits"),
        (why.shares["place"], "its place fits"),
    ]
    strongest = max(strength for strength, _ in terms)
    if strongest <= 0:
        return "It scores best of what may be shown, for no single reason."
    # The events come first where they count at all: what a person did, a person understands.
    said = [text for strength, text in terms if strength >= LEAST_SHARE * strongest]
    sentence = "; ".join(said[:2])
    return sentence[0].upper() + sentence[1:] + "."


def _because(event: PastEvent, asked: Asked) -> str:
    if event.event_type == EXAMPLE:
        return f"because you chose a category of {event.title or event.item_id}"
    deed = DEEDS.get(event.event_type, "chose")
    return f"because you {deed} {event.title or event.item_id} {_ago(event, asked)}"


def _ago(event: PastEvent, asked: Asked) -> str:
    seconds = max(0, asked.time_ms - event.timestamp_ms) // MS_PER_S
    for unit, length_s in UNITS:
        if seconds >= length_s:
            count = seconds // length_s
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    minutes = seconds // MINUTE_S
    if not minutes:
        return "just now"
    return f"{minutes} minute{'s' if minutes > 1 else ''} ago"


def _part_of_week(asked: Asked) -> str:
    """Return the part of the week of a request, as "Friday evenings", in its local time."""
    try:
        local = EPOCH + timedelta(milliseconds=asked.time_ms, minutes=asked.tz_offset_min)
    except OverflowError:
        return "days like this"
    part = next(name for first, name in DAY_PARTS if local.hour >= first)
    return f"{WEEKDAYS[local.weekday()]} {part}"
