"""A language model's layers as the body: they read a sequence of items as they read words.

Blocks, norms and position vectors are a checkpoint's, of a GPT-2 (normalised before each part) or
of a BERT (after each), with two linear maps between the items' space and theirs. The mask is the
caller's: a BERT, which learned to look both ways, is made to look back alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import TrainingError
from training.model.attention import join_heads, last_positions, mix_values, split_heads
from training.model.language_weights import LanguageShape, read_layers, read_shape
from training.model_config import LanguageModelConfig
from training.text.weights import find_weights

# Of BERT and GPT-2 before they learned anything.
FRESH_STD = 0.02


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": functional.relu,
    "silu": functional.silu,
}


class LanguageAttention(nn.Module):
    """Multi-head softmax attention whose every projection has a bias."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Attend from (batch, queries, hidden) to (batch, keys, hidden)."""
        parts = self.query(queries), *self.key_value(keys).chunk(2, dim=-1)
        query, key, value = (split_heads(part, self.num_heads) for part in parts)
        mixed: Tensor = self.out(join_heads(mix_values(query, key, value, mask)))
        return mixed


class LanguageBlock(nn.Module):
    """One layer of a language model, as its checkpoint has it."""

    def __init__(self, shape: LanguageShape, dropout: float) -> None:
        super().__init__()
        dim = shape.hidden_dim
        self.pre_norm = shape.pre_norm
        self.attention = LanguageAttention(dim, shape.num_heads)
        self.attention_norm = nn.LayerNorm(dim, shape.norm_eps)
        self.feed_in = nn.Linear(dim, shape.feed_dim)
        self.feed_out = nn.Linear(shape.feed_dim, dim)
        self.feed_norm = nn.LayerNorm(dim, shape.norm_eps)
        self.activation = ACTIVATIONS[shape.activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, window, hidden) to (batch, queries, hidden), as LigrBlock does."""
        tail = last_positions(x, mask.shape[2])
        if self.pre_norm:
            keys = self.attention_norm(x)
            queries = last_positions(keys, mask.shape[2])
            tail = tail + self.dropout(self.attention(queries, keys, mask))
            result: Tensor = tail + self._fed(self.feed_norm(tail))
        else:
            tail = self.attention_norm(tail + self.dropout(self.attention(tail, x, mask)))
            result = self.feed_norm(tail + self._fed(tail))
        return result

    def _fed(self, x: Tensor) -> Tensor:
        fed: Tensor = self.dropout(self.feed_out(self.activation(self.feed_in(x))))
        return fed


class LanguageBody(nn.Module):
    """See Body; the window's events take the places of a text's tokens, the first of them first.

    Its shape is part of its state: a run that has learned is read without the checkpoint.
    """

    shape: Tensor

    def __init__(self, config: LanguageModelConfig, shape: LanguageShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.register_buffer("shape", shape.to_bytes())
        num_layers = config.num_blocks or shape.num_layers
        self.layers = nn.ModuleList(LanguageBlock(shape, config.dropout) for _ in range(num_layers))
        self.positions: nn.Embedding | None = None
        if config.positions == "weights":
            self.positions = nn.Embedding(config.window_len, shape.hidden_dim)
        after = nn.LayerNorm(shape.hidden_dim, shape.norm_eps)
        self.first_norm = nn.Identity() if shape.pre_norm else after
        self.final_norm = after if shape.pre_norm else nn.Identity()
        self.into = nn.Linear(config.dim, shape.hidden_dim, bias=False)
        self.out = nn.Linear(shape.hidden_dim, config.dim, bias=False)
        self.apply(_start_fresh)
        with torch.no_grad():
            # What layers leave as it was comes out as the item that went in.
            nn.init.orthogonal_(self.into.weight)
            self.out.weight.copy_(self.into.weight.T)

    def forward(self, x: Tensor, mask: Tensor, real: Tensor, num_queries: int) -> Tensor:
        """See Body."""
        x = self.into(x)
        if self.positions is not None:
            # A text has no padding before it: places are counted from the first event.
            places = (real.to(torch.int64).cumsum(dim=1) - 1).clamp(min=0)  # (batch, window)
            x = x + self.positions(places)
        x = self.first_norm(x)
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        x = self.layers[-1](x, mask[:, :, -num_queries:])
        projected: Tensor = self.out(self.final_norm(x))
        return projected


def language_body(
    config: LanguageModelConfig, learned: Mapping[str, Tensor] | None = None
) -> LanguageBody:
    """Build a body with a checkpoint's weights, or with fresh ones of its shape.

    `learned` is the state of a body that has learned, which is about to be loaded: then only its
    shape counts, and no checkpoint is read. Raises TrainingError for a checkpoint that is not
    there, is of another kind, or has fewer layers or positions than the settings ask for.
    """
    if learned is not None:
        return LanguageBody(config, LanguageShape.from_bytes(learned["shape"]))
    folder = find_weights(config.weights, "model.weights")
    shape = read_shape(folder)
    _check(config, shape)
    body = LanguageBody(config, shape)
    if config.start == "weights":
        _load(body, read_layers(folder, len(body.layers)), folder)
    return body


def _load(body: LanguageBody, weights: dict[str, Tensor], folder: Path) -> None:
    positions = weights.pop("positions.weight")
    if body.positions is not None:
        weights["positions.weight"] = positions[: body.positions.num_embeddings]
    try:
        body.load_state_dict(body.state_dict() | weights)
    except RuntimeError as exc:
        reason = str(exc).splitlines()[-1].strip()
        raise TrainingError(
            f"model.weights: {folder}: its weights are not of the sizes that its config.json "
            f"states: {reason}"
        ) from exc


def _check(config: LanguageModelConfig, shape: LanguageShape) -> None:
    named = f"model.weights = {config.weights!r}"
    if config.num_blocks > shape.num_layers:
        raise TrainingError(
            f"model.num_blocks = {config.num_blocks}: {named} has {shape.num_layers} layers; "
            "ask for as many or fewer, or for all of them by 0"
        )
    if config.positions == "weights" and config.window_len > shape.num_positions:
        raise TrainingError(
            f"model.window_len = {config.window_len}: {named} knows {shape.num_positions} "
            "positions; choose a shorter window, or model.positions = 'absolute'"
        )
    if shape.activation not in ACTIVATIONS:
        raise TrainingError(
            f"{named}: the activation {shape.activation!r} is not read, {', '.join(ACTIVATIONS)} "
            "are; choose another checkpoint"
        )
    if min(shape.num_heads, shape.num_layers) < 1 or shape.hidden_dim % shape.num_heads:
        raise TrainingError(
            f"{named}: {shape.num_layers} layers {shape.hidden_dim} wide with {shape.num_heads} "
            "heads are no network; get the checkpoint anew"
        )


def _start_fresh(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=FRESH_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
