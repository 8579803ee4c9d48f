"""What an explanation takes beside the plain call: in one process, by turns, through the whole app.

python benchmarks/explain.py --bundle bundles --lengths 50,200
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
# What is measured is the code beside this file, whatever is installed.
sys.path.insert(0, str(ROOT))

from service.app import create_app
from service.bundle_loader import load_bundle
from service.config import Settings
from tests.clients import client_of
from tests.fake_stores import fake_stores

MS = 1_000
FIRST_MS = 1_767_225_600_000
HOUR_MS = 3_600_000


async def main() -> None:
    """Print the median milliseconds of both calls and their ratio for each length of session."""
    parser = argparse.ArgumentParser(description="explanations against plain calls")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--lengths", default="50,200")
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    bundle = load_bundle(asked.bundle)
    settings = Settings(bundle_path=bundle.path, log_level="error")
    app = create_app(settings, bundle=bundle, **fake_stores())
    async with client_of(app) as client:
        for length in map(int, asked.lengths.split(",")):
            events = [
                {
                    "item_id": bundle.vocabulary.id(1 + at % bundle.num_trained),
                    "event_type": bundle.manifest.event_types[0],
                    "timestamp": FIRST_MS + at * HOUR_MS,
                }
                for at in range(length)
            ]
            took: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(asked.rounds):
                for explain, times in took.items():
                    body = {"events": events, "k": 10, "explain": explain}
                    began_s = time.perf_counter()
                    answer = await client.post("/v1/recommendations", json=body)
                    times.append((time.perf_counter() - began_s) * MS)
                    if answer.json()["degraded"]:
                        raise SystemExit(f"degraded: {answer.json()['degraded']}")
            plain, explained = median(took[False]), median(took[True])
            print(f"{length}: {plain:.2f} ms, {explained:.1f} ms, x {explained / plain:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
