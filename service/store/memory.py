"""How much memory a store needs: sums over its keys, by the codecs' own sizes.

The layouts of the server's values are those of Valkey 9 with its default settings; other versions
differ by some bytes a key. The allocator rounds every piece up: `exact` says what is asked for,
`jemalloc` what the usual builds take for it, `glibc` what those without it do.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from service.contract.events import Event, ItemId, UserId
from service.contract.exposures import Exposure, Impression
from service.store import keys
from service.store.exposures import (
    SHOWN_BYTES,
    encode_answer,
    encode_exposure,
    encode_impressions,
)
from service.store.history_codec import (
    FIXED_BYTES,
    HEADER_BYTES,
    NUMBER_BYTES,
    SEEN_BYTES,
    encode_payload,
)

Rounded: TypeAlias = Callable[[float], float]

CATALOGUE = "catalogue"
OBJECT_BYTES = 16
EXPIRY_BYTES = 8
POINTER_BYTES = 8
# Texts up to here stand in the key's own piece of memory, and have headers of 3 bytes.
MAX_EMBEDDED_BYTES = 64
BUCKET_BYTES = 64
BUCKET_ENTRIES = 7
# A stream's node closes at so many bytes or entries; its place in the tree takes about so much.
NODE_BYTES = 4_096
NODE_ENTRIES = 100
NODE_OVERHEAD_BYTES = 60
# Of an entry of a stream beside its text: flags, the id's differences, counts and lengths.
STREAM_ENTRY_BYTES = 12
# A list in one piece: its head and end; longer texts than these have two bytes of length.
LISTPACK_BYTES = 7
LISTPACK_SHORT = 63
LISTPACK_MAX_TEXT = 64
# A node of a sorted set: score, way back, the size of the text's header, and levels, of which a
# quarter of the nodes has a second one, a quarter of these a third, and so on.
SORTED_NODE_BYTES = 17
LEVEL_BYTES = 16
LEVEL_SHARE = 0.25
MAX_LEVELS = 8
# Seen items up to here have no more room than they need: SEEN_REWRITTEN in the script.
REWRITTEN_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class StoreLoad:
    """What a store is to hold; lengths of ids in bytes, `num_seen` and the like per user.

    `num_shown_users` were shown something in the last 7 days, `num_shown` places each; answers
    are those of the last 2 days. `num_counted` items have weights in each partition on each of
    `num_days`; a day's counters live four days. Of value, duration, latitude and longitude,
    `num_numbers` are sent with events.
    """

    num_users: int
    window: int
    num_seen: int
    num_shown_users: int
    num_shown: int
    num_answers: int
    num_places: int
    num_live_items: int
    num_counted: int
    num_days: int
    num_streamed: int
    num_partitions: int
    item_id_bytes: int
    user_id_bytes: int
    title_bytes: int
    num_numbers: int


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of keys: how many, and what all of them take, bytes."""

    name: str
    num_keys: int
    total_bytes: float


def exact(size: float) -> float:
    """Return what is asked for."""
    return size


def glibc(size: float) -> float:
    """Return what malloc of the C library gives: 16 n + 8 bytes, at least 24.

    >>> [glibc(size) for size in (1, 24, 25, 7_409)]
    [24, 24, 40, 7416]
    """
    return max(24, math.ceil((size + 8) / 16) * 16 - 8)


def jemalloc(size: float) -> float:
    """Return jemalloc's class of a size: four for each doubling above 128 bytes.

    >>> [jemalloc(size) for size in (1, 9, 100, 129, 1_000, 7_409)]
    [8, 16, 112, 160, 1024, 8192]
    """
    if size <= 8:  # noqa: PLR2004  # the smallest class
        return 8
    if size <= 128:  # noqa: PLR2004  # classes of 16 bytes end here
        return math.ceil(size / 16) * 16
    step = 1 << (math.ceil(math.log2(size)) - 3)
    return math.ceil(size / step) * step


def parts_of(load: StoreLoad, rounded: Rounded = exact) -> tuple[Part, ...]:
    """Return what each kind of key takes, the table that finds them beside them."""
    parts = (
        _histories(load, rounded),
        _seen(load, rounded),
        _shown(load, rounded),
        _answers(load, rounded),
        _streams(load, rounded),
        _counters(load, rounded),
        _catalogue(load, rounded),
    )
    num_keys = sum(part.num_keys for part in parts)
    # The catalogue's have no time to live.
    num_expiring = sum(part.num_keys for part in parts if part.name != CATALOGUE)
    return (*parts, Part("tables", 0, table_bytes(num_keys) + table_bytes(num_expiring)))


def total_bytes(parts: Sequence[Part]) -> float:
    """Return the sum."""
    return sum(part.total_bytes for part in parts)


def table_bytes(num_entries: int) -> float:
    """Return what a hash table takes: a power of two of buckets of 7, and those chained to them.

    How many are chained follows from the entries that fall into a bucket by chance (Poisson).
    """
    if not num_entries:
        return 0.0
    num_buckets = 1 << math.ceil(math.log2(max(1.0, num_entries / BUCKET_ENTRIES)))
    mean = num_entries / num_buckets
    within = sum(
        math.exp(-mean) * mean**number / math.factorial(number)
        for number in range(BUCKET_ENTRIES + 1)
    )
    return num_buckets * BUCKET_BYTES * (1 + max(0.0, 1 - within))


def grown_bytes(record_bytes: int, num_records: int) -> int:
    """Return the room of a value to which records were added one at a time.

    A short one is written anew, as `append_events.lua` does. Whenever a longer one is too small
    the server makes it twice as large as it has to be.

    >>> [grown_bytes(15, number) for number in (0, 273, 274, 1_000)]
    [0, 4095, 8220, 16470]
    """
    size = room = record_bytes * num_records
    if size > REWRITTEN_BYTES:
        room = 2 * record_bytes * (REWRITTEN_BYTES // record_bytes + 1)
        while room < size:
            room = 2 * record_bytes * (room // record_bytes + 1)
    return room


def _histories(load: StoreLoad, rounded: Rounded) -> Part:
    value = HEADER_BYTES + load.window * _event_bytes(load)
    key = keys.history_key(_widest(load), "u" * load.user_id_bytes)
    num_keys = load.num_users if load.window else 0
    return Part("histories", num_keys, num_keys * _string(key, value, rounded))


def _event_bytes(load: StoreLoad) -> int:
    return FIXED_BYTES + NUMBER_BYTES * load.num_numbers + load.item_id_bytes + 1


def _seen(load: StoreLoad, rounded: Rounded) -> Part:
    key = keys.seen_key(_widest(load), "u" * load.user_id_bytes)
    value = grown_bytes(SEEN_BYTES, load.num_seen)
    num_keys = load.num_users if load.num_seen else 0
    return Part("seen", num_keys, num_keys * _string(key, value, rounded))


def _shown(load: StoreLoad, rounded: Rounded) -> Part:
    key = keys.shown_key(_widest(load), "u" * load.user_id_bytes)
    value = SHOWN_BYTES * min(load.num_shown, keys.SHOWN_MAX_ITEMS)
    num_keys = load.num_shown_users if value else 0
    return Part("showings", num_keys, num_keys * _string(key, value, rounded))


def _answers(load: StoreLoad, rounded: Rounded) -> Part:
    sample = sample_exposure(load)
    key = keys.answer_key(_widest(load), sample.recommendation_id)
    each = _string(key, len(encode_answer(sample, encode_impressions(sample))), rounded)
    return Part("answers", load.num_answers, load.num_answers * each)


def _streams(load: StoreLoad, rounded: Rounded) -> Part:
    """Every event has its entry, and every answer; the oldest are cut off."""
    num_events = load.num_users * (load.window + load.num_seen)
    num_entries = num_events + load.num_answers
    if not num_entries or not load.num_streamed:
        return Part("streams", 0, 0.0)
    texts = num_events * len(encode_payload(sample_event(load)))
    exposure = sample_exposure(load)
    texts += load.num_answers * len(encode_exposure(exposure, encode_impressions(exposure)))
    each = texts / num_entries + STREAM_ENTRY_BYTES
    per_node = max(1, min(NODE_ENTRIES, NODE_BYTES // each))
    # Whole nodes are cut off, so one more stays than is asked for, half of it on average.
    kept = min(load.num_streamed + per_node / 2, num_entries / load.num_partitions)
    nodes = kept / per_node
    one = nodes * (rounded(per_node * each) + NODE_OVERHEAD_BYTES)
    return Part("streams", load.num_partitions, load.num_partitions * one)


def _counters(load: StoreLoad, rounded: Rounded) -> Part:
    num_items = min(load.num_counted, int(keys.COUNTER_MAX_ITEMS * 1.25))
    one = num_items * _sorted_node(load.item_id_bytes, rounded) + table_bytes(num_items)
    num_keys = load.num_partitions * load.num_days if num_items else 0
    return Part("counters", num_keys, num_keys * one)


def _sorted_node(text_bytes: int, rounded: Rounded) -> float:
    """Return what a node of a sorted set takes on average over its levels."""
    own = SORTED_NODE_BYTES + _text(text_bytes)
    return sum(
        (1 - LEVEL_SHARE) * LEVEL_SHARE ** (level - 1) * rounded(own + level * LEVEL_BYTES)
        for level in range(1, MAX_LEVELS + 1)
    )


def _catalogue(load: StoreLoad, rounded: Rounded) -> Part:
    num_items = load.num_live_items
    if not num_items:
        return Part(CATALOGUE, 0, 0.0)
    key = rounded(_key_object(keys.live_item_key("i" * load.item_id_bytes), has_expiry=False))
    ids = num_items * rounded(_text(load.item_id_bytes)) + table_bytes(num_items)
    entry = load.item_id_bytes + STREAM_ENTRY_BYTES
    nodes = min(num_items, keys.CATALOGUE_LOG_MAX) / min(NODE_ENTRIES, NODE_BYTES // entry)
    log = min(num_items, keys.CATALOGUE_LOG_MAX) * entry + nodes * NODE_OVERHEAD_BYTES
    return Part(
        CATALOGUE, num_items + 2, num_items * (key + _hash(sample_item(load), rounded)) + ids + log
    )


def _hash(fields: Mapping[str, str], rounded: Rounded) -> float:
    """Return what a hash takes: one piece while its texts are short, else a table of them."""
    texts = [text.encode() for pair in fields.items() for text in pair]
    if all(len(text) <= LISTPACK_MAX_TEXT for text in texts):
        lengths = [len(text) + 2 + (len(text) > LISTPACK_SHORT) for text in texts]
        return rounded(LISTPACK_BYTES + sum(lengths))
    values = [
        rounded(_text(len(name.encode())) + 1 + _text(len(value.encode())))
        if len(value.encode()) <= LISTPACK_MAX_TEXT
        else rounded(_text(len(name.encode())) + 1 + POINTER_BYTES)
        + rounded(_text(len(value.encode())))
        for name, value in fields.items()
    ]
    return sum(values) + rounded(BUCKET_BYTES) + rounded(6 * POINTER_BYTES)


def _string(key: str, value_bytes: int, rounded: Rounded) -> float:
    """Return what a key with a time to live and a text takes."""
    if value_bytes <= MAX_EMBEDDED_BYTES:
        return rounded(_key_object(key, has_expiry=True) + _text(value_bytes))
    return rounded(_key_object(key, has_expiry=True)) + rounded(_text(value_bytes))


def _key_object(key: str, *, has_expiry: bool) -> float:
    own = OBJECT_BYTES + 1 + _text(len(key.encode()))
    return own + EXPIRY_BYTES if has_expiry else own


def _text(size: int) -> int:
    """Return a text with its header, which grows with it, and the byte that ends it."""
    if size < 1 << 5:
        return size + 2
    if size < 1 << 8:
        return size + 4
    return size + 6 if size < 1 << 16 else size + 10


def _widest(load: StoreLoad) -> int:
    return load.num_partitions - 1


def sample_event(load: StoreLoad) -> Event:
    """Return an event as long as most are: an id of the service's, an item, a time."""
    return Event(
        event_id="e" * 32,
        user_id=UserId("u" * load.user_id_bytes),
        item_id=ItemId("i" * load.item_id_bytes),
        event_type="view",
        timestamp_ms=1_768_392_000_000,
    )


def sample_exposure(load: StoreLoad) -> Exposure:
    """Return an answer with scores as long as most are."""
    places = range(1, load.num_places + 1)
    item = ItemId("i" * load.item_id_bytes)
    return Exposure(
        recommendation_id="f" * 32,
        user_id=UserId("u" * load.user_id_bytes),
        timestamp_ms=1_768_392_000_000,
        model_version="0" * 16,
        policy="best",
        impressions=tuple(Impression(item, place, "model", 1.0) for place in places),
    )


def sample_item(load: StoreLoad) -> dict[str, str]:
    """Return what is said of an item: its fields, JSON by name."""
    said = {
        "title": "t" * load.title_bytes,
        "categories": ["category-1", "category-2"],
        "available": True,
    }
    return {name: json.dumps(value, separators=(",", ":")) for name, value in said.items()}
