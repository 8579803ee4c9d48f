"""What an explanation takes beside the plain call: by turns, in one process or of a real service.

python benchmarks/explain.py --bundle bundles --lengths 50,200
python benchmarks/explain.py --bundle bundles --http
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
# What is measured is the code beside this file, whatever is installed.
sys.path.insert(0, str(ROOT))

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.integration.processes import serving

MS = 1_000
FIRST_MS = 1_767_225_600_000
HOUR_MS = 3_600_000


async def main() -> None:
    """Print the figures of each length of session."""
    parser = argparse.ArgumentParser(description="explanations against plain calls")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--lengths", default="50,200")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--http", action="store_true", help="start a service and ask it")
    asked = parser.parse_args()
    bundle = load_bundle(asked.bundle)
    async with (_of_service if asked.http else _in_process)(bundle) as client:
        for length in map(int, asked.lengths.split(",")):
            await _measure(client, _session(bundle, length), asked.rounds)
            await _beside(client, _session(bundle, length), asked.rounds)


@contextlib.asynccontextmanager
async def _in_process(bundle: LoadedBundle) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(bundle_path=bundle.path, log_level="error")
    async with client_of(create_app(settings, bundle=bundle, **fake_stores())) as client:
        yield client


@contextlib.asynccontextmanager
async def _of_service(bundle: LoadedBundle) -> AsyncIterator[httpx.AsyncClient]:
    with serving(bundle.path) as (_, blocking):
        async with httpx.AsyncClient(base_url=blocking.base_url, timeout=60) as client:
            yield client


def _session(bundle: LoadedBundle, length: int) -> list[dict[str, Any]]:
    return [
        {
            "item_id": bundle.vocabulary.id(1 + at % bundle.num_trained),
            "event_type": bundle.manifest.event_types[0],
            "timestamp": FIRST_MS + at * HOUR_MS,
        }
        for at in range(length)
    ]


async def _took_ms(client: httpx.AsyncClient, **body: Any) -> float:
    began_s = time.perf_counter()
    answer = await client.post("/v1/recommendations", json={"k": 10} | body)
    took_ms = (time.perf_counter() - began_s) * MS
    if answer.json()["degraded"]:
        raise SystemExit(f"degraded: {answer.json()['degraded']}")
    return took_ms


async def _measure(client: httpx.AsyncClient, events: list[dict[str, Any]], rounds: int) -> None:
    """Print the medians of the plain and the explained call, with attention too, by turns."""
    kinds = ({}, {"explain": True}, {"explain": True, "attention": True})
    times: list[list[float]] = [[] for _ in kinds]
    for _ in range(rounds):
        for kind, of_kind in zip(kinds, times, strict=True):
            of_kind.append(await _took_ms(client, events=events, **kind))
    plain, explained, attentive = map(median, times)
    print(
        f"{len(events)} events: plain {plain:.2f} ms, explained {explained:.1f} ms "
        f"(x {explained / plain:.1f}), with attention {attentive:.1f} ms"
    )


async def _beside(client: httpx.AsyncClient, events: list[dict[str, Any]], rounds: int) -> None:
    """Print what plain calls of one event take alone, and while explanations are made."""
    alone = [await _took_ms(client, events=events[-1:]) for _ in range(10 * rounds)]
    beside: list[float] = []
    for _ in range(rounds):
        explaining = asyncio.create_task(
            _took_ms(client, events=events, explain=True, attention=True)
        )
        await asyncio.sleep(0)
        while not explaining.done():
            beside.append(await _took_ms(client, events=events[-1:]))
        await explaining
    for name, times in (("alone", alone), ("beside", beside)):
        worst = max(times)
        print(f"  one event {name}: median {median(times):.2f} ms, worst {worst:.1f} ms of all")


if __name__ == "__main__":
    asyncio.run(main())
