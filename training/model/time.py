"""Time inside the network: gaps, local hours and weekdays, all from whole milliseconds.

Everything derived from time is computed here, from raw int64 inputs: the graph that is exported
holds the bucketing, and serving cannot compute it differently.
"""

import math

import torch
from torch import Tensor, nn

from training.model.batch import Batch
from training.model.lookup import BIAS_GAIN, pair_lookup

NUM_GAP_BUCKETS = 64
# Log2 of the longest gap told apart, in seconds: 2**30 s are 34 years.
MAX_LOG2_GAP = 30.0
# A millionth more than the quotient, so that a gap just at an edge (1023 s: log2 is 10) falls on
# the same side whichever library takes the logarithm.
BUCKETS_PER_NAT = (NUM_GAP_BUCKETS - 1) / (MAX_LOG2_GAP * math.log(2)) * (1 + 1e-6)
MS_PER_SECOND = 1000
FIRST_BUCKET = math.log(MS_PER_SECOND) * BUCKETS_PER_NAT
# Pairs that may not see each other count as this far apart, which falls into a bucket between
# FIRST_FAR_BUCKET, which is 260,000 years, and NUM_OPEN_BUCKETS.
FAR_MS = 2**62
FIRST_FAR_BUCKET = 90
NUM_OPEN_BUCKETS = 128
# Closer to a bucket's edge than this share of it, rounding may say otherwise of the next request.
NEAR_EDGE = 1e-5
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
    least = torch.full((), float(MS_PER_SECOND), device=gap_ms.device)
    return _open_bucket(gap_ms + MS_PER_SECOND, least).clamp(max=NUM_GAP_BUCKETS - 1)


def _open_bucket(longer_ms: Tensor, least_ms: Tensor) -> Tensor:
    """Return the bucket, without an upper end, of gaps given 1 s longer and of `least_ms` or more.

    In few passes, since it is taken of all pairs: seconds would be one more.
    """
    nats = torch.log(torch.maximum(longer_ms.to(torch.float32), least_ms))
    return (nats * BUCKETS_PER_NAT - FIRST_BUCKET).to(torch.int64)


def local_hour(times_ms: Tensor, tz_offsets_min: Tensor) -> Tensor:
    """Return the local hour of day, int64 in [0, 24)."""
    return (times_ms + tz_offsets_min * MS_PER_MINUTE) // MS_PER_HOUR % HOURS


def local_weekday(times_ms: Tensor, tz_offsets_min: Tensor) -> Tensor:
    """Return the local day of the week, int64 in [0, 7), Monday being 0."""
    days = (times_ms + tz_offsets_min * MS_PER_MINUTE) // MS_PER_DAY
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


def same_until(batch: Batch) -> Tensor:
    """Return until when a request would find every time-dependent bucket as it is, (batch,) ms.

    The same window asked at any time from the batch's to just before this one, at the same offset,
    falls into the same hour, weekday and buckets of the gaps since each of its events. It is a
    millisecond after the batch's time where that cannot be promised for longer.
    """
    asked, offsets = batch.query_times_ms[:, -1:], batch.query_tz_offsets_min[:, -1:]
    hour_left = MS_PER_HOUR - (asked + offsets * MS_PER_MINUTE) % MS_PER_HOUR
    longer = (asked + MS_PER_SECOND - batch.timestamps_ms).to(torch.float64)
    place = torch.log(longer.clamp(min=MS_PER_SECOND)) * BUCKETS_PER_NAT - FIRST_BUCKET
    bucket = torch.floor(place)
    edge = torch.exp((bucket + (1 + FIRST_BUCKET)) / BUCKETS_PER_NAT)
    just_in = (place - bucket < NEAR_EDGE * BUCKETS_PER_NAT) & (longer > MS_PER_SECOND)
    left = torch.where(just_in, 0.0, edge * (1 - NEAR_EDGE) - longer)
    left = torch.where(batch.items > 0, left, float(MS_PER_HOUR)).clamp(1, MS_PER_HOUR)
    least = torch.minimum(left.to(torch.int64).amin(dim=1, keepdim=True), hour_left)
    return (asked + torch.where(asked > 0, least, 1))[:, 0]


class GapBias(nn.Module):
    """The per-head attention bias of the time gap between a query's time and each event's.

    The mask is part of it: hidden pairs are far apart, and gaps so long are worth `masked`. Looked
    up together they cost one pass over the pairs.
    """

    least_ms: Tensor

    def __init__(self, num_heads: int, window_len: int, masked: float) -> None:
        super().__init__()
        self.table = nn.Embedding(NUM_GAP_BUCKETS, num_heads)
        nn.init.zeros_(self.table.weight)
        self.masked = masked
        # A gap and a second: of pairs that may see each other, and of the others; (queries, keys).
        least = torch.full((window_len, window_len), float(FAR_MS)).triu(1).clamp(MS_PER_SECOND)
        self.register_buffer("least_ms", least, persistent=False)

    def forward(
        self, query_times_ms: Tensor, timestamps_ms: Tensor, real: Tensor, *, causal: bool
    ) -> Tensor:
        """Return the bias (heads, batch, queries, keys) of times (batch, window) and the keys'."""
        window = real.shape[1]
        keys = torch.where(real, timestamps_ms, -FAR_MS)
        longer = (query_times_ms + MS_PER_SECOND)[:, :, None] - keys[:, None, :]
        least = self.least_ms[:window, :window] if causal else self.least_ms[0, 0]
        return pair_lookup(self._open_table(), _open_bucket(longer, least))

    def _open_table(self) -> Tensor:
        """Return the bias of every bucket that a pair can have, (NUM_OPEN_BUCKETS, heads)."""
        table = self.table.weight * BIAS_GAIN
        longest = table[-1:].expand(FIRST_FAR_BUCKET - NUM_GAP_BUCKETS, -1)
        far = table.new_full((NUM_OPEN_BUCKETS - FIRST_FAR_BUCKET, table.shape[1]), self.masked)
        return torch.cat([table, longest, far])


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
