"""Variants of our own settings on one data set, side by side: quality, size, time, latency.

A table is a TOML file: the data set, the preset and settings that all variants share, and the
variants, each with what it changes; `after` names a variant whose weights it starts from. Choose
on validation; --split test is for the end. Finished runs are kept in --work; --add takes the rows
of earlier reports over, so that the seeds of several sessions join.

    python benchmarks/variants.py benchmarks/tables/zoo.toml --json zoo.json
"""

import argparse
import json
import os
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from peers.models import write_json

from service.contract.features import Arrays
from training.config import load_run_config
from training.dataset import case_batches
from training.evaluate import evaluate, headline_rule
from training.evaluate_tasks import measure_tasks, outcomes, task_predictions
from training.export import encoder_bytes, item_matrix
from training.runs import LoadedRun, load_run, read_inputs
from training.scorers import OnnxScorer, TorchScorer
from training.train import METRICS_FILE, train

LATENCY_ROUNDS = 300
SHOWN = ("ndcg@10", "hr@10", "auc", "log_loss", "watch_mse_log")


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of a table; `settings` are those of all and its own, `after` where it starts."""

    name: str
    preset: str
    settings: tuple[str, ...]
    after: str
    shown: bool


def main() -> None:
    """Train, measure and write after every run."""
    arguments = parse()
    table = tomllib.loads(arguments.table.read_text("utf-8"))
    chosen = variants(table)
    if arguments.only:
        chosen = [variant for variant in chosen if variant.name in arguments.only]
    if not chosen:
        raise SystemExit(f"{arguments.table}: has no variant {arguments.only}")
    rows = [row for path in arguments.add for row in json.loads(path.read_text("utf-8"))["rows"]]
    for seed in arguments.seeds:
        for variant in chosen:
            rows.append(measured(variant, table, seed, arguments))
            write_report(arguments, rows)
            print(line(rows[-1]["name"] + f" seed {seed}", rows[-1]), flush=True)
    write_report(arguments, rows)
    seeds = sorted({row["seed"] for row in rows})
    print(f"\nmeans over the seeds {seeds}, {arguments.split} cases")
    for name, row in summaries(rows).items():
        print(line(name, row))


def write_report(arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows and their means over seeds."""
    report = {"table": arguments.table.stem, "split": arguments.split, "rows": list(rows)}
    write_json(arguments.json, report | {"variants": summaries(rows)})


def variants(table: dict[str, Any]) -> list[Variant]:
    """Return the rows of a table, in order."""
    shared = tuple(table.get("settings", ()))
    return [
        Variant(
            name=entry["name"],
            preset=entry.get("preset", table.get("preset", "base")),
            settings=(*shared, *entry.get("settings", ())),
            after=entry.get("after", ""),
            shown=entry.get("shown", True),
        )
        for entry in table["variant"]
    ]


def measured(
    variant: Variant, table: dict[str, Any], seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train one variant, unless that is done, and return its figures."""
    runs = arguments.work / (arguments.table.stem + ("-quick" if arguments.quick else ""))
    settings = [*variant.settings, f"loop.seed={seed}", f"loop.num_threads={arguments.threads}"]
    if variant.after:
        settings.append(f"pretrain.init_from={runs / f'{variant.after}-seed{seed}'}")
    if arguments.quick:
        settings += ["loop.max_epochs=1", "split.train_share=0.1"]
    config = load_run_config(variant.preset, None, settings)
    run = runs / f"{variant.name}-seed{seed}"
    inputs = read_inputs(arguments.data_dir / table["data"], config)
    train(inputs, config, run)
    metrics = json.loads((run / METRICS_FILE).read_text("utf-8"))
    row = {
        "name": variant.name,
        "shown": variant.shown,
        "seed": seed,
        "split_sha256": inputs.split.sha256,
        "parameters": metrics["parameters"],
        "epochs": len(metrics["history"]),
        "best_epoch": metrics["best_epoch"],
        "train_seconds": sum(each["seconds"] for each in metrics["history"]),
        "settings": settings,
    }
    return row | (quality(load_run(run), arguments.split) if variant.shown else {})


def quality(loaded: LoadedRun, split: str) -> dict[str, Any]:
    """Return ranking, click and watch metrics, and the latency of the exported graph."""
    events, rows = loaded.inputs.events, loaded.inputs.split.targets(split)
    model, request_time = loaded.model, loaded.config.model.request_time
    found: dict[str, Any] = {}
    if model.config.tasks[0] == "next-item":
        results = evaluate(
            {"model": TorchScorer(model)}, events, rows, train=loaded.inputs.split.train,
            window_len=model.config.window_len, request_time=request_time,
        )  # fmt: skip
        found |= results[headline_rule(loaded.inputs.info.repeat_share)]["model"]
    predicted = task_predictions(model, events, rows, request_time)
    found |= measure_tasks(predicted, outcomes(events, rows))
    *_, (_, arrays) = case_batches(events, rows, model.config.window_len, request_time)
    return found | {"onnx_ms": latency_ms(loaded, {key: each[-1:] for key, each in arrays.items()})}


def latency_ms(loaded: LoadedRun, arrays: Arrays) -> float:
    """Return the median ms of ranking all items for one window in ONNX Runtime, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scorer = OnnxScorer(encoder_bytes(loaded.model), item_matrix(loaded.model))
    torch.set_num_threads(threads)
    spent = []
    for _ in range(LATENCY_ROUNDS):
        started = time.perf_counter()
        scorer.score(arrays)
        spent.append(1000 * (time.perf_counter() - started))
    return median(spent)


def summaries(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return each shown variant's means over seeds, of every number."""
    found = {}
    for name in dict.fromkeys(row["name"] for row in rows if row["shown"]):
        own = [row for row in rows if row["name"] == name]
        numbers = [key for key, value in own[0].items() if isinstance(value, int | float)]
        found[name] = {key: mean(row[key] for row in own) for key in numbers if key != "seed"}
    return found


def line(name: str, row: dict[str, Any]) -> str:
    """Return one row as text."""
    quality = "  ".join(f"{key} {row[key]:.4f}" for key in SHOWN if key in row)
    latency = f"  {row['onnx_ms']:.2f} ms" if "onnx_ms" in row else ""
    size = f"{row['parameters'] / 1000:.0f} k parameters"
    return f"{name:<44}{quality}  {size}  {row['train_seconds']:.0f} s{latency}"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants alone")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's, in training")
    parser.add_argument("--quick", action="store_true", help="an epoch, few users: a smoke test")
    parser.add_argument("--work", type=Path, default=Path("runs/tables"))
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="reports to add to")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
