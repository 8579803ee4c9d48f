"""Runs one model on one split, ours here and a peer in its own process, and keeps the figures."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from peers.cases import RULES, Cases
from peers.environment import run_worker
from peers.plan import QUICK_EPOCHS, TASKS, shape_of

from training.config import RunConfig, SplitConfig, config_to_dict, load_run_config
from training.evaluate import evaluate, headline_rule
from training.metrics import summarise
from training.runs import load_run, read_inputs
from training.scorers import TorchScorer
from training.train import METRICS_FILE, TrainInputs, train

PRESETS = {"known": "time", "blind": "base", "temporal": "time", "trajectory": "places"}
QUICK_TEST_CASES = 300


@dataclass(frozen=True, slots=True)
class Bench:
    """What holds for the whole benchmark; `configs` gives a file by `data set:task` or `task`."""

    work: Path
    python: Path | None
    num_threads: int
    stopping_cases: int
    quick: bool
    configs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One data set under one task; `rule` is the headline's rule for seen items."""

    dataset: str
    task: str
    path: Path
    inputs: TrainInputs
    cases: Cases
    rule: str


def prepare(bench: Bench, path: Path, dataset: str, task: str) -> Prepared:
    """Read and split a data set; the split depends on the task's protocol alone."""
    config = RunConfig(split=SplitConfig(protocol=TASKS[task][0]))  # type: ignore[arg-type]  # a protocol's name
    inputs = read_inputs(path, config)
    split, events = inputs.split, inputs.events
    limit = QUICK_TEST_CASES if bench.quick else None
    cases = Cases(
        users=events.users,
        items=events.window.items,
        timestamps_ms=events.window.timestamps_ms,
        user_starts=events.user_starts,
        train=split.train,
        stopping=stopping_rows(split.validation, bench.stopping_cases),
        validation=split.validation[:limit],
        test=split.test[:limit],
        num_items=events.num_items,
    )
    return Prepared(dataset, task, path, inputs, cases, headline_rule(inputs.info.repeat_share))


def stopping_rows(rows: np.ndarray, limit: int) -> np.ndarray:
    """Return the validation cases that stop training: the draw of training.validation."""
    if len(rows) <= limit:
        return rows
    return np.sort(rows[np.random.default_rng(0).choice(len(rows), limit, replace=False)])


def measure_peer(
    bench: Bench, prepared: Prepared, jobs: list[dict[str, Any]], seed: int
) -> dict[str, Any]:
    """Return a peer's figures; of several jobs the one that the choosing seed's validation likes.

    The first seed that is measured chooses, and its choice is kept for the others.
    """
    if len(jobs) == 1:
        return run_peer(bench, prepared, jobs[0])
    chosen = bench.work / f"choice-{key_of(prepared, jobs[0], seedless=True)}.json"
    if chosen.is_file():
        choice = read_json(chosen)
        job = next(job for job in jobs if job["batch_size"] == choice["batch_size"])
        return run_peer(bench, prepared, job) | {"choice": choice}
    rows = [run_peer(bench, prepared, job) for job in jobs]
    best = max(rows, key=lambda row: row["validation"][prepared.rule]["ndcg@10"])
    validation = {
        str(row["job"]["batch_size"]): row["validation"][prepared.rule]["ndcg@10"] for row in rows
    }
    choice = {
        "batch_size": best["job"]["batch_size"], "seed": seed, "validation_ndcg@10": validation,
    }  # fmt: skip
    write_json(chosen, choice)
    return best | {"choice": choice}


def run_peer(bench: Bench, prepared: Prepared, job: dict[str, Any]) -> dict[str, Any]:
    """Train and rank one peer in its own environment, or return what is kept of it."""
    job = job | {"rule": prepared.rule}
    name = key_of(prepared, job)
    kept = bench.work / f"{name}.json"
    if kept.is_file():
        return read_json(kept) | {"task": prepared.task}
    if bench.python is None:
        raise ValueError("peers need an interpreter")
    folder = bench.work / "jobs" / name
    folder.mkdir(parents=True, exist_ok=True)
    prepared.cases.save(folder / "cases.npz")
    write_json(folder / "job.json", job | {"num_threads": bench.num_threads})
    result = run_worker(bench.python, folder)
    with np.load(folder / "ranks.npz") as ranks:
        figures = {
            split: {rule: summarise(ranks[f"{split}_{rule}"]) for rule in RULES}
            for split in ("validation", "test")
        }
    (folder / "cases.npz").unlink()
    row = about(prepared, job["model"], job["seed"]) | figures | result
    row |= {"job": job, "num_threads": bench.num_threads}
    write_json(kept, row)
    return row


def measure_ours(bench: Bench, prepared: Prepared, seed: int) -> dict[str, Any]:
    """Train and rank our model, or return what is kept of it."""
    config = our_config(bench, prepared, seed)
    document = config_to_dict(config)
    name = key_of(prepared, document | {"model": "ours", "model_settings": document["model"]})
    kept = bench.work / f"{name}.json"
    if kept.is_file():
        return read_json(kept) | {"task": prepared.task}
    run = bench.work / "runs" / name
    train(prepared.inputs, config, run)
    scorer = {"model": TorchScorer(load_run(run).model)}
    row = about(prepared, "ours", seed)
    for split in ("validation", "test"):
        results = evaluate(
            scorer,
            prepared.inputs.events,
            getattr(prepared.cases, split),
            train=prepared.inputs.split.train,
            window_len=config.model.window_len,
            request_time=config.model.request_time,
        )
        row[split] = {rule: results[rule]["model"] for rule in RULES}
    metrics = read_json(run / METRICS_FILE)
    history = metrics["history"]
    row |= {
        "parameters": metrics["parameters"],
        "best_epoch": metrics["best_epoch"],
        "epochs": len(history),
        "history": history,
        "fit_seconds": sum(entry["seconds"] for entry in history),
        "job": document,
        "num_threads": bench.num_threads,
    }
    write_json(kept, row)
    return row


def our_config(bench: Bench, prepared: Prepared, seed: int) -> RunConfig:
    """Return our settings for a task: the preset, or the file given for it.

    Protocol, seed, threads and stopping cases are the benchmark's, whatever the file says; so
    is the window where no file is given. Exits when a `blind` model would read times.
    """
    task, dataset = prepared.task, prepared.dataset
    file = bench.configs.get(f"{dataset}:{task}", bench.configs.get(task))
    overrides = [] if file else [f"model.window_len={shape_of(dataset).window_len}"]
    config = load_run_config(PRESETS[task], Path(file) if file else None, overrides)
    loop = replace(
        config.loop, seed=seed, num_threads=bench.num_threads,
        max_validation_users=bench.stopping_cases,
        max_epochs=QUICK_EPOCHS if bench.quick else config.loop.max_epochs,
    )  # fmt: skip
    config = replace(config, loop=loop, split=replace(config.split, protocol=TASKS[task][0]))
    reads = config.model.request_time == "known" or getattr(config.model, "time_gaps", False)
    if task == "blind" and reads:
        raise SystemExit(f"{file or PRESETS[task]}: a blind model may not read times")
    return config


def about(prepared: Prepared, model: str, seed: int) -> dict[str, Any]:
    """Return what a row of figures is about."""
    split = prepared.inputs.split
    return {
        "dataset": prepared.dataset,
        "task": prepared.task,
        "model": model,
        "seed": seed,
        "protocol": split.protocol,
        "split_sha256": split.sha256,
        "seen_items": prepared.rule,
        "num_cases": {
            "stopping": len(prepared.cases.stopping),
            "validation": len(prepared.cases.validation),
            "test": len(prepared.cases.test),
        },
    }


def key_of(prepared: Prepared, job: dict[str, Any], *, seedless: bool = False) -> str:
    """Return a name from data set, split, model, settings and seed; threads change no figure.

    The cases are in it too, so that quick figures are never taken for real ones.
    """
    settings = dict(job) | {"cases": [len(prepared.cases.stopping), len(prepared.cases.test)]}
    seed = settings.pop("seed", None)
    if "loop" in settings:
        loop = {key: value for key, value in settings["loop"].items() if key != "num_threads"}
        seed = loop.pop("seed")
        settings["loop"] = loop
    text = json.dumps(settings, sort_keys=True, default=asdict)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    name = f"{prepared.dataset}-{prepared.inputs.split.sha256[:8]}-{job['model']}-{digest}"
    return name if seedless else f"{name}-seed{seed}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a document."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document aside and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    aside.replace(path)
