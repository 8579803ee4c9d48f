"""The default body: causal blocks in two kinds, over a window whose last positions are queries."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.attention import (
    MASKED,
    Attention,
    BlockBody,
    Rotary,
    join_heads,
    last_positions,
    split_heads,
    two_halves,
)
from training.model_config import ModelConfig, TransformerConfig

# Beyond any bias of a pair that is seen: SiLU's blocks tell the two apart by it, softmax does not.
POINTWISE_MASKED = -1e4


class LigrBlock(nn.Module):
    """Gated attention, then a gated SwiGLU; normalised before each (Borisyuk et al., 2025)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.num_heads, rotary_of(config))
        self.attention_gate = nn.Linear(config.dim, config.dim)
        self.feed_norm = nn.LayerNorm(config.dim)
        self.feed_in = nn.Linear(config.dim, 2 * config.hidden_dim, bias=False)
        self.feed_out = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.feed_gate = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, window, dim) to (batch, queries, dim); mask (heads, batch, queries, window).

        Only the last `queries` positions are computed, as many as the mask has rows.
        """
        tail = last_positions(x, mask.shape[2])  # (batch, queries, dim)
        keys = self.attention_norm(x)
        queries = last_positions(keys, mask.shape[2])
        mixed = self.dropout(self.attention(queries, keys, mask))
        tail = tail + torch.sigmoid(self.attention_gate(queries)) * mixed
        normed = self.feed_norm(tail)
        left, right = two_halves(self.feed_in, normed)
        fed = self.dropout(self.feed_out(functional.silu(left) * right))
        result: Tensor = tail + torch.sigmoid(self.feed_gate(normed)) * fed
        return result


class HstuBlock(nn.Module):
    """Pointwise gated attention: SiLU instead of softmax, no feed-forward (Zhai et al., 2024).

    Weights are divided by the longest window, not by the batch's, so padding changes no score.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.window_len = config.num_heads, config.window_len
        self.norm = nn.LayerNorm(config.dim)
        self.gate_query = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.rotary = rotary_of(config)
        self.mixed_norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, window, dim) to (batch, queries, dim), as LigrBlock does."""
        tail = last_positions(x, mask.shape[2])
        keys = self.norm(x)
        gate, query = functional.silu(self.gate_query(last_positions(keys, mask.shape[2]))).chunk(
            2, dim=-1
        )
        key, value = functional.silu(self.key_value(keys)).chunk(2, dim=-1)
        query, key, value = (split_heads(part, self.num_heads) for part in (query, key, value))
        if self.rotary is not None:
            query = self.rotary(query, x.shape[1])
            key = self.rotary(key, x.shape[1])
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask
        visible = (mask > POINTWISE_MASKED / 2).to(x.dtype)
        mixed = (functional.silu(logits) * visible / self.window_len) @ value
        gated = self.mixed_norm(join_heads(mixed)) * gate
        result: Tensor = tail + self.out(self.dropout(gated))
        return result


def masked_logit(config: ModelConfig) -> float:
    """Return what hides a pair from the blocks of a kind."""
    pointwise = isinstance(config, TransformerConfig) and config.block == "hstu"
    return POINTWISE_MASKED if pointwise else MASKED


def rotary_of(config: TransformerConfig) -> Rotary | None:
    """Return the rotation of a block's queries and keys, None where positions are vectors."""
    if config.positions != "rotary":
        return None
    return Rotary(config.dim // config.num_heads, config.window_len)


def transformer_body(config: TransformerConfig) -> BlockBody:
    """Build blocks of the configured kind."""
    block = LigrBlock if config.block == "ligr" else HstuBlock
    return BlockBody((block(config) for _ in range(config.num_blocks)), config.dim)
