"""The index of nearest items against exact search and against graphs: what decision 20 rests on.

Item vectors are those of the made-up catalogue of the serving benchmark, 64 dimensions around
centres of 250 items; a query is the middle of the last three items of one of its users, who keep to
items of three centres. Every search looks as far as finds 99.5 % of the ten best of other queries,
gives 55 candidates, and their exact rows decide. Times are of CPU, one query at a time, on one
thread; rounds go through the searches in turn.

    python benchmarks/nearest.py --json build/nearest.json
    python benchmarks/nearest.py --json - --items 1000000 --only exact,'faiss cells'

usearch is no part of the project; `python -m pip install usearch` adds it to the comparison.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
# What is measured is the code beside this file, whatever is installed.
sys.path.insert(0, str(ROOT))

from benchmarks.serving import searches, users
from benchmarks.serving.bundles import clustered_vectors
from benchmarks.serving.catalogue import SEED, Spec
from benchmarks.serving.report import machine, write
from benchmarks.serving.statistics import Spread
from service.contract.features import Float32s

DIM, NUM_QUERIES, LAST_EVENTS, ROUNDS = 64, 200, 3, 5
MILLION, MB = 1_000_000, 1_000_000
# A centre has 250, and cells and the quantiser are to have something to learn from.
MIN_ITEMS = 1_000


@dataclass(frozen=True, slots=True)
class Made:
    """A search, what it took to make it (seconds, and of all cores together), and its bytes."""

    search: searches.Search
    depth: int
    build_s: float
    build_cpu_s: float
    num_bytes: int


def main() -> int:
    """Compare what is asked for, print it and write it."""
    arguments = parse()
    names = [name for name in arguments.only if searches.is_installed(name)]
    for name in set(arguments.only) - {*names}:
        print(f"{name}: left out, {searches.NEEDS[name]} is not installed", flush=True)
    matrix = np.zeros((arguments.items + 1, DIM), np.float32)
    matrix[1:] = clustered_vectors(arguments.items, DIM)
    asked, judged = queries(matrix, SEED), queries(matrix, SEED + 1)
    with tempfile.TemporaryDirectory(prefix="sojourn-nearest-") as folder:
        made = {name: make(name, matrix, judged, Path(folder)) for name in names}
    rows = measure(made, matrix, asked, arguments.rounds)
    show(rows, arguments.items)
    write(arguments.json, report(rows, arguments))
    return 0


def queries(matrix: Float32s, seed: int) -> Float32s:
    """Return the unit vectors of the middles of users' last items, (NUM_QUERIES, dim)."""
    spec = Spec(LAST_EVENTS, len(matrix) - 1)
    liked = users.draw(spec, NUM_QUERIES, LAST_EVENTS, seed).items
    found: Float32s = matrix[liked].sum(axis=1)  # (queries, dim)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def make(name: str, matrix: Float32s, judged: Float32s, folder: Path) -> Made:
    """Build a search on all cores and choose how far it looks."""
    print(f"making {name}", flush=True)
    started, cpu_started = time.perf_counter(), time.process_time()
    search = searches.SEARCHES[name](matrix, torch.get_num_threads())
    build_s, build_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    path = folder / name
    search.save(path)
    num_bytes = path.stat().st_size if path.exists() else 0
    return Made(search, search.tune(judged), build_s, build_cpu_s, num_bytes)


def measure(
    made: Mapping[str, Made], matrix: Float32s, asked: Float32s, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return each search's row: recall, queries a second of one core, memory, and its making."""
    rates: dict[str, list[float]] = {name: [] for name in made}
    recalls: dict[str, float] = {}
    exact = searches.exact_best(matrix, asked)
    with threadpool_limits(1):
        for _ in range(rounds):
            for name, of in made.items():
                started = time.process_time()
                answers = [searches.best(matrix, of.search.find(query), query) for query in asked]
                rates[name].append(len(asked) / (time.process_time() - started))
                recalls[name] = searches.recall(answers, exact)
    return {
        name: {
            "recall_at_10": recalls[name],
            "queries_per_s": Spread(tuple(rates[name])).document(),
            "mb_per_million": of.num_bytes / MB * MILLION / (len(matrix) - 1),
            "build_s": of.build_s,
            "build_cpu_s": of.build_cpu_s,
            "depth": of.depth,
            "depth_unit": of.search.depth_unit,
        }
        for name, of in made.items()
    }


def show(rows: Mapping[str, Mapping[str, Any]], num_items: int) -> None:
    """Print the rows as a table."""
    print(f"\n{num_items:,} items of {DIM} dimensions, {NUM_QUERIES} queries, one thread\n")
    names = ("recall@10", "queries/s", "least", "greatest", "MB/million", "build s", "CPU s")
    print(f"{'':<14}" + "".join(f"{name:>12}" for name in names) + "  looks at")
    for name, row in rows.items():
        rate = row["queries_per_s"]
        numbers = f"{row['recall_at_10']:>12.4f}" + "".join(
            f"{value:>12,.0f}" for value in (rate["median"], rate["min"], rate["max"])
        )
        numbers += f"{row['mb_per_million']:>12,.0f}"
        numbers += f"{row['build_s']:>12,.1f}{row['build_cpu_s']:>12,.1f}"
        print(f"{name:<14}{numbers}  {row['depth']:,} {row['depth_unit']}")


def report(rows: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the whole document."""
    about = machine()
    for library in (
        "faiss-cpu",
        *(searches.NEEDS[name] for name in rows if name in searches.NEEDS),
    ):
        about["libraries"][library] = metadata.version(library)
    return {
        "searches": rows,
        "settings": {
            "items": arguments.items,
            "dim": DIM,
            "queries": NUM_QUERIES,
            "rounds": arguments.rounds,
            "build_threads": torch.get_num_threads(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "machine": about,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(searches.SEARCHES)
    parser.add_argument("--json", required=True, help="where the report goes, - for nowhere")
    parser.add_argument("--items", type=_items, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[*searches.SEARCHES],
        help=f"by commas, of {known}",
    )  # fmt: skip
    arguments = parser.parse_args()
    unknown = [name for name in arguments.only if name not in searches.SEARCHES]
    if unknown:
        parser.error(f"--only {unknown[0]!r} is unknown; there are {known}")
    return arguments


def _items(text: str) -> int:
    count = int(text)
    if count < MIN_ITEMS:
        raise argparse.ArgumentTypeError(f"{count} items are fewer than {MIN_ITEMS}")
    return count


if __name__ == "__main__":
    sys.exit(main())
