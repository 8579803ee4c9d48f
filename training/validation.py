"""What decides the best epoch: ranking, click or watch metrics on the validation cases."""

import numpy as np
from numpy.typing import NDArray

from training.config import RunConfig, TrainingError
from training.data import DatasetInfo, EventTable
from training.evaluate import headline_rule, validation_ndcg
from training.evaluate_tasks import measure_tasks, outcomes, task_predictions
from training.model.sequence_model import SequenceModel
from training.model_config import Bert4RecConfig
from training.splits import Split

SCORE = "score"


class Validator:
    """Measures a model after each epoch; `score` is what early stopping watches, higher is better.

    It is NDCG@10 of the first task's ranking, the click AUC, minus the squared error of log
    seconds, or for pre-training, which ranks nothing yet, minus the training loss.
    """

    def __init__(
        self, events: EventTable, split: Split, info: DatasetInfo, config: RunConfig
    ) -> None:
        self._events, self._config = events, config
        self._rule = headline_rule(info.repeat_share)
        self._rows = _limited(split.validation, config.loop.max_validation_users)

    def measure(self, model: SequenceModel, loss: float) -> dict[str, float]:
        """Return the metrics of the validation cases, and their score."""
        config, served = self._config, self._config.model.tasks[0]
        row: dict[str, float] = {}
        if served == "next-item":
            row |= validation_ndcg(
                model, self._events, self._rows, config.model.request_time, self._rule
            )
        predicted = task_predictions(model, self._events, self._rows, config.model.request_time)
        row |= measure_tasks(predicted, outcomes(self._events, self._rows))
        learns_otherwise = config.pretrain.objective != "next-item" and not isinstance(
            config.model, Bert4RecConfig
        )
        if learns_otherwise:
            row[SCORE] = -loss
        elif served == "next-item":
            row[SCORE] = row["ndcg@10"]
        else:
            row[SCORE] = row["auc"] if served == "click" else -row["watch_mse_log"]
        if not np.isfinite(row[SCORE]):
            raise TrainingError(
                f"the validation cases give no score for the task {served!r}: none of them, or all "
                "of them, were acted on, or no duration is known; widen the validation period with "
                "split.validation_from, or choose other model.tasks"
            )
        return row


def _limited(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    if len(rows) <= limit:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), limit, replace=False)
    return rows[np.sort(chosen)]
