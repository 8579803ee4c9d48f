"""The training loop: one step, one epoch, early stopping on validation NDCG@10, resume."""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from training.checkpoints import BEST_FILE, LAST_FILE, TrainState, load_state, save_state
from training.config import OptimConfig, RunConfig, TrainingError, config_to_dict
from training.data import DatasetInfo, EventTable
from training.dataset import TrainingBatch, TrainingSet
from training.evaluate import headline_rule, validation_ndcg
from training.losses import full_cross_entropy
from training.model import SequenceModel
from training.splits import Split

METRICS_FILE = "metrics.json"
CONFIG_FILE = "config.json"
TENSORBOARD_DIR = "tensorboard"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """The data of a run, read once and shared by every stage."""

    events: EventTable
    info: DatasetInfo
    split: Split
    dataset_path: Path


def train(inputs: TrainInputs, config: RunConfig, run: Path) -> TrainState:
    """Train until the validation NDCG@10 stops rising; resume when `run` has a checkpoint.

    Writes config.json, metrics.json, last.pt, best.pt and TensorBoard events into `run`. Raises
    TrainingError when `run` belongs to other settings or data, or the loss is not finite.
    """
    _check_times(inputs.info, config)
    torch.set_num_threads(config.loop.num_threads or torch.get_num_threads())
    torch.manual_seed(config.loop.seed)
    run.mkdir(parents=True, exist_ok=True)
    model = SequenceModel(config.model, inputs.events.num_items)
    trainer = _Trainer(inputs, config, run, model)
    trainer.restore()
    trainer.fit()
    return trainer.state


def train_step(
    model: SequenceModel, optimizer: Optimizer, batch: TrainingBatch, clip_norm: float
) -> float:
    """Take one optimiser step; return the mean loss per real position, in nats."""
    query = model.encode(batch.batch, num_queries=batch.targets.shape[1])  # (batch, window, dim)
    real = batch.targets > 0
    loss = full_cross_entropy(query[real], model.item_vectors()[1:], batch.targets[real] - 1)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()


class _Trainer:
    def __init__(
        self, inputs: TrainInputs, config: RunConfig, run: Path, model: SequenceModel
    ) -> None:
        self._inputs, self._config, self._run, self._model = inputs, config, run, model
        self._set = TrainingSet(
            inputs.events, inputs.split.train, config.model.window_len, config.model.request_time
        )
        if len(self._set) == 0:
            raise TrainingError("no user has two training events: nothing to learn from")
        self._optimizer = make_optimizer(model, config.optim)
        self._rng = np.random.default_rng(config.loop.seed)
        self._rule = headline_rule(inputs.info.repeat_share)
        self._validation = self._validation_rows()
        self.state = self._snapshot(0, [], -1.0, 0)

    def restore(self) -> None:
        path = self._run / LAST_FILE
        if not path.is_file():
            document = config_to_dict(self._config) | {"dataset": str(self._inputs.dataset_path)}
            _write_json(self._run / CONFIG_FILE, document)
            return
        state = load_state(path)
        if state.config != config_to_dict(self._config):
            raise TrainingError(
                f"{self._run}: was trained with other settings; choose another --out"
            )
        if state.data_sha256 != self._inputs.info.data_sha256:
            raise TrainingError(f"{self._run}: was trained on other data; choose another --out")
        self._model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.torch_rng)
        self._rng.bit_generator.state = state.numpy_rng
        self.state = state
        log.info("resuming after epoch %d", state.epoch)

    def fit(self) -> None:
        loop = self._config.loop
        with SummaryWriter(str(self._run / TENSORBOARD_DIR)) as board, _progress() as progress:
            total = self._set.num_batches(loop.batch_size)
            task = progress.add_task("epoch", total=total)
            while not self._done():
                epoch = self.state.epoch + 1
                progress.reset(task, description=f"epoch {epoch}", total=total)
                started = time.monotonic()
                losses = []
                for loss in self._epoch(epoch):
                    losses.append(loss)
                    progress.advance(task)
                row = {"epoch": float(epoch), "loss": float(np.mean(losses))}
                row |= self._validate() | {"seconds": time.monotonic() - started}
                self._record(row, board)
        self._finish()

    def _epoch(self, epoch: int) -> Iterator[float]:
        loop, optim = self._config.loop, self._config.optim
        self._model.train()
        step = (epoch - 1) * self._set.num_batches(loop.batch_size)
        for batch in self._set.epoch(loop.batch_size, self._rng):
            step += 1
            for group in self._optimizer.param_groups:
                group["lr"] = optim.learning_rate * min(1.0, step / max(1, optim.warmup_steps))
            loss = train_step(self._model, self._optimizer, batch, optim.clip_norm)
            if not np.isfinite(loss):
                raise TrainingError(f"epoch {epoch}, step {step}: the loss is {loss}")
            yield loss

    def _validate(self) -> dict[str, float]:
        request_time = self._config.model.request_time
        return validation_ndcg(
            self._model, self._inputs.events, self._validation, request_time, self._rule
        )

    def _record(self, row: dict[str, float], board: SummaryWriter) -> None:
        epoch, ndcg = int(row["epoch"]), row["ndcg@10"]
        for name, value in row.items():
            board.add_scalar(name.replace("@", "_at_"), value, epoch)
        best = ndcg > self.state.best_ndcg
        history = [*self.state.history, row]
        best_ndcg = ndcg if best else self.state.best_ndcg
        self.state = self._snapshot(
            epoch, history, best_ndcg, epoch if best else self.state.best_epoch
        )
        if best:
            save_state(self._run / BEST_FILE, self.state)
        save_state(self._run / LAST_FILE, self.state)
        log.info(
            "epoch %d  loss %.4f  validation hr@10 %.4f  ndcg@10 %.4f%s  %.1f s",
            epoch, row["loss"], row["hr@10"], ndcg, " *" if best else "", row["seconds"],
        )  # fmt: skip

    def _done(self) -> bool:
        loop, state = self._config.loop, self.state
        spent = sum(row["seconds"] for row in state.history)
        out_of_time = loop.max_minutes > 0 and spent > loop.max_minutes * 60
        stale = state.epoch - state.best_epoch >= loop.patience
        return state.finished or state.epoch >= loop.max_epochs or stale or out_of_time

    def _finish(self) -> None:
        self.state.finished = True
        save_state(self._run / LAST_FILE, self.state)
        best = load_state(self._run / BEST_FILE)
        self._model.load_state_dict(best.model)
        document = {
            "seed": self._config.loop.seed,
            "data_sha256": self._inputs.info.data_sha256,
            "split_sha256": self._inputs.split.sha256,
            "protocol": self._inputs.split.protocol,
            "request_time": self._config.model.request_time,
            "seen_items": self._rule,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "best_epoch": self.state.best_epoch,
            "best_validation": best.history[-1],
            "history": self.state.history,
        }
        _write_json(self._run / METRICS_FILE, document)

    def _snapshot(
        self, epoch: int, history: list[dict[str, float]], best_ndcg: float, best_epoch: int
    ) -> TrainState:
        return TrainState(
            config=config_to_dict(self._config),
            data_sha256=self._inputs.info.data_sha256,
            epoch=epoch,
            model=self._model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            torch_rng=torch.get_rng_state(),
            numpy_rng=dict(self._rng.bit_generator.state),
            history=history,
            best_ndcg=best_ndcg,
            best_epoch=best_epoch,
        )

    def _validation_rows(self) -> NDArray[np.int64]:
        rows, limit = self._inputs.split.validation, self._config.loop.max_validation_users
        if len(rows) <= limit:
            return rows
        chosen = np.random.default_rng(0).choice(len(rows), limit, replace=False)
        return rows[np.sort(chosen)]


def make_optimizer(model: SequenceModel, config: OptimConfig) -> Optimizer:
    """Build the configured optimiser, fused."""
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def _check_times(info: DatasetInfo, config: RunConfig) -> None:
    model = config.model
    if info.time_axis == "order" and (model.request_time == "known" or model.time_gaps):
        raise TrainingError(
            f"{info.name}: only the order of events is known, not their times; train with "
            "--preset base, or --set model.request_time=unknown --set model.time_gaps=false"
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        transient=True,
    )  # fmt: skip


def _write_json(path: Path, document: dict[str, Any]) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
