"""The plain way to serve the same model: one read of Redis, eager torch, torch.topk."""

import os
import time
from pathlib import Path
from typing import Any

import redis.asyncio as redis
import torch
from fastapi import FastAPI
from torch import Tensor

from benchmarks.serving.bundles import item_id, load_model
from benchmarks.serving.stored import decode_window, window_key
from service.contract.features import Past
from training.model.batch import serving_batch

K = 10


def app() -> FastAPI:
    """Return an app that recommends by the model in the folder BENCH_MODEL."""
    torch.set_num_threads(1)
    model = load_model(Path(os.environ["BENCH_MODEL"]))
    client = redis.from_url(os.environ["BENCH_REDIS_URL"])
    # Once, as anybody would: neither changes between requests.
    with torch.inference_mode():
        table, vectors = model.items(), model.item_vectors()
    index_of = {item_id(index): index for index in range(1, len(table))}

    @torch.inference_mode()
    def best(past: Past) -> list[dict[str, Any]]:
        arrays = inputs(past, index_of, model.config.window_len)
        batch = serving_batch(arrays)
        output = model.read(batch, table, table[batch.items], num_queries=1)
        scores = (model.query(output)[:, 0] @ vectors.T)[0]
        if output.copy is not None:
            scores.scatter_add_(0, batch.items[0], output.copy[0, 0])
        scores[0] = -torch.inf
        top = torch.topk(scores, K)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [{"item_id": item_id(index), "score": score} for index, score in pairs]

    service = FastAPI()

    @service.get("/users/{user_id}")
    async def recommend(user_id: str) -> dict[str, Any]:
        past = decode_window(await client.get(window_key(user_id)))
        return {"status": "ok", "items": best(past)}

    return service


def inputs(past: Past, index_of: dict[str, int], window_len: int) -> dict[str, Tensor]:
    """Return the last events as tensors, (1, window_len), padded on the left, and the time now."""
    items = [index_of[item] for item in past.item_ids[-window_len:]]
    times = past.timestamps_ms[-window_len:].tolist()
    padding = [0] * (window_len - len(items))
    return {
        "items": torch.tensor([padding + items]),
        "timestamps_ms": torch.tensor([padding + times]),
        "request_time_ms": torch.tensor([time.time_ns() // 1_000_000]),
        "request_tz_offset_min": torch.tensor([0]),
    }
