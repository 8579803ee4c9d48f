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

    Of (heads, batch, length, head_dim); the last of a length is always the window's last.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, window_len: int) -> None:
        super().__init__()
        steps = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        angles = torch.arange(window_len)[:, None] * ROTARY_BASE**-steps
        self.register_buffer("cos", torch.cos(angles), persistent=False)
        self.register_buffer("sin", torch.sin(angles), persistent=False)

    def forward(self, x: Tensor, window: int) -> Tensor:
        """Rotate the vectors of the last positions of a window."""
        length = x.shape[2]
        if torch.onnx.is_in_onnx_export():
            # To the operator, our heads are its batch and our batch its heads.
            places = torch.arange(window)[window - length :].expand(x.shape[0], -1)
            rotated: Tensor = torch.onnx.ops.rotary_embedding(x, self.cos, self.sin, places)
            return rotated
        cos = self.cos[window - length : window]  # (length, head_dim / 2)
        sin = self.sin[window - length : window]
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
        if torch.onnx.is_in_onnx_export():
            mixed = self._mix_exported(queries, keys, mask)
        else:
            parts = self.query(queries), *self.key_value(keys).chunk(2, dim=-1)
            query, key, value = (split_heads(part, self.num_heads) for part in parts)
            query, key = self._rotated(query, keys.shape[1]), self._rotated(key, keys.shape[1])
            mixed = mix_values(query, key, value, mask)
        projected: Tensor = self.out(join_heads(mixed))
        return projected

    def _rotated(self, x: Tensor, window: int) -> Tensor:
        rotated: Tensor = x if self.rotary is None else self.rotary(x, window)
        return rotated

    def weights(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Return how much each query looks at each key, (heads, batch, queries, keys)."""
        dim = queries.shape[2]
        scale = (dim // self.num_heads) ** -0.5
        key_weight = self.key_value.weight[:dim]
        query = project_heads(queries[None], self.query.weight * scale, self.num_heads)
        key = project_heads(keys[None], key_weight, self.num_heads)
        query, key = self._rotated(query, keys.shape[1]), self._rotated(key, keys.shape[1])
        return torch.softmax(query @ key.transpose(2, 3) + mask, dim=-1)

    def _mix_exported(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Attend in plain operations, without a transposition and with the scale in a weight.

        One query mixes the window first and makes a value of the mixture, not of every event.
        """
        value_weight = self.key_value.weight[queries.shape[2] :]
        weights = self.weights(queries, keys, mask)
        if mask.shape[2] == 1:
            return project_heads(weights @ keys, value_weight, self.num_heads)
        return weights @ project_heads(keys[None], value_weight, self.num_heads)


def project_heads(x: Tensor, weight: Tensor, num_heads: int) -> Tensor:
    """Project (heads or 1, batch, length, dim) to (heads, batch, length, head_dim).

    A product for each head, with its rows of `weight` (heads · head_dim, dim).
    """
    _, batch, length, dim = x.shape
    matrices = weight.view(num_heads, -1, dim).transpose(1, 2)
    return (x.flatten(1, 2) @ matrices).view(num_heads, batch, length, -1)


def mix_values(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Return the values that queries find, (heads, batch, queries, head_dim)."""
    if not (mask.requires_grad or torch.onnx.is_in_onnx_export()):
        # The fused kernel: 2.7 x as fast, but it gives a bias no gradient.
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask
    return torch.softmax(logits, dim=-1) @ value
