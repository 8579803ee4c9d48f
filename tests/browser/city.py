"""A made-up city whose people go to bakeries in the morning and to bars at night, and its model."""

import csv
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
HOME = (47.3769, 8.5417)
OFFSET_MIN = 60
# By kind, the hour of the day that people go there.
KINDS = {
    "Bakery": 7,
    "Café": 10,
    "Lunch": 12,
    "Library": 15,
    "Gym": 18,
    "Restaurant": 20,
    "Bar": 23,
}
NAMES = [
    "Anker", "Linde", "Sonne", "Adler", "Rosengarten", "Seeblick", "Zum Turm", "Mühle", "Kranich",
]  # fmt: skip
NUM_USERS = 90
NUM_EVENTS = 40
# Few steps of a small model: seconds, and enough to learn the hours. An export, half of
# the setup's time, is torch tracing the graph, so one block.
SMALL = (
    "split.protocol=leave-one-out", "loop.max_epochs=14", "loop.batch_size=16",
    "model.window_len=24", "model.dim=32", "model.num_blocks=1", "optim.learning_rate=0.005",
)  # fmt: skip


def write_city(folder: Path) -> tuple[Path, Path]:
    """Write a log and its items as csv; the same each time."""
    rng = np.random.default_rng(11)
    items = [
        {
            "item_id": f"{kind.lower()}-{number + 1}",
            "title": f"{kind} {name}",
            "categories": kind,
            "lat": round(HOME[0] + rng.normal(0, 0.012), 5),
            "lon": round(HOME[1] + rng.normal(0, 0.018), 5),
        }
        for kind in KINDS
        for number, name in enumerate(NAMES)
    ]
    events = [row for user in range(NUM_USERS) for row in _events_of(user, rng)]
    return _written(folder / "events.csv", events), _written(folder / "items.csv", items)


def _events_of(user: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """Return a user's events, one a day at any hour, half of them at a favourite place.

    So what was done last says nothing of what comes next, and the hour says all.
    """
    zone = timezone(timedelta(minutes=OFFSET_MIN))
    day = datetime(2026, 3, 2, tzinfo=zone) + timedelta(days=int(rng.integers(0, 60)))
    kinds = list(KINDS)
    rows: list[dict[str, object]] = []
    for number in range(NUM_EVENTS):
        kind = kinds[int(rng.integers(0, len(kinds)))]
        place = user % len(NAMES) if rng.random() < 0.5 else int(rng.integers(0, len(NAMES)))
        moment = day + timedelta(days=number, hours=KINDS[kind], minutes=int(rng.integers(0, 50)))
        rows.append(
            {
                "user_id": f"u{user}",
                "item_id": f"{kind.lower()}-{place + 1}",
                "timestamp": moment.astimezone(UTC).isoformat(),
                "tz": OFFSET_MIN,
            }
        )
    return rows


def _written(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def train_city(folder: Path) -> Path:
    """Import, train and export; return the folder of bundles."""
    events, items = write_city(folder)
    training(
        "import", "events", events, "--out", folder / "riverton", "--items", items,
        "--tz-offset-min-column", "tz", "--event-type", "check-in",
    )  # fmt: skip
    return trained(folder / "riverton", folder)


def trained(data: Path, folder: Path) -> Path:
    """Train a small model with time and places on a dataset; return the folder of bundles."""
    settings = [word for one in SMALL for word in ("--set", one)]
    run = folder / "run"
    training("train", "--data", data, "--out", run, "--preset", "places", *settings)
    training("export", "--run", run, "--out", folder / "bundles")
    return folder / "bundles"


def training(*arguments: str | Path) -> None:
    """Run a command of training; its output is shown if it fails.

    On one thread: of so small a model, threads that wait for each other take ten times as long on
    a busy machine.
    """
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
