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


def two_halves(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two halves of what a layer without bias gives.

    The exported graph has two smaller products rather than one and a copy of each half.
    """
    if torch.onnx.is_in_onnx_export():
        half = layer.out_features // 2
        weights = layer.weight[:half], layer.weight[half:]
        return functional.linear(x, weights[0]), functional.linear(x, weights[1])
    left, right = layer(x).chunk(2, dim=-1)
    return left, right


class Rotary(nn.Module):
    """Positions as rotations of queries and keys, so that only distances count (Su et al., 2021).

    Of (batch, length, dim), heads side by side; the last of a length is always the window's last.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, window_len: int) -> None:
        super().__init__()
        steps = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        angles = torch.arange(window_len)[:, None] * ROTARY_BASE**-steps
        self.register_buffer("cos", torch.cos(angles), persistent=False)
        self.register_buffer("sin", torch.sin(angles), persistent=False)

    def forward(self, x: Tensor, num_heads: int, window: int) -> Tensor:
        """Rotate the vectors of the last positions of a window."""
        if torch.onnx.is_in_onnx_export():
            places = torch.arange(window)[window - x.shape[1] :].expand(x.shape[0], -1)
            rotated: Tensor = torch.onnx.ops.rotary_embedding(
                x, self.cos, self.sin, places, num_heads=num_heads
            )
            return rotated
        batch, length, dim = x.shape
        cos = self.cos[window - length : window, None]  # (length, 1, head_dim / 2)
        sin = self.sin[window - length : window, None]
        left, right = x.view(batch, length, num_heads, dim // num_heads).chunk(2, dim=-1)
        turned = torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)
        return turned.flatten(2)


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
        query, (key, value) = self.query(queries), two_halves(self.key_value, keys)
        if self.rotary is not None:
            window = keys.shape[1]
            query = self.rotary(query, self.num_heads, window)
            key = self.rotary(key, self.num_heads, window)
        if torch.onnx.is_in_onnx_export() and mask.shape[2] == 1:
            return self._mix_one(query, key, value, mask)
        query, key, value = (split_heads(part, self.num_heads) for part in (query, key, value))
        projected: Tensor = self.out(join_heads(self._mix(query, key, value, mask)))
        return projected

    def _mix_one(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend from one position (batch, 1, dim), without taking the window's heads apart.

        Each head's query is 0 in the others' coordinates, and of what it mixes only its own are
        kept: a little more arithmetic instead of two transpositions of the window.
        """
        dim = query.shape[2]
        own = torch.eye(self.num_heads).repeat_interleave(dim // self.num_heads, dim=1)
        logits = (query * (own * (dim // self.num_heads) ** -0.5)) @ key.transpose(1, 2)
        weights = torch.softmax(logits + mask[:, :, 0].transpose(0, 1), dim=-1)
        mixed = (weights @ value) * own  # (batch, heads, dim)
        projected: Tensor = self.out(mixed.sum(dim=1, keepdim=True))
        return projected

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        if not mask.requires_grad and not torch.onnx.is_in_onnx_export():
            # The fused kernel: 2.7 x as fast, but it gives a bias no gradient; the graph that is
            # exported keeps to plain operations.
            return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask
        return torch.softmax(logits, dim=-1) @ value
