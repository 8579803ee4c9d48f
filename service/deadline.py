"""How long a request may still take, counted from its first byte, whatever it waited for."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

# When the request of this context began, seconds of its loop's clock; None outside a request.
request_began_s: ContextVar[float | None] = ContextVar("request_began_s", default=None)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a request's time, in seconds of the loop's clock."""

    ends_s: float

    @classmethod
    def of_request(cls, seconds: float) -> "Deadline":
        """Return the deadline of the request of this context, or of one that begins now."""
        began_s = request_began_s.get()
        return cls((_now_s() if began_s is None else began_s) + seconds)

    def whole(self) -> asyncio.Timeout:
        """Return a timeout at the deadline; what begins after it does not begin."""
        return asyncio.timeout_at(self.ends_s)

    def part(self, share: float) -> asyncio.Timeout:
        """Return a timeout that leaves the rest of what remains to what follows."""
        now_s = _now_s()
        return asyncio.timeout_at(now_s + share * max(0.0, self.ends_s - now_s))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
