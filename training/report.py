"""The report of a run as one HTML page: how it learnt, what it is worth, and its settings."""

import math
from collections.abc import Sequence
from pathlib import Path

from training.charts import line_chart
from training.evaluation_report import DRAWN, Document, evaluation_sections
from training.files import write_text
from training.findings_report import findings_sections
from training.pages import facts, folded, page, paragraph, section, shown, table

REPORT_FILE = "report.html"
# What is drawn by epoch where a run has it; one chart for what has one scale.
CURVES = (
    ("hr@10", "ndcg@10", "mrr"),
    ("auc", "user_auc"),
    ("log_loss",),
    ("watch_mse_log",),
    ("watch_mae_s",),
)


def write_run_report(
    run: Path, config: Document, metrics: Document, findings: Document | None = None
) -> None:
    """Write `report.html` into a finished run, from what its config.json and metrics.json say.

    `findings` are what `training.findings` found out about its model, if it was looked at.
    """
    title = f"{_dataset(config)}: {_best(metrics)}"
    training, *rest = run_sections(config, metrics)
    found = [] if findings is None else findings_sections(findings)
    write_text(run / REPORT_FILE, page(title, [training, *found, *rest]))


def write_evaluation_report(
    path: Path, evaluation: Document, config: Document, metrics: Document
) -> None:
    """Write the page of one evaluation, followed by how the run was trained."""
    figure = shown(evaluation["results"]["model"][DRAWN])
    title = f"{evaluation['dataset']}: {evaluation['split']} {DRAWN} {figure}"
    sections = [*evaluation_sections(evaluation), *run_sections(config, metrics)]
    write_text(path, page(title, sections))


def run_sections(config: Document, metrics: Document) -> list[str]:
    """Return how a run learnt, what it was made from, and its settings."""
    history = metrics["history"]
    drawn = [
        line_chart(f"Validation {', '.join(present)} by epoch", _curves(history, present), "epoch")
        for present in ([name for name in names if name in history[0]] for names in CURVES)
        if present
    ]
    return [
        section(
            "Training",
            paragraph(f"The {_best(metrics)} of {len(history)}."),
            line_chart("Training loss by epoch", _curves(history, ["loss"]), "epoch"),
            *drawn,
            folded("Every cutoff by epoch", *_cutoffs(history)),
            folded("Every epoch", _epochs(history)),
        ),
        section("Origin", _origin(config, metrics)),
        section("Settings", '<div class="columns">', *_settings(config), "</div>"),
    ]


def _cutoffs(history: Sequence[Document]) -> list[str]:
    """Return a chart of each ranking metric at all of its cutoffs."""
    kinds = ("hr@", "ndcg@", "mrr@")
    named = [[name for name in history[0] if name.startswith(kind)] for kind in kinds]
    return [
        line_chart(
            f"Validation {names[0].split('@')[0]} by epoch", _curves(history, names), "epoch"
        )
        for names in named
        if names
    ]


def _dataset(config: Document) -> str:
    """Return the data set's name; the rest of its path is nobody's business."""
    return Path(config["dataset"]).name


def _best(metrics: Document) -> str:
    best = metrics["best_validation"]
    name = DRAWN if DRAWN in best else "score"
    return f"best validation {name} {shown(best[name])} at epoch {metrics['best_epoch']}"


def _curves(
    history: Sequence[Document], names: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [
            (row["epoch"], row[name])
            for row in history
            if row[name] is not None and math.isfinite(row[name])
        ]
        for name in names
    }


def _epochs(history: Sequence[Document]) -> str:
    names = [name for name in history[0] if name not in ("epoch", "score")]
    rows = [[int(row["epoch"]), *(row[name] for name in names)] for row in history]
    return table(["epoch", *names], rows, "Loss, validation metrics, speed and seconds")


def _origin(config: Document, metrics: Document) -> str:
    named = {
        "data set": _dataset(config),
        "protocol": metrics["protocol"],
        "request time": metrics["request_time"],
        "seen items": metrics["seen_items"],
        "seed": metrics["seed"],
        "parameters": metrics["parameters"],
        "data SHA-256": metrics["data_sha256"],
        "split SHA-256": metrics["split_sha256"],
    }
    return facts(named, "What the run was made from")


def _settings(config: Document) -> list[str]:
    """Return a table for each section; numbers in full, since a setting is not a measurement."""
    return [
        facts({key: str(v) if isinstance(v, float) else v for key, v in body.items()}, name)
        for name, body in config.items()
        if isinstance(body, dict)
    ]
