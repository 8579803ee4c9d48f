"""What a search leaves: a table of its trials as CSV and JSON, and the best settings as TOML."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.config import RunConfig, TrainingError, config_to_dict
from training.files import write_json, write_text
from training.search.outcomes import Outcome, best_outcome
from training.search.space import toml_document
from training.validation import SCORE

CSV_FILE = "trials.csv"
JSON_FILE = "trials.json"
BEST_SETTINGS_FILE = "best.toml"
HEADER = ("trial", "state", SCORE, "best_epoch", "epochs", "seconds")


def table_rows(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[list[Any]]:
    """Return a row for each trial: HEADER, then the values of `names`, then why it failed."""
    return [
        [
            f"{outcome.place:03d}",
            outcome.state,
            outcome.score,
            outcome.best_epoch,
            len(outcome.scores),
            round(outcome.seconds, 1),
            *(outcome.values.get(name) for name in names),
            outcome.reason,
        ]
        for outcome in outcomes
    ]


def write_tables(out: Path, outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
    """Write trials.csv and trials.json; `names` are the settings that vary."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEADER, *names, "reason"])
    writer.writerows(table_rows(outcomes, names))
    write_text(out / CSV_FILE, text.getvalue())
    best = best_outcome(outcomes)
    document = {
        "best_trial": None if best is None else best.place,
        "trials": [
            asdict(outcome) | {SCORE: outcome.score, "best_epoch": outcome.best_epoch}
            for outcome in outcomes
        ],
    }
    write_json(out / JSON_FILE, document)


def write_best_settings(out: Path, best: Outcome, config: RunConfig) -> None:
    """Write all settings of the best trial, for `train --config`."""
    head = (
        f"# The settings of trial {best.place:03d}, the best of its search: validation {SCORE} "
        f"{best.score:.4f} at epoch {best.best_epoch}.\n\n"
    )
    write_text(out / BEST_SETTINGS_FILE, head + toml_document(config_to_dict(config)))


def require_best(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the best trial; raises TrainingError when none was trained to its end."""
    best = best_outcome(outcomes)
    if best is None:
        reasons = [outcome.reason for outcome in outcomes if outcome.reason]
        why = f"; the first failed: {reasons[0]}" if reasons else ""
        raise TrainingError(f"none of {len(outcomes)} trials was trained to its end{why}")
    return best
