"""Work on a thread, one piece at a time: for what may take long and must not slow others down."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from service.batcher import Batcher
from service.metrics import Metrics

Result = TypeVar("Result")


class Turns:
    """Runs pieces of work in the order in which they come, none beside another.

    Whoever has many pieces hands them in one by one, so that others have their turn between them.
    Belongs to one loop.
    """

    def __init__(self, name: str, metrics: Metrics, *, max_pending: int) -> None:
        self._batcher: Batcher[Callable[[], Any], Any] = Batcher(
            name, self._run, max_batch=1, max_pending=max_pending, metrics=metrics
        )

    async def do(self, work: Callable[[], Result], start_by_s: float) -> Result:
        """Return what a piece of work returns, if it begins by a time of the loop's clock.

        Raises what it raises, Overloaded or NotReady.
        """
        result: Result = await self._batcher.submit(work, start_by_s)
        return result

    async def close(self) -> None:
        """Let a running piece finish and take no more."""
        await self._batcher.close()

    @staticmethod
    async def _run(pieces: list[Callable[[], Any]]) -> list[Any]:
        return [await asyncio.to_thread(piece) for piece in pieces]
