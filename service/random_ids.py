"""Random ids, drawn from the system many at a time: a call for each is slow in containers."""

import os

ID_BYTES = 16
DRAWN_AT_ONCE = 256

_drawn: list[str] = []
# A process that begins as a copy of this one must not give the same ids.
os.register_at_fork(after_in_child=_drawn.clear)


def random_id() -> str:
    """Return 32 random hexadecimal digits that nobody can guess, and that no other call returns."""
    try:
        return _drawn.pop()
    except IndexError:
        text = os.urandom(ID_BYTES * DRAWN_AT_ONCE).hex()
        size = 2 * ID_BYTES
        first, *more = (text[start : start + size] for start in range(0, len(text), size))
        _drawn.extend(more)
        return first
