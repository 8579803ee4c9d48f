"""From rows of figures to the report: intervals over seeds, and ours ÷ the better peer."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from statistics import mean
from typing import Any

HEADLINE = "ndcg@10"
OURS = "ours"


def ratio_key(task: str, dataset: str) -> str:
    """Return the report's name of a ratio."""
    return f"ndcg_ratio_{task}_{dataset.replace('-', '')}"


def report(rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return ratios (where both sides are measured), intervals and every row.

    A ratio is the mean over seeds of our test NDCG@10 ÷ the better peer's mean, under the
    headline's rule; `apart` says whether our lowest seed is above that peer's highest.
    """
    found: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for dataset, task in dict.fromkeys((row["dataset"], row["task"]) for row in rows):
        chosen = [row for row in rows if (row["dataset"], row["task"]) == (dataset, task)]
        group = summarise_group(chosen)
        groups[f"{dataset}:{task}"] = group
        if "ratio" in group:
            found[ratio_key(task, dataset)] = group["ratio"]
    machine = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "torch": metadata.version("torch"),
        "numpy": metadata.version("numpy"),
    }
    asked = {name: str(value) for name, value in settings.items()}
    return found | {"groups": groups, "machine": machine, "settings": asked, "rows": list(rows)}


def summarise_group(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one data set's and task's intervals by model, and the ratio if ours is there."""
    first = rows[0]
    if len({row["split_sha256"] for row in rows}) > 1:
        raise SystemExit(f"{first['dataset']}, {first['task']}: the rows are of several splits")
    rule = first["seen_items"]
    models = {
        model: summarise_model([row for row in rows if row["model"] == model])
        for model in dict.fromkeys(row["model"] for row in rows)
    }
    group = {
        "protocol": first["protocol"],
        "split_sha256": first["split_sha256"],
        "num_cases": first["num_cases"],
        "headline_rule": rule,
        "models": models,
    }
    peers = {name: each["test"][rule][HEADLINE] for name, each in models.items() if name != OURS}
    if OURS not in models or not peers:
        return group
    ours = models[OURS]["test"][rule][HEADLINE]
    better = max(peers, key=lambda name: peers[name]["mean"])
    return group | {
        "better_peer": better,
        "ratio": ours["mean"] / peers[better]["mean"],
        "apart": ours["min"] > peers[better]["max"],
    }


def summarise_model(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean, min and max over seeds of every metric, by split and rule."""
    first = rows[0]
    return {
        "seeds": [row["seed"] for row in rows],
        "parameters": first["parameters"],
        "fit_seconds": mean(row["fit_seconds"] for row in rows),
        "epochs": [row["epochs"] for row in rows],
    } | {
        split: {
            rule: {
                name: interval([row[split][rule][name] for row in rows])
                for name in first[split][rule]
            }
            for rule in first[split]
        }
        for split in ("validation", "test")
    }


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the extremes over seeds."""
    return {"mean": mean(values), "min": min(values), "max": max(values)}


def show(document: dict[str, Any]) -> None:
    """Print the report as a table, means over seeds of the test cases."""
    names = ("hr@1", "hr@5", "hr@10", "ndcg@10", "mrr")
    print(f"{'data set:task':<20}{'model':<9}{'rule':<9}" + "".join(f"{n:>9}" for n in names))
    for title, group in document["groups"].items():
        for model, figures in group["models"].items():
            for rule, metrics in figures["test"].items():
                mark = "*" if rule == group["headline_rule"] else " "
                cells = "".join(f"{metrics[name]['mean']:>9.4f}" for name in names)
                print(f"{title:<20}{model:<9}{rule + mark:<9}{cells}")
        if "ratio" in group:
            apart = "apart" if group["apart"] else "not apart"
            print(f"{title:<20}ours ÷ {group['better_peer']}: {group['ratio']:.3f}, seeds {apart}")
