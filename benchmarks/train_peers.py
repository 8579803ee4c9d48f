"""Training speed of ours beside RecTools' SASRec: real positions a second, memory, quality.

MovieLens-1M, leave-one-out, windows of 200, d 64, 2 blocks, batches of 128, cross-entropy over
all items. Each contestant is one process that trains an epoch when told to; a round is one epoch
of each in turn, so that whatever else the machine does meets all of them. Tokens are positions
with something to predict, padding never counts; validation is not in the time. A ratio is the
median over rounds of the ratio within a round. `--keep-memory` gives every contestant an allocator
that keeps what it frees, which RecTools gains from most; the default is what a user gets.

    python -m training import movielens ml-1m --out data/ml-1m
    python benchmarks/train_peers.py --json train.json
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers.environment import KEEP_MEMORY, ROOT, WORKER, peer_python
from peers.models import Bench, Prepared, prepare, write_json
from peers.plan import peer_jobs

from training.config import load_run_config
from training.runs import training_users

OUR_WORKER = Path(__file__).parent / "peers" / "paced_ours.py"
RECTOOLS = "rectools_sasrec"
# Our contestants, as settings over the preset `base`; none sees times or gaps. The first has
# RecTools' architecture, loss, dropout and constant rate, the second differs in the loss alone.
SASREC = (
    "model.family=sasrec", "model.copy=false", "model.dropout=0.2", "optim.schedule=constant",
)  # fmt: skip
OURS = {
    "sasrec": SASREC,
    "sasrec_sampled": (*SASREC, "loss.name=sampled", "loss.num_negatives=256"),
    "default": (),
}
QUICK_SHARE = 0.05


def main() -> None:
    """Run the rounds and write the report."""
    arguments = parse()
    epochs = 2 if arguments.quick else arguments.epochs
    shutil.rmtree(arguments.work, ignore_errors=True)
    rounds: list[dict[str, dict[str, float]]] = []
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(running(command, keep_memory=arguments.keep_memory))
            for name, command in commands(arguments, epochs).items()
        }
        for number in range(1, epochs + 1):
            rounds.append({name: one_epoch(each, name) for name, each in contestants.items()})
            show_round(number, rounds[-1])
    document = report(rounds, arguments)
    write_json(arguments.json, document)
    show(document)


def commands(arguments: argparse.Namespace, epochs: int) -> dict[str, list[str]]:
    """Write every contestant's job and return the command that runs it."""
    found = {}
    bench = Bench(arguments.work, None, arguments.threads, sys.maxsize, False, {})
    prepared = prepare(bench, arguments.data, "ml-1m", "blind")
    share = QUICK_SHARE if arguments.quick else 1.0
    folder = arguments.work / RECTOOLS
    folder.mkdir(parents=True)
    keep_users(prepared, share)
    prepared.cases.save(folder / "cases.npz")
    job = peer_jobs("sasrec", "ml-1m", "blind", 1, quick=False)[0]
    job |= {"rule": prepared.rule, "max_epochs": epochs, "patience": 0, "paced": True}
    write_json(folder / "job.json", job | {"num_threads": arguments.threads})
    python = peer_python(arguments.peer_python)
    found[RECTOOLS] = [str(python), str(WORKER), str(folder)]
    for name, settings in OURS.items():
        folder = arguments.work / name
        document = {
            "data": str(arguments.data),
            "preset": "base",
            "settings": [*settings, *common(epochs, share, arguments.threads)],
        }
        write_json(folder / "job.json", document)
        load_run_config("base", None, document["settings"])
        found[name] = [sys.executable, str(OUR_WORKER), str(folder)]
    return found


def common(epochs: int, share: float, num_threads: int) -> list[str]:
    """Return the settings that both of ours share with RecTools' model."""
    return [
        "model.window_len=200", "model.dim=64", "model.num_blocks=2", "loop.batch_size=128",
        "loop.batch_tokens=0", f"loop.max_epochs={epochs}", f"loop.patience={epochs}",
        "loop.max_minutes=0", f"loop.num_threads={num_threads}", "loop.seed=1",
        f"split.train_share={share}",
    ]  # fmt: skip


def keep_users(prepared: Prepared, share: float) -> None:
    """Let only those users train that train in ours; everybody still validates."""
    config = load_run_config("base", None, common(1, share, 1))
    users = training_users(prepared.inputs.events.num_users, config)
    if users is not None:
        prepared.cases.train[:] &= np.isin(prepared.cases.users, users)


@contextlib.contextmanager
def running(command: list[str], *, keep_memory: bool) -> Iterator["subprocess.Popen[str]"]:
    """Start a contestant, which waits for its turn; end it at the end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (KEEP_MEMORY if keep_memory else {})
    log = Path(command[-1]) / "worker.log"
    with log.open("w", encoding="utf-8") as errors:
        contestant = subprocess.Popen(  # noqa: S603 - our own programs
            command, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        try:
            yield contestant
        finally:
            contestant.terminate()
            contestant.wait(60)


def one_epoch(contestant: "subprocess.Popen[str]", name: str) -> dict[str, float]:
    """Let a contestant train one epoch and return its row; exit if it ends instead."""
    assert contestant.stdin is not None and contestant.stdout is not None  # noqa: S101, PT018 - both are pipes
    contestant.stdin.write("\n")
    contestant.stdin.flush()
    for line in contestant.stdout:
        if line.startswith("{"):
            row: dict[str, float] = json.loads(line)
            return row
    sys.exit(f"{name} ended early; see worker.log in its folder under --work")


def report(
    rounds: list[dict[str, dict[str, float]]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return the ratios, the medians and every round.

    `tokens_ratio_rectools_w200` compares equal architectures: our family sasrec with theirs.
    """
    ratios = {
        name: median(each[name]["tokens_per_s"] / each[RECTOOLS]["tokens_per_s"] for each in rounds)
        for name in OURS
    }
    contestants = {name: summary([each[name] for each in rounds]) for name in rounds[0]}
    return {
        "tokens_ratio_rectools_w200": ratios["sasrec"],
        "tokens_ratio_rectools_w200_sampled": ratios["sasrec_sampled"],
        "tokens_ratio_rectools_w200_default": ratios["default"],
        "contestants": contestants,
        "rounds": rounds,
        "quick": arguments.quick,
        "threads": arguments.threads,
        "keep_memory": arguments.keep_memory,
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
    }


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return one contestant's medians over rounds, its peak memory and its validation scores."""
    return {
        "tokens_per_s": median(row["tokens_per_s"] for row in rows),
        "seconds_per_epoch": median(row["tokens"] / row["tokens_per_s"] for row in rows),
        "tokens_per_epoch": rows[0]["tokens"],
        "peak_rss_mib": max(row["peak_rss_mib"] for row in rows),
        "validation_ndcg@10": [row["ndcg@10"] for row in rows],
        "validation_hr@10": [row["hr@10"] for row in rows],
    }


def show_round(number: int, rows: dict[str, dict[str, float]]) -> None:
    """Print one round."""
    figures = "  ".join(
        f"{name} {row['tokens_per_s'] / 1000:.1f} k/s ndcg {row['ndcg@10']:.4f}"
        for name, row in rows.items()
    )
    print(f"round {number}  {figures}", flush=True)


def show(document: dict[str, Any]) -> None:
    """Print the report as a table."""
    print(f"{'contestant':<18}{'tokens/s':>10}{'s/epoch':>9}{'peak MiB':>10}{'ndcg@10':>9}")
    for name, row in document["contestants"].items():
        print(
            f"{name:<18}{row['tokens_per_s']:>10.0f}{row['seconds_per_epoch']:>9.1f}"
            f"{row['peak_rss_mib']:>10.0f}{row['validation_ndcg@10'][-1]:>9.4f}"
        )
    for name, value in document.items():
        if name.startswith("tokens_ratio"):
            print(f"{name}: {value:.2f}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/ml-1m"))
    parser.add_argument("--epochs", type=int, default=5, help="rounds, of one epoch each")
    parser.add_argument("--quick", action="store_true", help="few users, two rounds: a smoke test")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's, for each")
    parser.add_argument(
        "--keep-memory", action="store_true", help="for all: freed memory is kept, not returned"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/train-peers"))
    parser.add_argument("--peer-python", type=Path, help="an interpreter with RecTools")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
