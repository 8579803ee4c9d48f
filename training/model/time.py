"""Time inside the network: gaps, local hours and weekdays, all from whole milliseconds.

Everything derived from time is computed here, from raw int64 inputs: the graph that is exported
holds the bucketing, and serving cannot compute it differently.
"""

import torch
from torch import Tensor, nn

from training.model.batch import Batch
from training.model.lookup import BIAS_GAIN, pair_lookup

NUM_GAP_BUCKETS = 64
# Log2 of the longest gap told apart, in seconds: 2**30 s are 34 years.
MAX_LOG2_GAP = 30.0
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000
HOURS = 24
WEEKDAYS = 7
# 1970-01-01 was a Thursday; Monday is 0.
EPOCH_WEEKDAY = 3


def gap_bucket(gap_ms: Tensor) -> Tensor:
    """Return the log bucket of time gaps, int64 in [0, NUM_GAP_BUCKETS).

    `gap_ms` is int64: differences are taken before any cast, since float32 cannot hold
    milliseconds since 1970. Negative gaps count as none.
    """
    seconds = gap_ms.clamp(min=0).to(torch.float32) / 1000.0
    scaled = torch.log2(seconds + 1.0) * ((NUM_GAP_BUCKETS - 1) / MAX_LOG2_GAP)
    return scaled.to(torch.int64).clamp(max=NUM_GAP_BUCKETS - 1)


def local_hour(times_ms: Tensor, tz_offsets_min: Tensor) -> Tensor:
    """Return the local hour of day, int64 in [0, 24)."""
    local = times_ms + tz_offsets_min * MS_PER_MINUTE
    return torch.div(local, MS_PER_HOUR, rounding_mode="floor") % HOURS


def local_weekday(times_ms: Tensor, tz_offsets_min: Tensor) -> Tensor:
    """Return the local day of the week, int64 in [0, 7), Monday being 0."""
    local = times_ms + tz_offsets_min * MS_PER_MINUTE
    days = torch.div(local, MS_PER_DAY, rounding_mode="floor")
    return (days + EPOCH_WEEKDAY) % WEEKDAYS


def asking_times(batch: Batch, request_time_known: bool) -> Tensor:
    """Return when each position's query is made, (batch, window): its target's time, or its own."""
    if not request_time_known:
        return batch.timestamps_ms
    return torch.where(batch.query_times_ms > 0, batch.query_times_ms, batch.timestamps_ms)


def last_times(batch: Batch, *, both_ways: bool) -> Tensor:
    """Return when the last event known to each position's query was, (batch, window).

    It is the position's own event, but both ways that one is asked about: then the one before it,
    or itself where there is none.
    """
    times = batch.timestamps_ms
    if not both_ways:
        return times
    before = torch.cat([times[:, :1], times[:, :-1]], dim=1)
    real_before = torch.cat([batch.items[:, :1], batch.items[:, :-1]], dim=1) > 0
    return torch.where(real_before, before, times)


class GapBias(nn.Module):
    """The per-head attention bias of the time gap between a query's time and each event's."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(NUM_GAP_BUCKETS, num_heads)
        nn.init.zeros_(self.table.weight)

    def forward(self, query_times_ms: Tensor, timestamps_ms: Tensor) -> Tensor:
        """Return the bias (batch, heads, queries, keys) of times (batch, queries) and keys'."""
        gaps = query_times_ms[:, :, None] - timestamps_ms[:, None, :]  # (batch, queries, keys)
        return pair_lookup(self.table.weight * BIAS_GAIN, gap_bucket(gaps))


class RequestTime(nn.Module):
    """What the query knows of the request's time: local hour, weekday, gap since the last event."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hour = nn.Embedding(HOURS, dim)
        self.weekday = nn.Embedding(WEEKDAYS, dim)
        self.gap = nn.Embedding(NUM_GAP_BUCKETS, dim)
        self.mix = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        for table in (self.hour, self.weekday, self.gap):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, query: Tensor, batch: Batch, last_times_ms: Tensor) -> Tensor:
        """Add the request's time to queries (batch, queries, dim); unknown times add nothing.

        `last_times_ms`, (batch, queries), says when each query's last known event was.
        """
        num_queries = query.shape[1]
        times = batch.query_times_ms[:, -num_queries:]  # (batch, queries)
        offsets = batch.query_tz_offsets_min[:, -num_queries:]
        gap = gap_bucket(times - last_times_ms)
        added = (
            self.hour(local_hour(times, offsets))
            + self.weekday(local_weekday(times, offsets))
            + self.gap(gap)
        )
        known = (times > 0)[..., None].to(query.dtype)
        result: Tensor = query + known * (added + self.mix(query + added))
        return result
