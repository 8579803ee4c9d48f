"""The network: a causal, gated Transformer over a window of events.

Design choices:
- gates on both residual branches and SwiGLU inside, as in LiGR (Borisyuk et al., 2025);
- learned positions counted from the right end, so the newest event always has the same one;
- an attention bias from log-bucketed time gaps between the query's time and each event, per head;
  the query's time is that of its target when known (training) or the request's (serving);
- hour, weekday and the gap since the last event join on the query side only, so the cost of the
  window does not depend on them;
- tied, L2-normalised output with a learned temperature, exported as one vector per item;
- everything derived from time is computed here, from raw int64 inputs: the graph that is exported
  holds the bucketing, and serving cannot compute it differently.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import ModelConfig

NUM_GAP_BUCKETS = 64
# Log2 of the longest gap told apart, in seconds: 2**30 s are 34 years.
MAX_LOG2_GAP = 30.0
MASKED = -1e4
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000
# Item vectors are normalised on the way out, so a step turns a short one further: from 0.02 the
# validation NDCG@10 after 8 epochs was 0.130, from dim**-0.5 it was 0.035 (docs/experiments.md).
ITEM_INIT_STD = 0.02
# 1970-01-01 was a Thursday; Monday is 0.
EPOCH_WEEKDAY = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of windows, all (batch, window) and left-padded with 0.

    `query_times_ms` and `query_tz_offsets_min` say for each position when its target happened, or
    when the request is made; 0 is unknown.
    """

    items: Tensor
    timestamps_ms: Tensor
    query_times_ms: Tensor
    query_tz_offsets_min: Tensor


def gap_bucket(gap_ms: Tensor) -> Tensor:
    """Return the log bucket of time gaps, int64 in [0, NUM_GAP_BUCKETS).

    `gap_ms` is int64: differences are taken before any cast, since float32 cannot hold
    milliseconds since 1970. Negative gaps count as none.
    """
    seconds = gap_ms.clamp(min=0).to(torch.float32) / 1000.0
    scaled = torch.log2(seconds + 1.0) * ((NUM_GAP_BUCKETS - 1) / MAX_LOG2_GAP)
    return scaled.to(torch.int64).clamp(max=NUM_GAP_BUCKETS - 1)


class GapBias(nn.Module):
    """The per-head attention bias of a time gap."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(NUM_GAP_BUCKETS, num_heads)
        nn.init.zeros_(self.table.weight)

    def forward(self, query_times_ms: Tensor, timestamps_ms: Tensor) -> Tensor:
        """Return the bias (batch, heads, queries, keys) of times (batch, queries) and keys'."""
        gaps = query_times_ms[:, :, None] - timestamps_ms[:, None, :]  # (batch, queries, keys)
        bias: Tensor = self.table(gap_bucket(gaps))
        return bias.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head attention whose output is gated by its own query input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """Attend from (batch, queries, dim) to (batch, keys, dim) under an additive bias."""
        query = self._heads(self.query(queries))  # (batch, heads, queries, head_dim)
        key, value = self.key_value(keys).chunk(2, dim=-1)
        mixed = self._mix(query, self._heads(key), self._heads(value), bias)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        if self.training and not bias.requires_grad:
            # The fused kernel: 2 x as fast, but it gives a bias no gradient and does not export.
            return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + bias
        return torch.softmax(logits, dim=-1) @ value

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.view(batch, length, self.num_heads, dim // self.num_heads).transpose(1, 2)


class Block(nn.Module):
    """Gated attention, then a gated SwiGLU; normalised before each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.attention_gate = nn.Linear(config.dim, config.dim)
        self.feed_norm = nn.LayerNorm(config.dim)
        self.feed_in = nn.Linear(config.dim, 2 * config.hidden_dim, bias=False)
        self.feed_out = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.feed_gate = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (batch, window, dim) to (batch, queries, dim); bias (batch, heads, queries, window).

        Only the last `queries` positions are computed, as many as the bias has rows.
        """
        tail = x[:, -bias.shape[2] :]  # (batch, queries, dim)
        keys = self.attention_norm(x)
        queries = keys[:, -bias.shape[2] :]
        mixed = self.dropout(self.attention(queries, keys, bias))
        tail = tail + torch.sigmoid(self.attention_gate(queries)) * mixed
        normed = self.feed_norm(tail)
        left, right = self.feed_in(normed).chunk(2, dim=-1)
        fed = self.dropout(self.feed_out(functional.silu(left) * right))
        result: Tensor = tail + torch.sigmoid(self.feed_gate(normed)) * fed
        return result


class RequestTime(nn.Module):
    """What the query knows of the request's time: local hour, weekday, gap since the last event."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hour = nn.Embedding(24, config.dim)
        self.weekday = nn.Embedding(7, config.dim)
        self.gap = nn.Embedding(NUM_GAP_BUCKETS, config.dim)
        self.mix = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, config.dim),
            nn.SiLU(),
            nn.Linear(config.dim, config.dim),
        )
        for table in (self.hour, self.weekday, self.gap):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, query: Tensor, batch: Batch, num_queries: int) -> Tensor:
        """Add the request's time to queries (batch, queries, dim); unknown times add nothing."""
        times = batch.query_times_ms[:, -num_queries:]  # (batch, queries)
        local = times + batch.query_tz_offsets_min[:, -num_queries:] * MS_PER_MINUTE
        hour = torch.div(local, MS_PER_HOUR, rounding_mode="floor") % 24
        weekday = (torch.div(local, MS_PER_DAY, rounding_mode="floor") + EPOCH_WEEKDAY) % 7
        gap = gap_bucket(times - batch.timestamps_ms[:, -num_queries:])
        added = self.hour(hour) + self.weekday(weekday) + self.gap(gap)
        timed = query + added
        known = (times > 0)[..., None].to(query.dtype)
        result: Tensor = query + known * (added + self.mix(timed))
        return result


class SequenceModel(nn.Module):
    """The model: windows in, query vectors and item vectors out; score = query · item."""

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=0)
        self.positions = nn.Embedding(config.window_len, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.gap_bias = GapBias(config.num_heads) if config.time_gaps else None
        self.request_time = RequestTime(config) if config.request_time == "known" else None
        self.final_norm = nn.LayerNorm(config.dim)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self._initialise()

    def encode(self, batch: Batch, num_queries: int) -> Tensor:
        """Return the query vectors (batch, num_queries, dim) of the last positions.

        Serving and evaluation need one; the last block then computes that position only.
        """
        x = self._embed(batch.items)  # (batch, window, dim)
        bias = self._bias(batch)  # (batch, heads or 1, window, window)
        for block in self.blocks[:-1]:
            x = block(x, bias)
        x = self.blocks[-1](x, bias[:, :, -num_queries:])  # (batch, num_queries, dim)
        x = self.final_norm(x)
        if self.request_time is not None:
            x = self.request_time(x, batch, num_queries)
        scale = self.log_scale.clamp(max=math.log(100.0)).exp()
        return functional.normalize(x, dim=-1) * scale

    def item_vectors(self) -> Tensor:
        """Return the item vectors (num_items + 1, dim), row 0 all zero."""
        return functional.normalize(self.items.weight, dim=-1)

    def _embed(self, items: Tensor) -> Tensor:
        window = items.shape[1]
        places = torch.arange(window, device=items.device) + (self.config.window_len - window)
        x = self.items(items) * math.sqrt(self.config.dim) + self.positions(places)
        dropped: Tensor = self.dropout(x)
        return dropped

    def _bias(self, batch: Batch) -> Tensor:
        window = batch.items.shape[1]
        places = torch.arange(window, device=batch.items.device)
        future = places[None, :] > places[:, None]  # (window, window)
        hidden = future[None] | (batch.items == 0)[:, None, :]  # (batch, window, window)
        mask = hidden[:, None].to(torch.float32) * MASKED
        if self.gap_bias is None:
            return mask
        times = batch.timestamps_ms
        if self.request_time is not None:
            times = torch.where(batch.query_times_ms > 0, batch.query_times_ms, times)
        biased: Tensor = self.gap_bias(times, batch.timestamps_ms)
        return biased + mask

    def _initialise(self) -> None:
        nn.init.normal_(self.items.weight, std=ITEM_INIT_STD)
        nn.init.normal_(self.positions.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0].zero_()
