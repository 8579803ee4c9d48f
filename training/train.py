"""The training loop: one step, one epoch, early stopping on a validation score, resume."""

import logging
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from training.checkpoints import BEST_FILE, LAST_FILE, TrainState, load_state, save_state
from training.config import RunConfig, TrainingError, config_from_dict, config_to_dict
from training.data import DatasetInfo, EventTable
from training.dataset import TrainingBatch, TrainingSet
from training.distributed import (
    ALONE,
    LossModule,
    Ranks,
    agreed,
    join_ranks,
    own_rows,
    own_share,
    weighted,
    wrap,
)
from training.evaluate import headline_rule
from training.files import write_json
from training.items import ItemFacts
from training.model.copy_head import SeenBias
from training.model.sequence_model import SequenceModel
from training.new_model import NO_SCHEDULE, new_model
from training.objectives import make_objective
from training.optimisers import RATE_SCALE, freeze, learning_rate, make_optimizer
from training.splits import Split
from training.task_baselines import item_tallies
from training.validation import SCORE, Validator
from training.warm_start import load_weights, warm_start

METRICS_FILE = "metrics.json"
CONFIG_FILE = "config.json"
TENSORBOARD_DIR = "tensorboard"
KIB_PER_MIB = 1024

log = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """The data of a run, read once and shared by every stage."""

    events: EventTable
    info: DatasetInfo
    split: Split
    dataset_path: Path
    facts: ItemFacts


def train(
    inputs: TrainInputs,
    config: RunConfig,
    run: Path,
    on_epoch: OnEpoch | None = None,
    on_start: Callable[[SequenceModel], None] | None = None,
) -> TrainState:
    """Train until the validation score stops rising; resume when `run` has a checkpoint.

    Writes config.json, metrics.json, last.pt, best.pt and TensorBoard events into `run`.
    `on_epoch` gets each epoch's row after it is saved, and may raise to end the run; `on_start`, in
    the process that writes, the model before the first epoch, which it must leave as it is. Raises
    TrainingError when `run` belongs to other settings or data, or the loss is not finite.
    """
    check_times(inputs.info, config)
    torch.set_num_threads(config.loop.num_threads or torch.get_num_threads())
    ranks = join_ranks()
    run.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(inputs, config, run, ranks)
    trainer.restore()
    if on_start is not None and ranks.writes and trainer.state.epoch == 0:
        on_start(trainer.starting_model)
    trainer.fit(on_epoch or (lambda row: None))
    return trainer.state


def build_model(inputs: TrainInputs, config: RunConfig) -> SequenceModel:
    """Build a run's model with the weights that its seed gives, or those of `init_from`."""
    torch.manual_seed(config.loop.seed)
    # Counting the steps cuts all histories into sequences; only who reads texts has to wait for it.
    num_steps = _num_steps(inputs, config) if config.text.weights else NO_SCHEDULE
    model = new_model(config, inputs.facts, inputs.dataset_path, num_steps=num_steps)
    _start_heads(model, inputs)
    if config.pretrain.init_from:
        warm_start(model, config, inputs.info.data_sha256)
    return model


def _num_steps(inputs: TrainInputs, config: RunConfig) -> int:
    """Return how many steps a run has at most; moving cuts change it by a few an epoch."""
    model = config.model
    data = TrainingSet(inputs.events, inputs.split.train, model.window_len, model.request_time)
    return config.loop.max_epochs * len(data.batches(config.loop, np.random.default_rng(0)))


def _start_heads(model: SequenceModel, inputs: TrainInputs) -> None:
    """Start value heads at counted rates, the bias of seen items at how often items repeat."""
    if isinstance(model.copy_head, SeenBias):
        model.copy_head.start_at(inputs.info.repeat_share)
    value_tasks = set(model.config.tasks) - {"next-item"}
    if not value_tasks:
        return
    for task, tally in item_tallies(inputs.events, inputs.split.train).items():
        if task not in value_tasks:
            continue
        if not tally.counts.any():
            raise TrainingError(
                f"model.tasks = {list(model.config.tasks)}: no training event has what the head "
                f"{task!r} learns; leave it out, or import the log with durations"
            )
        model.heads[task].rates.start_at(tally)  # type: ignore[union-attr,operator]  # a value head's


@dataclass(slots=True)
class _Learner:
    """What learns: the model, its optimiser, and the average of its weights if there is one."""

    model: SequenceModel
    optimizer: Optimizer
    module: nn.Module
    average: AveragedModel | None

    @property
    def validated(self) -> SequenceModel:
        """Return the model that is validated, saved as best and exported."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]  # a copy of the model

    def refresh_texts(self) -> None:
        """Read all texts by what was learned: for the next epoch, and for what is validated."""
        # The average too has a language model of its own, whose weights are averages.
        for model in {id(each): each for each in (self.model, self.validated)}.values():
            if model.items.texts is not None:
                model.items.texts.refresh()


def train_step(
    learner: _Learner, batch: TrainingBatch, config: RunConfig, ranks: Ranks = ALONE
) -> float:
    """Take one optimiser step; return the mean loss per row, in nats."""
    kind = torch.bfloat16 if config.loop.precision == "bfloat16" else torch.float32
    device = next(learner.model.parameters()).device
    with torch.autocast(device.type, kind, enabled=kind is not torch.float32):
        mean, num_rows = learner.module(own_rows(batch, ranks).to(device))
    loss, value = weighted(mean, num_rows * own_share(batch, ranks), ranks)
    learner.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if config.optim.clip_norm:
        nn.utils.clip_grad_norm_(learner.model.parameters(), config.optim.clip_norm)
    learner.optimizer.step()
    if learner.average is not None:
        learner.average.update_parameters(learner.model)
    return value


def make_learner(inputs: TrainInputs, config: RunConfig, ranks: Ranks = ALONE) -> _Learner:
    """Build the model of a run and everything that moves it."""
    model = build_model(inputs, config)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    objective = make_objective(config, inputs.events, inputs.split.train, inputs.facts.texts)
    module = wrap(LossModule(model, objective), ranks)
    decay = config.optim.ema_decay
    average = None
    if decay:
        averaging = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's own
        average = AveragedModel(model, multi_avg_fn=averaging)
    if config.loop.compile:
        module.compile(dynamic=True)
    texts = model.items.texts
    reader = None if texts is None else texts.encoder
    optimizer = make_optimizer(model, config.optim, reader, config.text.learning_rate)
    return _Learner(model, optimizer, module, average)


@dataclass(slots=True)
class _Trainer:
    """One run from its first epoch or its last checkpoint to the end."""

    inputs: TrainInputs
    config: RunConfig
    run: Path
    ranks: Ranks
    state: TrainState = field(init=False)
    _set: TrainingSet = field(init=False)
    _learner: _Learner = field(init=False)
    _validator: Validator = field(init=False)

    def __post_init__(self) -> None:
        inputs, config = self.inputs, self.config
        self._set = TrainingSet(
            inputs.events, inputs.split.train, config.model.window_len, config.model.request_time
        )
        if len(self._set) == 0:
            raise TrainingError("no user has two training events: nothing to learn from")
        self._learner = make_learner(inputs, config, self.ranks)
        self._validator = Validator(inputs.events, inputs.split, inputs.info, config)
        self.state = self._snapshot(0, [], -np.inf, 0)

    @property
    def starting_model(self) -> SequenceModel:
        """Return the model that is validated, before it has learned."""
        return self._learner.validated

    def restore(self) -> None:
        path = self.run / LAST_FILE
        if not path.is_file():
            if self.ranks.writes:
                dataset = {"dataset": str(self.inputs.dataset_path)}
                write_json(self.run / CONFIG_FILE, config_to_dict(self.config) | dataset)
            return
        state = load_state(path)
        # As it reads today: settings that came later are as they were without them.
        theirs = config_from_dict(RunConfig, state.config)
        if theirs != self.config:
            raise TrainingError(
                f"{self.run}: was trained with other settings; choose another --out"
            )
        if state.data_sha256 != self.inputs.info.data_sha256:
            raise TrainingError(f"{self.run}: was trained on other data; choose another --out")
        load_weights(self._learner.model, state.learner or state.model, self.run)
        if self._learner.average is not None:
            self._learner.average.module.load_state_dict(state.model)
            # The first update of an average copies; a resumed one goes on averaging.
            self._learner.average.n_averaged.fill_(1)
        self._learner.optimizer.load_state_dict(state.optimizer)
        for group in self._learner.optimizer.param_groups:
            group.setdefault(RATE_SCALE, 1.0)
        self.state = state
        log.info("resuming after epoch %d", state.epoch)

    def fit(self, on_epoch: OnEpoch) -> None:
        with self._board() as board, _progress() as progress:
            task = progress.add_task("epoch")
            while not self._done():
                epoch = self.state.epoch + 1
                started = time.monotonic()
                rng = np.random.default_rng([self.config.loop.seed, epoch])
                batches = self._set.batches(self.config.loop, rng)
                progress.reset(task, description=f"epoch {epoch}", total=len(batches))
                losses = []
                for loss in self._epoch(epoch, batches):
                    losses.append(loss)
                    progress.advance(task)
                trained = time.monotonic() - started
                self._learner.refresh_texts()
                row = {"epoch": float(epoch), "loss": float(np.mean(losses))}
                row |= self._validator.measure(self._learner.validated, row["loss"])
                row |= {
                    "tokens_per_s": self._set.num_targets / trained,
                    "seconds": time.monotonic() - started,
                }
                row = agreed(row, self.ranks)
                self._record(row, board)
                on_epoch(row)
        self._finish()

    def _epoch(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[float]:
        loop, optim = self.config.loop, self.config.optim
        # Batches are the same for all processes, dropout is not.
        drawn = np.random.SeedSequence([loop.seed, epoch, self.ranks.rank]).generate_state(1)
        torch.manual_seed(int(drawn[0]))
        freeze(self._learner.model, self.config.pretrain, epoch)
        self._learner.model.train()
        texts = self._learner.model.items.texts
        # Moving cuts change the count of batches by a few, which the schedule can bear.
        first = (epoch - 1) * len(batches) + 1
        for step, rows in enumerate(batches, start=first):
            rate = learning_rate(optim, step, loop.max_epochs * len(batches))
            for group in self._learner.optimizer.param_groups:
                group["lr"] = rate * group[RATE_SCALE]
            loss = train_step(self._learner, self._set.batch(rows), self.config, self.ranks)
            if texts is not None:
                texts.after_step(step)
            if not np.isfinite(loss):
                raise TrainingError(f"epoch {epoch}, step {step}: the loss is {loss}")
            yield loss

    def _board(self) -> AbstractContextManager[SummaryWriter | None]:
        if not self.ranks.writes:
            return nullcontext()
        return SummaryWriter(str(self.run / TENSORBOARD_DIR))

    def _record(self, row: dict[str, float], board: SummaryWriter | None) -> None:
        epoch, score = int(row["epoch"]), row[SCORE]
        if board is not None:
            for name, value in row.items():
                board.add_scalar(name.replace("@", "_at_"), value, epoch)
        best = score > self.state.best_score
        self.state = self._snapshot(
            epoch,
            [*self.state.history, row],
            score if best else self.state.best_score,
            epoch if best else self.state.best_epoch,
        )
        if self.ranks.writes:
            if best:
                save_state(self.run / BEST_FILE, self.state)
            save_state(self.run / LAST_FILE, self.state)
        log.info("%s", describe_row(row, best=best))

    def _done(self) -> bool:
        loop, state = self.config.loop, self.state
        spent = sum(row["seconds"] for row in state.history)
        out_of_time = loop.max_minutes > 0 and spent > loop.max_minutes * 60
        stale = state.epoch - state.best_epoch >= loop.patience
        return state.finished or state.epoch >= loop.max_epochs or stale or out_of_time

    def _finish(self) -> None:
        self.state.finished = True
        if not self.ranks.writes:
            return
        save_state(self.run / LAST_FILE, self.state)
        document = {
            "seed": self.config.loop.seed,
            "data_sha256": self.inputs.info.data_sha256,
            "split_sha256": self.inputs.split.sha256,
            "protocol": self.inputs.split.protocol,
            "request_time": self.config.model.request_time,
            "seen_items": headline_rule(self.inputs.info.repeat_share),
            "parameters": sum(p.numel() for p in self._learner.model.parameters()),
            "learned_parameters": sum(
                p.numel() for p in self._learner.model.parameters() if p.requires_grad
            ),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB,
            "best_epoch": self.state.best_epoch,
            "best_validation": self.state.history[self.state.best_epoch - 1],
            "history": self.state.history,
        }
        write_json(self.run / METRICS_FILE, document)

    def _snapshot(
        self, epoch: int, history: list[dict[str, float]], best_score: float, best_epoch: int
    ) -> TrainState:
        learner = self._learner
        return TrainState(
            config=config_to_dict(self.config),
            data_sha256=self.inputs.info.data_sha256,
            epoch=epoch,
            model=learner.validated.state_dict(),
            learner=None if learner.average is None else learner.model.state_dict(),
            optimizer=learner.optimizer.state_dict(),
            history=history,
            best_score=best_score,
            best_epoch=best_epoch,
        )


def describe_row(row: dict[str, float], *, best: bool) -> str:
    """Return an epoch's row as one line of the log."""
    shown = {
        name: row[name] for name in ("loss", "hr@10", "ndcg@10", "auc", "log_loss") if name in row
    }
    figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    mark = " *" if best else ""
    speed = f"{row['tokens_per_s'] / 1000:.1f} k tokens/s"
    return f"epoch {int(row['epoch'])}  {figures}{mark}  {row['seconds']:.1f} s  {speed}"


def check_times(info: DatasetInfo, config: RunConfig) -> None:
    """Raise TrainingError when a model reads times that the data does not know."""
    model = config.model
    reads = model.request_time == "known" or getattr(model, "time_gaps", False)
    if info.time_axis == "order" and config.split.protocol != "leave-one-out":
        raise TrainingError(
            f"{info.name}: only the order of events is known, so that no instant parts what all "
            "users did; train with --set split.protocol=leave-one-out"
        )
    if info.time_axis == "order" and reads:
        raise TrainingError(
            f"{info.name}: only the order of events is known, not their times; train with "
            "--preset base, or --set model.request_time=unknown --set model.time_gaps=false"
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        transient=True,
    )  # fmt: skip
