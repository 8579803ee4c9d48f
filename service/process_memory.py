"""How much memory this process has for itself, and how much it may have."""

import resource
from pathlib import Path

STATM = Path("/proc/self/statm")
MEMINFO = Path("/proc/meminfo")
# Of the container, as the kernel says it in one way or the other; a number, or `max`.
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
BYTES_PER_KIB = 1_024


def private_bytes() -> int | None:
    """Return what no other process and no file stands for; None where the system does not say.

    Files that are mapped, as the item matrix is, can be dropped and read again; this cannot.
    """
    if not STATM.exists():
        return None
    _, resident, shared, *_ = map(int, STATM.read_text("ascii").split())
    return (resident - shared) * resource.getpagesize()


def limit_bytes() -> int | None:
    """Return the least of what the container may have and the machine has, None if unknown."""
    said = [path.read_text("ascii").strip() for path in CGROUP_LIMITS if path.exists()]
    limits = [int(text) for text in said if text.isdigit()]
    if MEMINFO.exists():
        # The first line: `MemTotal:  16384000 kB`.
        limits.append(int(MEMINFO.read_text("ascii").split()[1]) * BYTES_PER_KIB)
    return min(limits, default=None)
