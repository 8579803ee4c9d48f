"""Applications that share announcements and stand for processes.

Nothing is waited for: the work that is repeated beside the requests is given so long a time to
wait that a test does it itself, by `follow` and `watch`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from service.app import create_app
from service.config import Settings
from service.models import ModelRegistry
from tests.clients import running
from tests.fake_stores import fake_stores
from tests.fakes import FakeAnnouncements, FakeClock, FakeCounters, FakeHistory


class Process:
    """One running application: its client, and its registry for the work beside requests."""

    def __init__(self, client: httpx.AsyncClient, models: ModelRegistry) -> None:
        self.client = client
        self.models = models

    async def version(self) -> str:
        """Return the version that an answer names."""
        answer = await self.client.get("/v1/users/anna/recommendations")
        return str(answer.json()["model_version"])

    async def activate(self, version: str) -> httpx.Response:
        """Ask for a version."""
        return await self.client.post(f"/v1/models/{version}/activate")

    async def roll_back(self) -> httpx.Response:
        """Ask for the version before."""
        return await self.client.post("/v1/models/rollback")

    async def states(self) -> dict[str, str]:
        """Return the state of each listed version."""
        listed = (await self.client.get("/v1/models")).json()["models"]
        return {model["version"]: model["state"] for model in listed}


@asynccontextmanager
async def process(
    folder: Path,
    announcements: FakeAnnouncements,
    history: FakeHistory | None = None,
    counters: FakeCounters | None = None,
    *,
    settle: bool = True,
) -> AsyncIterator[Process]:
    """Run an application on a folder of bundles; `settle` does a first round of repeated work."""
    settings = Settings(
        bundle_path=folder, redis_url=None, model_poll_ms=60_000, watch_bundles=False
    )
    app = create_app(
        settings,
        **fake_stores(history=history or FakeHistory(), counters=counters or FakeCounters()),
        announcements=announcements,
        clock=FakeClock(),
    )
    async with running(app) as (client, services):
        if settle:
            await services.models.follow()
            await services.models.watch()
        yield Process(client, services.models)
