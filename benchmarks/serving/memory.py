"""Memory: of processes as Linux counts it, and of Redis by families of keys."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from service.contract.bundle import ITEM_MATRIX_FILE

KIB_PER_MIB = 1_024
# What multiprocessing starts for a worker; it also starts a process that only watches.
WORKER_COMMAND = b"spawn_main"
KEYS_PER_TRIP = 500
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .{4} \S+ \S+ \d+\s*(.*)$")
_FIELD = re.compile(r"^(Rss|Pss|Shared_Clean|Private_Clean|Private_Dirty):\s+(\d+) kB$")
_FAMILY = re.compile(r"^(?:\{[^}]*\}:)?([a-z]+\d*(?::[a-z]+\d*)?)")


@dataclass(frozen=True, slots=True)
class Family:
    """The keys of one kind: how many, and the bytes that Redis says they take."""

    num_keys: int
    num_bytes: int
    is_per_user: bool


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process, MiB."""
    fields = smaps_totals(Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8"))
    return fields["Rss"] / KIB_PER_MIB


def worker_pids(pid: int) -> list[int]:
    """Return the workers of a server that runs several, or the server itself."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    workers = [
        int(child)
        for child in children
        if WORKER_COMMAND in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return workers or [pid]


def process_mib(pid: int) -> dict[str, float]:
    """Return a process's resident, proportional and own memory, and its item matrix's, MiB."""
    text = Path(f"/proc/{pid}/smaps").read_text("utf-8")
    whole, matrix = smaps_totals(text), smaps_totals(text, ITEM_MATRIX_FILE)
    return {
        "rss": whole["Rss"] / KIB_PER_MIB,
        "pss": whole["Pss"] / KIB_PER_MIB,
        "own": (whole["Private_Clean"] + whole["Private_Dirty"]) / KIB_PER_MIB,
        "item_matrix_rss": matrix["Rss"] / KIB_PER_MIB,
        "item_matrix_pss": matrix["Pss"] / KIB_PER_MIB,
        "item_matrix_shared": matrix["Shared_Clean"] / KIB_PER_MIB,
    }


def smaps_totals(text: str, named: str = "") -> dict[str, int]:
    """Return the sums of the fields, KiB, over the mappings whose file has a name that ends so."""
    totals: defaultdict[str, int] = defaultdict(int)
    is_chosen = not named
    for line in text.splitlines():
        field = _FIELD.match(line)
        if field and is_chosen:
            totals[field.group(1)] += int(field.group(2))
        elif mapping := _MAPPING.match(line):
            is_chosen = mapping.group(1).endswith(named)
    return totals


def used_bytes(client: redis.Redis) -> int:
    """Return what Redis says that it uses."""
    return int(client.info("memory")["used_memory"])


def families(client: redis.Redis, user_ids: Sequence[str]) -> dict[str, Family]:
    """Return the keys by family; those that end in a user's id are the user's."""
    users = {f":{user_id}" for user_id in user_ids}
    found: dict[str, Family] = {}
    for keys in _batches(client.scan_iter(count=KEYS_PER_TRIP)):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        for key, size in zip(keys, pipeline.execute(), strict=True):
            name, is_per_user = family_of(key.decode(), users)
            before = found.get(name, Family(0, 0, is_per_user))
            found[name] = Family(before.num_keys + 1, before.num_bytes + size, is_per_user)
    return found


def family_of(key: str, users: set[str]) -> tuple[str, bool]:
    """Return the family of a key, and whether it is one of the users' own.

    >>> family_of("{p3}:h1:anna", {":anna"})
    ('h1', True)
    >>> family_of("sojourn:meta1", {":anna"})
    ('sojourn:meta1', False)
    """
    at = key.rfind(":")
    if key[at:] in users:
        return key[:at].rpartition(":")[2], True
    match = _FAMILY.match(key)
    return match.group(1) if match else key, False


def _batches(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for key in keys:
        batch.append(key)
        if len(batch) == KEYS_PER_TRIP:
            yield batch
            batch = []
    if batch:
        yield batch
