"""Every key in Redis: its name, its type, its bound and its time to live; see docs/redis.md.

All keys of a user carry the hash tag of the user's partition, `{p<N>}`, so that one script can
change them together on a Cluster too. A number in the name is the layout's version: a changed
layout gets a new number and never meets old values.
"""

import zlib

from service.contract.events import user_hash

MS_PER_DAY = 86_400_000
SECONDS_PER_DAY = 86_400
LAYOUT_VERSION = 1
# Popularity looks back this many UTC days, today included.
COUNTER_DAYS = 3
COUNTER_TTL_S = (COUNTER_DAYS + 1) * SECONDS_PER_DAY
# A day's counters are cut back to this many items once they pass it by a quarter.
COUNTER_MAX_ITEMS = 5_000

# Hash of `layout` and `num_partitions`; two fields, no time to live.
META_KEY = "sojourn:meta1"


def partition_of(user_id: str, num_partitions: int) -> int:
    """Return the user's partition, 0 to num_partitions - 1: CRC-32 of the UTF-8 id."""
    return zlib.crc32(user_id.encode()) % num_partitions


def history_key(partition: int, user_id: str) -> str:
    """Name the user's history: a packed string, `history_codec`; lives history_ttl_days."""
    return f"{{p{partition}}}:h1:{user_id}"


def seen_key(partition: int, user_id: str) -> str:
    """Name what left the user's history: a packed string; lives history_ttl_days."""
    return f"{{p{partition}}}:s1:{user_id}"


def counter_key(partition: int, day: int) -> str:
    """Name the weights of items on one UTC day (days since 1970): a sorted set, COUNTER_TTL_S."""
    return f"{{p{partition}}}:c1:{day}"


def stream_key(partition: int) -> str:
    """Name the partition's event stream: about stream_max_events, lives history_ttl_days."""
    return f"{{p{partition}}}:ev1"


def stream_copy_key(partition: int, token: str) -> str:
    """Name the copy of a stream that is written anew: lives a minute after its last page."""
    return f"{{p{partition}}}:ev1:copy:{token}"


def rewrite_key(partition: int) -> str:
    """Name the last erasure whose entries' bytes are still in the stream: text, as the stream."""
    return f"{{p{partition}}}:ev1:rewrite"


def tombstone_key(partition: int, user_id: str) -> str:
    """Name the time of a user's erasure, ms, as text: lives tombstone_days; without the id."""
    return f"{{p{partition}}}:t1:{user_hash(user_id)}"
