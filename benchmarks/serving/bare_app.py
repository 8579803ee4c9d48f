"""The bar: FastAPI that answers a small dict, without and with one read of Redis."""

import os

import redis.asyncio as redis
from fastapi import FastAPI

from benchmarks.serving.stored import window_key

ANSWER = '"status":"ok"'


def bare() -> FastAPI:
    """Return an app whose endpoint does nothing."""
    app = FastAPI()

    @app.get("/users/{user_id}")
    async def answer(user_id: str) -> dict[str, str]:
        return {"status": "ok", "user_id": user_id}

    return app


def with_redis() -> FastAPI:
    """Return an app whose endpoint reads the user's window, as it is stored, and says its size."""
    app = FastAPI()
    client = redis.from_url(os.environ["BENCH_REDIS_URL"])

    @app.get("/users/{user_id}")
    async def answer(user_id: str) -> dict[str, str | int]:
        packed = await client.get(window_key(user_id))
        return {"status": "ok", "user_id": user_id, "num_bytes": len(packed or b"")}

    return app
