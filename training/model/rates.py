"""What counting says of clicks and watch time, inside the model: where the value heads start.

An item's rate comes from the training events, a user's from the window up to the query, each mixed
with PRIOR_EVENTS average events. Heads add what a network learns to these, so that it has only the
difference to learn, and cannot do worse by learning a count badly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from service.contract.events import EVENT_TYPES
from training.model.attention import last_positions
from training.model.batch import Batch
from training.model_config import ModelConfig, Task

# What an event of these types says of an item that was shown: that it was passed over.
SKIP_TYPES = ("view", "dislike")
# How many events of average outcome every user's and item's own are mixed with.
PRIOR_EVENTS = 10.0
LEAST_RATE = 1e-6


def skip_type_codes() -> list[int]:
    """Return the event type indices, from 1, that count as passed over."""
    return [EVENT_TYPES.index(name) + 1 for name in SKIP_TYPES]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many outcomes were known, and their sum; any shape, the same for both."""

    counts: Tensor
    totals: Tensor


def window_tally(batch: Batch, task: Task, num_queries: int) -> Tally:
    """Return the outcomes of the events up to and including each query's, (batch, queries)."""
    real = batch.items > 0
    if task == "click":
        known = real & (batch.event_types > 0)
        outcomes = torch.ones_like(batch.durations_s)
        for code in skip_type_codes():
            outcomes = outcomes * (batch.event_types != code).to(outcomes.dtype)
    else:
        known = real & batch.durations_s.isnan().logical_not()
        outcomes = torch.log1p(torch.nan_to_num(batch.durations_s).clamp(min=0))
    counted = known.to(outcomes.dtype)
    totals = (counted * outcomes).cumsum(dim=1)
    return Tally(
        last_positions(counted.cumsum(dim=1), num_queries), last_positions(totals, num_queries)
    )


class OutcomeRates(nn.Module):
    """The smoothed rates of one task, as distances from the mean: log odds, or log seconds."""

    counts: Tensor
    totals: Tensor
    mean: Tensor

    def __init__(self, config: ModelConfig, task: Task, num_items: int) -> None:
        super().__init__()
        self.task: Task = task
        self.reads_window = config.event_types if task == "click" else config.durations
        self.register_buffer("counts", torch.zeros(num_items + 1))
        self.register_buffer("totals", torch.zeros(num_items + 1))
        self.register_buffer("mean", torch.tensor(0.5 if task == "click" else 0.0))
        # How far each is believed: fully, to begin with.
        self.item_trust = nn.Parameter(torch.ones(()))
        self.user_trust = nn.Parameter(torch.ones(()))

    def start_at(self, tally: Tally) -> None:
        """Take over the items' training outcomes, (num_items + 1,) each."""
        self.counts.copy_(tally.counts)
        self.totals.copy_(tally.totals)
        if float(tally.counts.sum()):
            self.mean.copy_(tally.totals.sum() / tally.counts.sum())

    def center(self) -> Tensor:
        """Return the link of the mean outcome, ()."""
        return self._link(self.mean)

    def of_items(self) -> Tensor:
        """Return what each item's rate adds, (num_items + 1,)."""
        return self.item_trust * self._above(self.counts, self.totals)

    def of_users(self, batch: Batch, num_queries: int) -> Tensor:
        """Return what each query's own past adds, (batch, queries)."""
        tally = window_tally(batch, self.task, num_queries)
        if not self.reads_window:
            return torch.zeros_like(tally.counts)
        return self.user_trust * self._above(tally.counts, tally.totals)

    def left_out(self, items: Tensor, outcomes: Tensor) -> Tensor:
        """Return what must be added so that items' rates leave out one outcome each, (rows,).

        A training event is in its own item's rate, which would teach the head to trust it.
        """
        counts, totals = self.counts[items], self.totals[items]
        without = self._above((counts - 1).clamp(min=0), totals - outcomes)
        return self.item_trust * (without - self._above(counts, totals))

    def _above(self, counts: Tensor, totals: Tensor) -> Tensor:
        rates = (totals + PRIOR_EVENTS * self.mean) / (counts + PRIOR_EVENTS)
        return self._link(rates) - self.center()

    def _link(self, rates: Tensor) -> Tensor:
        if self.task != "click":
            return rates
        rates = rates.clamp(LEAST_RATE, 1 - LEAST_RATE)
        return torch.log(rates) - torch.log(1 - rates)
