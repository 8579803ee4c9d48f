"""The copy head: what an item's own past adds to its score.

An item the user has had scores `seen + log(1 + sum of exp(a))` more, the sum going over its events
in the window and over heads. With the softmax over items this is a count of past events, weighted
by how each one's gap, hour, weekday, place in the window and predecessor fit the query; `seen`
may be negative, where nobody comes back. The bonus is shared out over the item's events in
proportion to exp(a), so that what serving adds up by position is what each event brought.
Idea: copying as in CopyNet (Gu et al., 2016) and RepeatNet (Ren et al., 2019), here additive in
the log, so that one matrix product still scores the catalogue.
"""

import math

import torch
from torch import Tensor, nn

from training.model.attention import split_heads
from training.model.batch import Batch
from training.model.lookup import BIAS_GAIN, pair_lookup
from training.model.time import (
    HOURS,
    NUM_GAP_BUCKETS,
    WEEKDAYS,
    asking_times,
    gap_bucket,
    local_hour,
    local_weekday,
)
from training.model_config import ModelConfig

NUM_LAG_BUCKETS = 16
MIN_LOGIT, MAX_LOGIT = -15.0, 8.0
# A single past event starts as a tenth of a reason to come back.
START_LOGIT = -2.3
# The last head starts as own_history.OwnTransitionsAtHour counts: an event that followed the
# present one weighs a hundred others, one of the same hours of the day ten.
START_FOLLOWS, START_SAME_HOUR = 4.6, 2.3
SAME_HOURS = (HOURS - 1, 0, 1)
LEAST_MASS = 1e-9
LEAST_REPEAT_SHARE = 1e-4


class CopyHead(nn.Module):
    """Weights over history positions, (batch, queries, window).

    Heads start between counting alone and what OwnTransitionsAtHour counts. Like the gap tables of
    attention, all that is learned here is multiplied by BIAS_GAIN.
    """

    def __init__(self, config: ModelConfig, *, time_gaps: bool) -> None:
        super().__init__()
        heads = config.copy_heads
        self.num_heads = heads
        self.request_time_known = config.request_time == "known"
        self.seen = nn.Parameter(torch.zeros(()))
        likings = torch.linspace(0.0, 1.0, heads) / BIAS_GAIN
        self.base = nn.Parameter(torch.full((heads,), START_LOGIT / BIAS_GAIN))
        self.lags = _zero_table(NUM_LAG_BUCKETS, heads)
        self.gaps = _zero_table(NUM_GAP_BUCKETS, heads) if time_gaps else None
        self.hours = _zero_table(HOURS, heads) if self.request_time_known else None
        self.weekdays = _zero_table(WEEKDAYS, heads) if self.request_time_known else None
        # Heads that all start equal would stay equal.
        self.follows = nn.Parameter(START_FOLLOWS * likings)
        if self.hours is not None:
            with torch.no_grad():
                self.hours.weight[list(SAME_HOURS)] = START_SAME_HOUR * likings
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key = nn.Linear(config.dim, config.dim, bias=False)
        nn.init.normal_(self.query.weight, std=0.02)

    def forward(self, hidden: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
        """Return the weights of queries (batch, queries, dim) over (batch, window, dim) events."""
        num_queries = hidden.shape[1]
        logits = self._logits(hidden, vectors, batch)  # (heads, batch, queries, window)
        visible = visible_events(batch.items, num_queries)  # (batch, queries, window)
        strength = torch.exp(logits.clamp(MIN_LOGIT, MAX_LOGIT)).sum(dim=0) * visible
        same = same_items(batch.items).to(hidden.dtype)
        mass = (strength @ same).clamp(min=LEAST_MASS)  # of each position's item
        weights: Tensor = (self.seen + torch.log1p(mass)) * strength / mass * visible
        return weights

    def _logits(self, hidden: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
        num_queries, window = hidden.shape[1], vectors.shape[1]
        query = split_heads(self.query(hidden), self.num_heads)
        key = split_heads(self.key(vectors), self.num_heads)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        places = torch.arange(window, device=hidden.device)
        lag = (places[-num_queries:, None] - places[None, :]).clamp(min=0)  # (queries, window)
        bucket = (torch.log2(lag.to(torch.float32) + 1.0) * 2).to(torch.int64)
        pairs = self.lags(bucket.clamp(max=NUM_LAG_BUCKETS - 1)) + self.base
        logits = logits + BIAS_GAIN * pairs.permute(2, 0, 1)[:, None]
        before = torch.cat([torch.zeros_like(batch.items[:, :1]), batch.items[:, :-1]], dim=1)
        current = batch.items[:, -num_queries:]
        follows = (before[:, None, :] == current[:, :, None]).to(hidden.dtype)
        logits = logits + BIAS_GAIN * self.follows[:, None, None, None] * follows
        timed: Tensor = logits + self._time_logits(batch, num_queries)
        return timed

    def _time_logits(self, batch: Batch, num_queries: int) -> Tensor:
        """Return what gap, hour and weekday add, (heads, batch, queries, window) or ().

        The three tables are summed into one first, so that pairs are looked up once.
        """
        times = asking_times(batch, self.request_time_known)[:, -num_queries:]
        if self.gaps is None:
            return torch.zeros((), device=times.device)
        index = gap_bucket(times[:, :, None] - batch.timestamps_ms[:, None, :])
        if self.hours is None or self.weekdays is None:
            return pair_lookup(BIAS_GAIN * self.gaps.weight, index)
        cycles = self.hours.weight[:, None] + self.weekdays.weight  # (HOURS, WEEKDAYS, heads)
        # One row more, of zeros, for requests whose time is unknown.
        cycles = torch.cat([cycles.flatten(0, 1), torch.zeros_like(cycles[0, :1])])
        table = self.gaps.weight[:, None] + cycles  # (gaps, cycles, heads)
        known = (batch.query_times_ms[:, -num_queries:] > 0)[:, :, None]
        cycle = torch.where(known, self._cycle(batch, times, num_queries), len(cycles) - 1)
        return pair_lookup(BIAS_GAIN * table.flatten(0, 1), index * len(cycles) + cycle)

    def _cycle(self, batch: Batch, times: Tensor, num_queries: int) -> Tensor:
        """Return how much later in day and week the query is, (batch, queries, window) int64."""
        offsets = batch.query_tz_offsets_min[:, -num_queries:]
        hours = _difference(
            local_hour(times, offsets), local_hour(batch.timestamps_ms, batch.tz_offsets_min), HOURS
        )
        days = _difference(
            local_weekday(times, offsets),
            local_weekday(batch.timestamps_ms, batch.tz_offsets_min),
            WEEKDAYS,
        )
        return hours * WEEKDAYS + days


class SeenBias(nn.Module):
    """The copy head without heads: one learned number for every item of the user's window.

    Where nobody comes back it grows strongly negative, and the network need not learn what each
    user has had already. Shared out over an item's events, as the copy head's bonus is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(()))

    def start_at(self, repeat_share: float) -> None:
        """Start at the log of how often an event repeats an item, which a step hardly moves."""
        with torch.no_grad():
            self.seen.fill_(math.log(max(repeat_share, LEAST_REPEAT_SHARE)))

    def forward(self, hidden: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
        """Return the weights of queries (batch, queries, dim) over the window's events."""
        num_queries = hidden.shape[1]
        visible = visible_events(batch.items, num_queries)  # (batch, queries, window)
        same = same_items(batch.items).to(hidden.dtype)
        counts = (visible @ same).clamp(min=1.0)  # of each position's item
        weights: Tensor = self.seen * visible / counts
        return weights


def same_items(items: Tensor) -> Tensor:
    """Return which two events are of one item, (batch, window, window), of items (batch, window).

    Compared as int32, which takes a third of the time.
    """
    narrow = items.to(torch.int32)
    return narrow[:, :, None] == narrow[:, None, :]


def visible_events(items: Tensor, num_queries: int) -> Tensor:
    """Return which real events are in each query's past, its own included, as 0 and 1."""
    window = items.shape[1]
    places = torch.arange(window, device=items.device)
    past = places[None, :] <= places[-num_queries:, None]
    return (past[None] & (items > 0)[:, None, :]).to(torch.float32)


def _difference(asked: Tensor, happened: Tensor, cycle: int) -> Tensor:
    """Return how much later in its cycle the query is, (batch, queries, window) in [0, cycle)."""
    return (asked[:, :, None] - happened[:, None, :]) % cycle


def _zero_table(rows: int, heads: int) -> nn.Embedding:
    table = nn.Embedding(rows, heads)
    nn.init.zeros_(table.weight)
    return table
