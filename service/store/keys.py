"""Every key in Redis: its name, its type, its bound and its time to live; see docs/redis.md.

All keys of a user carry the hash tag of the user's partition, `{p<N>}`, so that one script can
change them together on a Cluster too. A number in the name is the layout's version: a changed
layout gets a new number and never meets old values.
"""

import re
import zlib

from service.contract.events import user_hash
from service.random_ids import random_id

MS_PER_DAY = 86_400_000
SECONDS_PER_DAY = 86_400
LAYOUT_VERSION = 1
# Popularity looks back this many UTC days, today included.
COUNTER_DAYS = 3
COUNTER_TTL_S = (COUNTER_DAYS + 1) * SECONDS_PER_DAY
# A day's counters are cut back to this many items once they pass it by a quarter.
COUNTER_MAX_ITEMS = 5_000

# The live catalogue is in one slot: what changed, and in which order, must agree.
CATALOGUE_IDS_KEY = "{items}:ids1"
CATALOGUE_LOG_KEY = "{items}:log1"
# Changes that a process may fall behind by before it reads the whole live catalogue again.
CATALOGUE_LOG_MAX = 20_000

# Hash of `layout` and `num_partitions`; two fields, no time to live.
META_KEY = "sojourn:meta1"
# Hash of the announced model, its fields in `announcements.FIELDS`; six of them, no
# time to live: a version that is forgotten would come back as another after a restart.
MODEL_KEY = "sojourn:model1"
# Hash by process of what it serves; whoever is silent for so long is dropped by the next report.
SERVING_KEY = "sojourn:serving1"
SERVING_TTL_S = 15

# What was shown to a user is remembered this long.
SHOWN_TTL_S = 7 * SECONDS_PER_DAY
# A list that is read page by page waits this long for its next page.
LIST_TTL_S = 900
# The newest showings that are kept of a user.
SHOWN_MAX_ITEMS = 500
PARTITION_DIGITS = 4
_OWN_RECOMMENDATION_ID = re.compile(r"[0-9a-f]{32}")


def partition_of(user_id: str, num_partitions: int) -> int:
    """Return the user's partition, 0 to num_partitions - 1: CRC-32 of the UTF-8 id."""
    return zlib.crc32(user_id.encode()) % num_partitions


def new_recommendation_id(user_id: str | None, num_partitions: int) -> str:
    """Return a new id, 32 hexadecimal digits, whose first four are its partition.

    It is the user's, so that one script can note an answer beside what else is the user's; an
    anonymous answer gets any.
    """
    random = random_id()
    partition = partition_of(random if user_id is None else user_id, num_partitions)
    return f"{partition:0{PARTITION_DIGITS}x}{random[PARTITION_DIGITS:]}"


def partition_of_recommendation(recommendation_id: str, num_partitions: int) -> int | None:
    """Return the partition in a recommendation's id, None if the id is not one of ours."""
    if not _OWN_RECOMMENDATION_ID.fullmatch(recommendation_id):
        return None
    partition = int(recommendation_id[:PARTITION_DIGITS], 16)
    return partition if partition < num_partitions else None


def history_key(partition: int, user_id: str) -> str:
    """Name the user's history: a packed string, `history_codec`; lives history_ttl_days."""
    return f"{{p{partition}}}:h1:{user_id}"


def seen_key(partition: int, user_id: str) -> str:
    """Name what left the user's history: a packed string; lives history_ttl_days."""
    return f"{{p{partition}}}:s1:{user_id}"


def counter_key(partition: int, day: int) -> str:
    """Name the weights of items on one UTC day (days since 1970): a sorted set, COUNTER_TTL_S."""
    return f"{{p{partition}}}:c1:{day}"


def token_key(kind: str, subject: str) -> str:
    """Name a bucket of tokens: a string of digits, lives until the bucket is full again."""
    return f"sojourn:tb1:{kind}:{subject}"


def stream_key(partition: int) -> str:
    """Name the partition's event stream: about stream_max_events, lives history_ttl_days."""
    return f"{{p{partition}}}:ev1"


def shown_key(partition: int, user_id: str) -> str:
    """Name what was shown to the user lately: a packed string; lives SHOWN_TTL_S."""
    return f"{{p{partition}}}:w1:{user_id}"


def answer_key(partition: int, recommendation_id: str) -> str:
    """Name an answer's impressions: JSON without the user; lives attribution_s."""
    return f"{{p{partition}}}:x1:{recommendation_id}"


def list_key(partition: int, recommendation_id: str) -> str:
    """Name a ranked list that is read page by page: JSON without the user; lives LIST_TTL_S."""
    return f"{{p{partition}}}:l1:{recommendation_id}"


def stream_copy_key(partition: int, token: str) -> str:
    """Name the copy of a stream that is written anew: lives a minute after its last page."""
    return f"{{p{partition}}}:ev1:copy:{token}"


def rewrite_key(partition: int) -> str:
    """Name the last erasure whose entries' bytes are still in the stream: text, as the stream."""
    return f"{{p{partition}}}:ev1:rewrite"


def tombstone_key(partition: int, user_id: str) -> str:
    """Name the time of a user's erasure, ms, as text: lives tombstone_days; without the id."""
    return f"{{p{partition}}}:t1:{user_hash(user_id)}"


def live_item_key(item_id: str) -> str:
    """Name what callers said of an item: a hash of JSON values by field; no time to live.

    Bounded by the number of live items, `SOJOURN_MAX_LIVE_ITEMS`.
    """
    return f"{{items}}:i1:{item_id}"
