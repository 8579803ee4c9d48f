"""Trains one RecTools model on one split, in RecTools' own environment, and ranks the cases.

    python rectools_worker.py JOB

JOB is a folder with `job.json` (a `Job`) and `cases.npz`; the worker writes `ranks.npz` (the
target ranks of validation and test cases under both rules) and, last, `result.json`. It needs the
project's folder on PYTHONPATH for `training.metrics`, and nothing else of the project.

The model is built, fitted and stopped through RecTools' own interfaces. After each epoch a
callback ranks the stopping cases; the best epoch's weights are kept. Scores come from the torch
model, fed the layout of RecTools' data preparator; `check_recommend` compares them with
`recommend()`. A paced job waits for a line on its input before each epoch, prints the epoch's
row, and ends with training: train_peers.py alternates it with our trainer.
"""

import copy
import json
import platform
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from cases import Cases, Int64s, rank_cases
from numpy.typing import NDArray
from rectools import Columns
from rectools.dataset import Dataset
from rectools.dataset.context import get_context
from rectools.models import HSTUModel, SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

from training.metrics import hit_rate_at_k, ndcg_at_k

CHECKED_USERS = 500
LIST_LENGTH = 10
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """What to train; `time_aware` is HSTU's relative time attention, asked at the target's time.

    `rule` says which ranks of the stopping cases decide the best epoch; `patience` counts epochs
    without a better one, from `min_epochs` on. 0 epochs of patience trains `max_epochs` in full.
    """

    model: str
    time_aware: bool
    rule: str
    window_len: int
    dim: int
    num_blocks: int
    num_heads: int
    dropout: float
    learning_rate: float
    batch_size: int
    loss: str
    num_negatives: int
    logits_t: float
    max_epochs: int
    min_epochs: int
    patience: int
    seed: int
    num_threads: int
    paced: bool = False


def main() -> None:
    """Fit, rank, write."""
    folder = Path(sys.argv[1])
    job = Job(**json.loads((folder / "job.json").read_text("utf-8")))
    cases = Cases.load(folder / "cases.npz")
    torch.set_num_threads(job.num_threads)
    pl.seed_everything(job.seed)
    started = time.monotonic()
    model = make_model(job, Watch(job, cases))
    model.fit(dataset_of(cases, np.flatnonzero(cases.train)))
    if job.paced:
        return
    watch = next(call for call in model.fit_trainer.callbacks if isinstance(call, Watch))
    model.torch_model.load_state_dict(watch.best_weights)
    model.torch_model.eval()
    result = {
        "parameters": sum(weight.numel() for weight in model.torch_model.parameters()),
        "best_epoch": watch.best_epoch,
        "epochs": len(watch.history),
        "train_seconds_per_epoch": statistics.median(row["train_seconds"] for row in watch.history),
        "fit_seconds": time.monotonic() - started,
        "versions": versions(),
        "history": watch.history,
    }  # fmt: skip
    result |= rank_all(folder, model, job, cases)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def rank_all(
    folder: Path, model: HSTUModel | SASRecModel, job: Job, cases: Cases
) -> dict[str, Any]:
    """Write `ranks.npz` and return how the ranking went."""
    scorer, started = Scorer(model, job, cases), time.monotonic()
    ranks, cold = {}, {}
    for name in ("validation", "test"):
        rows = getattr(cases, name)
        cold[name] = scorer.count_cold(rows)
        for rule, found in rank_cases(cases, rows, scorer.score).items():
            ranks[f"{name}_{rule}"] = found
    np.savez(folder / "ranks.npz", **ranks)
    return {
        "known_items": int((scorer.internal > 0).sum()),
        "cold_cases": cold,
        "score_seconds": time.monotonic() - started,
        "peak_rss_mib": peak_rss_mib(),
        "recommend_check": check_recommend(model, scorer, cases),
    }


def dataset_of(cases: Cases, rows: Int64s) -> Dataset:
    """Return the events of some rows as RecTools has them; external ids are our indices."""
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: cases.users[rows],
                Columns.Item: cases.items[rows],
                Columns.Weight: 1.0,
                Columns.Datetime: moments(cases.timestamps_ms[rows]),
            }
        )
    )


def moments(timestamps_ms: Int64s) -> NDArray[np.datetime64]:
    """Return times in the unit that RecTools divides by 10^9: nanoseconds."""
    return (timestamps_ms * NS_PER_MS).astype("datetime64[ns]")


def make_model(job: Job, watch: "Watch") -> HSTUModel | SASRecModel:
    """Build the model as published: ids only, Adam, Xavier weights, RecTools' initial order."""

    def make_trainer() -> pl.Trainer:
        return pl.Trainer(
            max_epochs=job.max_epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )

    settings: dict[str, Any] = {
        "n_blocks": job.num_blocks,
        "n_heads": job.num_heads,
        "n_factors": job.dim,
        "dropout_rate": job.dropout,
        "session_max_len": job.window_len,
        "batch_size": job.batch_size,
        "lr": job.learning_rate,
        "loss": job.loss,
        "n_negatives": job.num_negatives,
        "item_net_block_types": (IdEmbeddingsItemNet,),
        "lightning_module_kwargs": {"logits_t": job.logits_t},
        "get_trainer_func": make_trainer,
        "recommend_torch_device": "cpu",
    }
    if job.model == "hstu":
        return HSTUModel(relative_time_attention=job.time_aware, **settings)
    return SASRecModel(**settings)


class Scorer:
    """Scores all items for any cases with a fitted model, through its torch model.

    `internal` is (num_items + 1,): RecTools' index of each item, 0 for what it has not trained on.
    Such items score -inf, and are left out of windows, as RecTools does.
    """

    def __init__(self, model: HSTUModel | SASRecModel, job: Job, cases: Cases) -> None:
        self._torch_model, self._job, self._cases = model.torch_model, job, cases
        known = model.data_preparator.get_known_item_ids().astype(np.int64)
        self.internal = np.zeros(cases.num_items + 1, np.int64)
        self.internal[known] = model.data_preparator.item_id_map.convert_to_internal(known)
        self._popularity = np.bincount(
            cases.items[cases.train], minlength=cases.num_items + 1
        ).astype(np.float32)

    def score(self, rows: Int64s) -> NDArray[np.float32]:
        """Return scores, (len(rows), num_items + 1); without a known event, by popularity."""
        batch = self.batch(rows)
        with torch.no_grad():
            table = self._torch_model.item_model.get_all_embeddings()
            last = self._torch_model.encode_sessions(batch, table)[:, -1]
            logits = self._torch_model.similarity_module(last, table).numpy()
        scores = np.where(self.internal > 0, logits[:, self.internal], -np.inf)
        scores[(batch["x"] == 0).all(dim=1).numpy()] = self._popularity
        return scores.astype(np.float32)

    def batch(self, rows: Int64s) -> dict[str, torch.Tensor]:
        """Lay windows out as RecTools does: on the right, (cases, window), known items only.

        `unix_ts` is (cases, window + 1) in seconds: each event's time, the target's last, and
        the first event's where padded.
        """
        window = self._job.window_len
        items = np.zeros((len(rows), window), np.int64)
        times = np.zeros((len(rows), window + 1), np.int64)
        for case, row in enumerate(rows):
            past = self._known_past(int(row))
            items[case, window - len(past) :] = self.internal[self._cases.items[past]]
            dated = np.append(past, row)
            times[case, -len(dated) :] = self._cases.timestamps_ms[dated] // 1000
            times[case, : -len(dated)] = times[case, -len(dated)]
        batch = {"x": torch.from_numpy(items)}
        if self._job.model == "hstu" and self._job.time_aware:
            batch["unix_ts"] = torch.from_numpy(times)
        return batch

    def count_cold(self, rows: Int64s) -> int:
        """Return how many cases have no event with a known item."""
        return sum(len(self._known_past(int(row))) == 0 for row in rows)

    def _known_past(self, row: int) -> Int64s:
        past = np.arange(self._cases.user_starts[self._cases.users[row]], row)
        return past[self.internal[self._cases.items[past]] > 0][-self._job.window_len :]


class Watch(pl.Callback):
    """Ranks the stopping cases after each epoch, keeps the best weights, and says when to stop."""

    def __init__(self, job: Job, cases: Cases) -> None:
        self._job, self._cases = job, cases
        self.history: list[dict[str, float]] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self.best_epoch = 0
        self._best_score = -1.0
        self._started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the turn if paced, and start the clock."""
        if self._job.paced:
            sys.stdin.readline()
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, remember, and ask for the end when nothing has got better for long enough."""
        trained_s, epoch = time.monotonic() - self._started, len(self.history) + 1
        pl_module.eval()
        ranks = rank_cases(
            self._cases, self._cases.stopping, Scorer(pl_module, self._job, self._cases).score
        )[self._job.rule]
        pl_module.train()
        row = {
            "epoch": epoch,
            "loss": float(trainer.callback_metrics["train_loss"]),
            "ndcg@10": ndcg_at_k(ranks, 10),
            "hr@10": hit_rate_at_k(ranks, 10),
            "train_seconds": trained_s,
            "tokens": count_targets(pl_module),
            "tokens_per_s": count_targets(pl_module) / trained_s,
            "peak_rss_mib": peak_rss_mib(),
            "seconds": time.monotonic() - self._started,
        }
        self.history.append(row)
        print(json.dumps(row), flush=True)
        if row["ndcg@10"] > self._best_score:
            self._best_score, self.best_epoch = row["ndcg@10"], epoch
            self.best_weights = copy.deepcopy(pl_module.torch_model.state_dict())
        stale = epoch - self.best_epoch >= self._job.patience > 0
        trainer.should_stop = stale and epoch >= self._job.min_epochs


def check_recommend(
    model: HSTUModel | SASRecModel, scorer: Scorer, cases: Cases
) -> dict[str, float]:
    """Compare our scores with `recommend()` for users with one test case each.

    Returns how many users were compared, the share whose top lists agree item by item, and the
    largest difference of a score. Users with several test cases are out of `recommend()`'s reach.
    """
    users, counts = np.unique(cases.users[cases.test], return_counts=True)
    single = np.isin(cases.users[cases.test], users[counts == 1])
    rows = cases.test[single]
    rows = np.array([row for row in rows if scorer.count_cold(np.array([row])) == 0])
    rows = rows[:CHECKED_USERS]
    if len(rows) == 0:
        return {"users": 0}
    starts = cases.user_starts[cases.users[rows]]
    past = np.concatenate([np.arange(start, row) for start, row in zip(starts, rows, strict=True)])
    context = None
    if model.require_recommend_context:
        asked = pd.DataFrame(
            {
                Columns.User: cases.users[rows],
                Columns.Item: cases.items[rows],
                Columns.Weight: 1.0,
                Columns.Datetime: moments(cases.timestamps_ms[rows]),
            }
        )
        context = get_context(asked)
    lists = model.recommend(
        users=cases.users[rows], dataset=dataset_of(cases, past), k=LIST_LENGTH,
        filter_viewed=False, context=context,
    )  # fmt: skip
    return compare_lists(lists, scorer.score(rows), cases.users[rows])


def compare_lists(
    lists: pd.DataFrame, scores: NDArray[np.float32], users: Int64s
) -> dict[str, float]:
    """Return how far top lists and full scores, (users, num_items + 1), agree."""
    equal, differences = 0, []
    by_user = dict(iter(lists.groupby(Columns.User)))
    for place, user in enumerate(users):
        listed = by_user[user].sort_values(Columns.Rank)
        top = np.argsort(-scores[place], kind="stable")[:LIST_LENGTH]
        equal += int(set(top) == set(listed[Columns.Item]))
        ours = np.sort(scores[place, top])[::-1]
        differences.append(float(np.abs(ours - listed[Columns.Score].to_numpy()).max()))
    return {
        "users": len(users),
        "equal_lists": equal / len(users),
        "max_difference": max(differences),
    }


def count_targets(pl_module: pl.LightningModule) -> int:
    """Return how many real positions an epoch trains."""
    events = pl_module.data_preparator.train_dataset.interactions.df
    return len(events) - events[Columns.User].nunique()


def peak_rss_mib() -> float:
    """Return this process's peak resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions() -> dict[str, str]:
    """Return what the figures depend on."""
    names = ("RecTools", "torch", "pytorch-lightning", "numpy", "pandas")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


if __name__ == "__main__":
    main()
