"""A run on Weights & Biases: settings, epochs, figures, report. The package is an extra.

Whether it sends anything is the environment's to say: WANDB_MODE=offline writes into the run's
folder alone, for `wandb sync` later. What fails there is logged and ends the log, never the run.
"""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from training.config import TrainingError

ID_FILE = "wandb-id.json"
log = logging.getLogger(__name__)


class WandbLog:
    """One run of a project; goes on under the same id when the run does."""

    def __init__(self, project: str, run: Path, config: Mapping[str, Any]) -> None:
        """Raises TrainingError without the package, or where it cannot start."""
        wandb = _wandb()
        run.mkdir(parents=True, exist_ok=True)
        path = run / ID_FILE
        known = json.loads(path.read_bytes())["id"] if path.is_file() else secrets.token_hex(4)
        path.write_text(json.dumps({"id": known}) + "\n", encoding="utf-8")
        try:
            self._run: Any = wandb.init(
                project=project,
                id=known,
                resume="allow",
                name=run.name,
                dir=str(run),
                config=dict(config),
            )
        except Exception as exc:
            raise TrainingError(
                f"--wandb {project}: Weights & Biases cannot start: {exc}; log in with `wandb "
                "login`, or set WANDB_MODE=offline to keep the log in the run's folder"
            ) from exc
        self._wandb = wandb

    def epoch(self, row: Mapping[str, float]) -> None:
        """Log an epoch's row at its number."""
        self._attempt(lambda: self._run.log(dict(row), step=int(row["epoch"])))

    def finish(self, figures: Mapping[str, Any], report: Path | None) -> None:
        """Log the final figures and the report as an artifact, and close the log."""

        def close() -> None:
            self._run.summary.update(dict(figures))
            if report is not None:
                artifact = self._wandb.Artifact(f"report-{self._run.id}", type="report")
                artifact.add_file(str(report))
                self._run.log_artifact(artifact)
            # Without a report the run did not end well.
            self._run.finish(exit_code=0 if report is not None else 1)

        self._attempt(close)

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception:  # whatever fails outside, hours of training are worth more
            log.exception("Weights & Biases failed; the run goes on without it")
            self._run = None


def _wandb() -> ModuleType:
    try:
        import wandb  # noqa: PLC0415 - an extra of its own
    except ModuleNotFoundError as exc:
        raise TrainingError(
            f"--wandb needs {exc.name}: install the extra `wandb`, pip install 'sojourn[wandb]'"
        ) from exc
    return wandb
