"""Attention and what its blocks share: heads, masks, the choice of kernel."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

# What a hidden pair's logit is lowered by: e^-60 is 10^-26, nothing beside float32's 10^-7. Finite,
# so that a row without any key is no NaN, and no lower, because exp gives denormal numbers below
# -87, which the processor multiplies a hundred times as slowly.
MASKED = -60.0
ROTARY_BASE = 10_000.0


class Body(Protocol):
    """A network between the events' vectors and the queries.

    `mask` is (heads or 1, batch, window, window), 0 where a position may look and MASKED where
    not, plus any bias; a recurrent network reads only which events are real from `real`.
    """

    layers: nn.ModuleList

    def __call__(self, x: Tensor, mask: Tensor, real: Tensor, num_queries: int) -> Tensor:
        """Map (batch, window, dim) to the last positions' (batch, num_queries, dim)."""
        ...


class BlockBody(nn.Module):
    """Attention blocks one over another, of which the last computes the queries only."""

    def __init__(self, blocks: Iterable[nn.Module], dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.final_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor, real: Tensor, num_queries: int) -> Tensor:
        """See Body."""
        for block in self.layers[:-1]:
            x = block(x, mask)
        normed: Tensor = self.final_norm(self.layers[-1](x, mask[:, :, -num_queries:]))
        return normed


def attention_mask(real: Tensor, *, causal: bool, masked: float = MASKED) -> Tensor:
    """Return the additive mask (1, batch, window, window) of real events, (batch, window)."""
    window = real.shape[1]
    hidden = real.logical_not()[:, None, :].expand(-1, window, -1)  # (batch, queries, keys)
    if causal:
        places = torch.arange(window, device=real.device)
        hidden = hidden | (places[None, :] > places[:, None])[None]
    return hidden[None].to(torch.float32) * masked


def last_positions(x: Tensor, count: int) -> Tensor:
    """Return the last `count` positions of (batch, window, dim).

    Counted from the front: the exporter cannot see that minus a whole window's length is 0.
    """
    return x[:, x.shape[1] - count :]


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Turn (batch, length, dim) into (heads, batch, length, head_dim).

    Heads come first, because the biases of pairs are looked up a head at a time.
    """
    batch, length, dim = x.shape
    return x.view(batch, length, num_heads, dim // num_heads).permute(2, 0, 1, 3)


def join_heads(x: Tensor) -> Tensor:
    """Turn (heads, batch, length, head_dim) into (batch, length, dim)."""
    return x.permute(1, 2, 0, 3).flatten(2)


class Rotary(nn.Module):
    """Positions as rotations of queries and keys, so that only distances count (Su et al., 2021).

    Of (heads, batch, length, head_dim); the last of a length is always the window's last.
    """

    frequencies: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        steps = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("frequencies", ROTARY_BASE**-steps, persistent=False)

    def forward(self, x: Tensor, window: int) -> Tensor:
        """Rotate the vectors of the last positions of a window."""
        places = torch.arange(window, device=x.device)[window - x.shape[2] :]
        angles = places[:, None] * self.frequencies  # (length, head_dim / 2)
        cos, sin = torch.cos(angles), torch.sin(angles)
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head softmax attention under an additive mask or bias."""

    def __init__(self, dim: int, num_heads: int, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rotary = rotary
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Attend from (batch, queries, dim) to (batch, keys, dim)."""
        query = split_heads(self.query(queries), self.num_heads)
        key, value = self.key_value(keys).chunk(2, dim=-1)
        key, value = split_heads(key, self.num_heads), split_heads(value, self.num_heads)
        if self.rotary is not None:
            window = keys.shape[1]
            query, key = self.rotary(query, window), self.rotary(key, window)
        projected: Tensor = self.out(join_heads(self._mix(query, key, value, mask)))
        return projected

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        if not mask.requires_grad and not torch.onnx.is_in_onnx_export():
            # The fused kernel: 2.7 x as fast, but it gives a bias no gradient; the graph that is
            # exported keeps to plain operations.
            return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask
        return torch.softmax(logits, dim=-1) @ value
