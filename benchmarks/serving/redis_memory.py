"""What Redis keeps of a user: measured over many, whose histories are full and have overflowed."""

from dataclasses import asdict
from typing import Any

import redis

from benchmarks.serving import users
from benchmarks.serving.bundles import ensure_bundle
from benchmarks.serving.catalogue import Spec
from benchmarks.serving.memory import families, used_bytes
from benchmarks.serving.stage import Bench, sojourn, valkey
from benchmarks.serving.statistics import Spread

SPEC = Spec(200, 3_500)
NUM_USERS, QUICK_NUM_USERS = 10_000, 500
NUM_EVENTS, EVENTS_AT_ONCE = 260, 20


def redis_memory(bench: Bench) -> dict[str, Any]:
    """Measure the bytes of a user's own keys, and of what is bounded for all users together.

    260 events each arrive 20 at a time, so 60 have left the history of 200 and are known as seen.
    Nobody asks for recommendations, so no answers are noted.
    """
    made = ensure_bundle(SPEC, bench.cache)
    num_users = QUICK_NUM_USERS if bench.quick else NUM_USERS
    people = users.draw(SPEC, num_users, NUM_EVENTS)
    with valkey(bench) as url, sojourn(bench, made, url) as server:
        client = redis.from_url(url)
        before = used_bytes(client)
        users.write(server.port, people, step=EVENTS_AT_ONCE)
        after = used_bytes(client)
        found = families(client, people.user_ids())
        client.close()
    own = sum(family.num_bytes for family in found.values() if family.is_per_user)
    rest = sum(family.num_bytes for family in found.values() if not family.is_per_user)
    print(f"  {own / num_users:,.0f} bytes a user, {rest / 2**20:,.1f} MiB for all", flush=True)
    details = {
        "num_users": num_users,
        "events_per_user": NUM_EVENTS,
        "bytes_bounded_for_all": rest,
        "used_memory_before": before,
        "used_memory_after": after,
        "used_memory_per_user": (after - before) / num_users,
        "families": {name: asdict(family) for name, family in sorted(found.items())},
    }
    figure = Spread((own / num_users,)).document()
    return {"figures": {"redis_bytes_per_user": figure}, "redis": details}
