"""A client of an application in this process, started and stopped as a server would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from service.api.dependencies import Services


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application's lifespan and yield a client that speaks ASGI to it."""
    async with running(app) as (client, _):
        yield client


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """Do the same, and yield what the lifespan built beside the client."""
    async with app.router.lifespan_context(app) as state:
        assert state is not None

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client, state["services"]


async def recommended(client: httpx.AsyncClient, user_id: str = "anna", **params: Any) -> list[str]:
    """Return the ids that a user is recommended."""
    answer = await client.get(f"/v1/users/{user_id}/recommendations", params=params)
    assert answer.status_code == 200, answer.text
    return item_ids(answer)


def item_ids(answer: httpx.Response) -> list[str]:
    """Return the ids of an answer, in their order."""
    return [item["item_id"] for item in answer.json()["items"]]


async def metric(client: httpx.AsyncClient, sample: str) -> float:
    """Return a figure of /metrics by its whole name with labels, 0 if it is not there."""
    text = (await client.get("/metrics")).text
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(sample)]
    return float(values[0]) if values else 0.0
