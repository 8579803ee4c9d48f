"""What a run learns by: the loss of one batch, as a mean and the number of rows it is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.augment import Augmenter, View, make_substitutes
from training.baselines import item_counts
from training.config import LossConfig, PretrainConfig, RunConfig, TrainingError
from training.data import EventTable
from training.dataset import TrainingBatch
from training.losses import (
    CopyBonus,
    full_cross_entropy,
    gbce,
    info_nce,
    sampled_softmax,
)
from training.model.rates import skip_type_codes
from training.model.sequence_model import ModelOutput, SequenceModel
from training.model_config import Bert4RecConfig, RecurrentConfig, Task


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """A mean loss, (), and how many rows it is the mean of."""

    mean: Tensor
    num_rows: int


Objective = Callable[[SequenceModel, TrainingBatch], BatchLoss]


def make_objective(
    config: RunConfig, events: EventTable, train: NDArray[np.bool_], texts: Sequence[str] = ()
) -> Objective:
    """Return the loss function of a run; raises TrainingError for what does not go together.

    `texts` are those of ItemFacts.
    """
    _check(config)
    sampler = _log_q(config.loss, events, train)
    next_item = NextItemLoss(config.loss, sampler)
    if isinstance(config.model, Bert4RecConfig) or config.pretrain.objective == "masked":
        return MaskedObjective(config.pretrain, next_item)
    if config.pretrain.objective == "contrastive":
        substitutes = make_substitutes(config.pretrain.substitutes, events, train, texts)
        return ContrastiveObjective(config.pretrain, Augmenter(config.pretrain, substitutes))
    return TaskObjective(config.loss, next_item)


class NextItemLoss:
    """The configured loss of query rows and their target items."""

    def __init__(self, config: LossConfig, log_q: Tensor) -> None:
        self._config = config
        self._log_q = log_q

    def __call__(
        self, query: Tensor, items: Tensor, targets: Tensor, copy: CopyBonus | None
    ) -> Tensor:
        """Return the mean loss of queries (rows, dim) and targets (rows,), rows of `items`."""
        config = self._config
        if config.name == "full":
            return full_cross_entropy(query, items, targets, copy, config.label_smoothing)
        if config.name == "sampled":
            drawn = torch.multinomial(self._log_q.exp(), config.num_negatives, replacement=True).to(
                query.device
            )
            log_q = self._log_q.to(query.device)
            return sampled_softmax(query, items, targets, drawn, log_q, copy)
        shape = (len(targets), config.num_negatives)
        drawn = torch.randint(len(items), shape, device=query.device)
        return gbce(query, items, targets, drawn, config.gbce_t if config.name == "gbce" else 0.0)


class TaskObjective:
    """The heads' losses at every real position, weighted; the next item counts where acted on."""

    def __init__(self, config: LossConfig, next_item: NextItemLoss) -> None:
        self._config = config
        self._next_item = next_item
        self._skips = torch.tensor(skip_type_codes())

    def __call__(self, model: SequenceModel, batch: TrainingBatch) -> BatchLoss:
        """Return the weighted sum of the tasks' mean losses."""
        output = model(batch.batch, batch.targets.shape[1])
        real = batch.targets > 0
        acted = torch.isin(batch.target_types, self._skips.to(real.device)).logical_not()
        tasks = model.config.tasks
        total = output.hidden.new_zeros(())
        if "next-item" in tasks:
            rows = real & acted if "click" in tasks else real
            loss = self._next_loss(model, output, batch, rows)
            total = total + self._config.next_item_weight * loss
        if "click" in tasks:
            wanted = acted[real].float()
            targets = batch.targets[real]
            logits = _own_scores(model, output, "click", real, targets)
            logits = logits + _left_out(model, "click", targets, wanted)
            loss = functional.binary_cross_entropy_with_logits(logits, wanted)
            total = total + self._config.click_weight * loss
        if "watch" in tasks:
            rows = real & batch.target_durations_s.isnan().logical_not()
            wanted = torch.log1p(batch.target_durations_s[rows])
            targets = batch.targets[rows]
            predicted = _own_scores(model, output, "watch", rows, targets)
            predicted = predicted + _left_out(model, "watch", targets, wanted)
            # Summed and divided, since the mean of no row at all is NaN.
            errors = ((predicted - wanted) ** 2).sum() / max(1, len(wanted))
            total = total + self._config.watch_weight * errors
        return BatchLoss(total, int(real.sum()))

    def _next_loss(
        self, model: SequenceModel, output: ModelOutput, batch: TrainingBatch, rows: Tensor
    ) -> Tensor:
        query = model.query(output, "next-item", rows)
        items = model.item_vectors("next-item", output.table)[1:]
        copy = None
        if output.copy is not None:
            window = batch.batch.items[:, None, :].expand_as(output.copy)
            copy = CopyBonus(window[rows] - 1, output.copy[rows])
        return self._next_item(query, items, batch.targets[rows] - 1, copy)


class MaskedObjective:
    """Masked events filled in from both sides (Sun et al., 2019); BERT4Rec's own way to learn.

    A model that serves by a mask after the newest event also fills in that one, every time.
    """

    def __init__(self, config: PretrainConfig, next_item: NextItemLoss) -> None:
        self._share = config.mask_share
        self._next_item = next_item

    def __call__(self, model: SequenceModel, batch: TrainingBatch) -> BatchLoss:
        """Return the loss over the masked events."""
        window, targets = batch.batch, batch.batch.items
        real = targets > 0
        masked = real & (torch.rand(real.shape).to(real.device) < self._share)
        masked[:, -1] |= real[:, -1] & masked.any(dim=1).logical_not()
        window = window.hidden_at(masked)
        asked = (window.query_times_ms, window.query_tz_offsets_min)
        if model.config.request_time == "known":
            # What is filled in is the event itself, so that its own time is the one asked about.
            window = replace(
                window,
                query_times_ms=window.timestamps_ms,
                query_tz_offsets_min=window.tz_offsets_min,
            )
        table = model.items()
        vectors = torch.where(masked[..., None], model.mask_vector, table[window.items])
        if model.bidirectional:
            window, vectors = model.with_mask_appended(window, vectors, asked)
            targets = torch.cat([targets, batch.targets[:, -1:]], dim=1)
            masked = torch.cat([masked, batch.targets[:, -1:] > 0], dim=1)
        output = model.read(window, table, vectors, targets.shape[1], both_ways=True)
        query = model.query(output, "next-item", masked)
        items = model.item_vectors("next-item", table)[1:]
        loss = self._next_item(query, items, targets[masked] - 1, None)
        return BatchLoss(loss, int(masked.sum()))


class ContrastiveObjective:
    """Two views of every window find each other among those of the batch."""

    def __init__(self, config: PretrainConfig, augmenter: Augmenter) -> None:
        self._temperature = config.contrastive_temperature
        self._augmenter = augmenter

    def __call__(self, model: SequenceModel, batch: TrainingBatch) -> BatchLoss:
        """Return the loss over pairs of views."""
        left, right = (self._encode(model, self._augmenter.view(batch.batch)) for _ in range(2))
        return BatchLoss(info_nce(left, right, self._temperature), len(left))

    def _encode(self, model: SequenceModel, view: View) -> Tensor:
        table = model.items()
        vectors = torch.where(view.masked[..., None], model.mask_vector, table[view.batch.items])
        window = view.batch.hidden_at(view.masked)
        return model.read(window, table, vectors, num_queries=1).hidden[:, 0]


def _own_scores(
    model: SequenceModel, output: ModelOutput, task: Task, rows: Tensor, targets: Tensor
) -> Tensor:
    """Return a task's score of each row's own target, (rows,)."""
    items = model.item_vectors(task, output.table)[targets]
    return (model.query(output, task, rows) * items).sum(dim=-1)


def _left_out(model: SequenceModel, task: Task, targets: Tensor, outcomes: Tensor) -> Tensor:
    """Return what takes each target's own outcome out of its item's rate, (rows,)."""
    left_out: Tensor = model.heads[task].rates.left_out(targets, outcomes)  # type: ignore[union-attr,operator]  # a value head's
    return left_out


def _log_q(config: LossConfig, events: EventTable, train: NDArray[np.bool_]) -> Tensor:
    """Return the sampler's log probability of each item, (num_items,)."""
    weights = np.ones(events.num_items)
    if config.sampler == "popularity":
        weights = np.maximum(item_counts(events, train)[1:], 1).astype(np.float64)
    return torch.from_numpy(np.log(weights / weights.sum()).astype(np.float32))


def _check(config: RunConfig) -> None:
    model, objective = config.model, config.pretrain.objective
    _check_loss(config.loss)
    if model.copy and config.loss.name not in ("full", "sampled"):
        raise TrainingError(
            f"loss.name = {config.loss.name!r}: model.copy = true needs 'full' or 'sampled'; "
            "or set model.copy = false"
        )
    if objective == "contrastive" and isinstance(model, Bert4RecConfig):
        raise TrainingError(
            "pretrain.objective = 'contrastive': model.family = 'bert4rec' learns by masks alone; "
            "use 'next-item' or 'masked'"
        )
    if objective == "masked" and isinstance(model, RecurrentConfig):
        raise TrainingError(
            f"pretrain.objective = 'masked' needs attention both ways; model.family = "
            f"{model.family!r} reads one way: use 'contrastive'"
        )
    both_ways = objective == "masked" or isinstance(model, Bert4RecConfig)
    if both_ways and "next-item" not in model.tasks:
        raise TrainingError("model.tasks must hold 'next-item' to fill in masked events")
    if isinstance(model, Bert4RecConfig) and (len(model.tasks) > 1 or model.copy):
        raise TrainingError(
            "model.family = 'bert4rec' has the one task 'next-item' and no copy; set "
            "model.copy = false"
        )


def _check_loss(loss: LossConfig) -> None:
    """Refuse what the chosen loss would not look at."""
    if loss.label_smoothing and loss.name != "full":
        raise TrainingError(
            f"loss.label_smoothing = {loss.label_smoothing!r} needs loss.name = 'full', which is "
            f"{loss.name!r}; set it to 0"
        )
    if loss.sampler != "uniform" and loss.name != "sampled":
        raise TrainingError(
            f"loss.sampler = {loss.sampler!r} needs loss.name = 'sampled', which is "
            f"{loss.name!r}; set it to 'uniform'"
        )
