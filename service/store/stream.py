"""The event streams as a collector reads them: in order, from a cursor of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.errors import StoreMismatch
from service.metrics import Metrics
from service.store import keys
from service.store.client import (
    RedisClient,
    Script,
    ScriptCall,
    translate_redis_errors,
    unavailable,
)

MS_PER_DAY = keys.MS_PER_DAY
OPERATION = "collect"


class StreamId(NamedTuple):
    """The id of a stream's entry: when it was added (ms since 1970) and its place in that ms."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> "StreamId":
        """Return the id in `ms-seq`; raises ValueError for anything else."""
        ms, seq = text.split("-")
        return cls(int(ms), int(seq))

    def successor(self) -> "StreamId":
        """Return the least id that is greater."""
        return StreamId(self.ms, self.seq + 1)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


# Before every entry.
START = StreamId(0, 0)


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry: its id and its fields; `event` is what an accepted event is in."""

    id: StreamId
    fields: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class StreamPage:
    """The next entries of one partition and the state of its stream at the same moment.

    `oldest` is None for a stream without entries. `num_added` counts all entries that the stream
    ever had, None where the server does not know (Redis before 7, or no stream at all).
    """

    entries: Sequence[StreamEntry]
    oldest: StreamId | None
    length: int
    num_added: int | None
    is_last: bool

    @property
    def num_removed(self) -> int | None:
        """The number of entries that were trimmed or taken out, None if unknown."""
        return None if self.num_added is None else self.num_added - self.length


class EventStreams:
    """Reads every partition's stream; changes nothing, so any number of readers may run."""

    def __init__(self, client: RedisClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._script = Script("read_stream.lua")

    async def num_partitions(self) -> int | None:
        """Return the store's number of partitions, None while nothing was stored.

        Raises StoreMismatch if the store has another layout than this build reads.
        """
        with translate_redis_errors(self._metrics, OPERATION):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.execute_command("HMGET", keys.META_KEY, "layout", "num_partitions")
            (found,) = await pipeline.execute()
        if None in found:
            return None
        layout, num_partitions = (int(value) for value in found)
        if layout != keys.LAYOUT_VERSION:
            raise StoreMismatch(
                f"{keys.META_KEY}: layout is {layout} in Redis, this build reads "
                f"{keys.LAYOUT_VERSION}; collect with the build that writes it"
            )
        return num_partitions

    async def read(self, after: Mapping[int, StreamId], limit: int) -> dict[int, StreamPage]:
        """Return for each partition at most `limit` entries that follow the given one.

        One script a partition, because their streams may be on different servers; all go in one
        round trip. Raises StoreUnavailable.
        """
        calls = [
            ScriptCall([keys.stream_key(partition)], [str(last), limit])
            for partition, last in after.items()
        ]
        with translate_redis_errors(self._metrics, OPERATION):
            answers = await self._script.run(self._client, calls)
        return {
            partition: self._page(answer, limit)
            for partition, answer in zip(after, answers, strict=True)
        }

    def _page(self, answer: Any, limit: int) -> StreamPage:
        if isinstance(answer, Exception):
            raise unavailable(self._metrics, OPERATION, answer) from answer
        length, num_added, oldest, entries = answer
        return StreamPage(
            entries=[_entry(entry) for entry in entries],
            oldest=StreamId.parse(oldest.decode()) if oldest else None,
            length=length,
            num_added=None if num_added < 0 else num_added,
            is_last=len(entries) < limit,
        )


def _entry(answer: Sequence[Any]) -> StreamEntry:
    entry_id, fields = answer
    names = [name.decode(errors="replace") for name in fields[::2]]
    return StreamEntry(
        StreamId.parse(entry_id.decode()), dict(zip(names, fields[1::2], strict=True))
    )
