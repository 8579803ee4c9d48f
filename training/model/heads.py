"""The way out: query and item vectors of each task, always as one inner product.

A bias per item becomes one more coordinate, 1 in the query, so that what is served is one matrix
product whatever the task: next item (softmax), click (sigmoid), watch (log1p of seconds).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.rates import OutcomeRates
from training.model_config import ModelConfig, Task

MAX_SCALE = 100.0
LEAST_LENGTH = 1e-12


class NextItemHead(nn.Module):
    """Scores that are logits over items: normalised with a learned scale, or plain with a bias."""

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__()
        self.normalised = config.normalised
        if config.normalised:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        else:
            self.bias = nn.Parameter(torch.zeros(num_items + 1))

    def query(self, hidden: Tensor) -> Tensor:
        """Return query vectors (..., out_dim) of (..., dim)."""
        if not self.normalised:
            return _with_one(hidden)
        scale = self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()
        # As functional.normalize does, whose export writes out every number of the length.
        length: Tensor = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).clamp(
            min=LEAST_LENGTH
        )
        result: Tensor = hidden * (scale / length)
        return result

    def items(self, table: Tensor) -> Tensor:
        """Return item vectors (num_items + 1, out_dim), row 0 all zero."""
        if self.normalised:
            return functional.normalize(table, dim=-1)
        return _with_bias(table, self.bias)

    def new_items(self, vectors: Tensor) -> Tensor:
        """Return item vectors (items, out_dim) of which no row is padding, nor known: no bias."""
        if self.normalised:
            return functional.normalize(vectors, dim=-1)
        return torch.cat([vectors, torch.zeros_like(vectors[:, :1])], dim=1)


class ValueHead(nn.Module):
    """Scores that are one number an item: a click's logit, or the log1p of seconds watched.

    Counted rates of item and user, plus what the network adds, which starts at nothing.
    """

    def __init__(self, config: ModelConfig, task: Task, num_items: int) -> None:
        super().__init__()
        self.rates = OutcomeRates(config, task, num_items)
        self.project = nn.Linear(config.dim, config.dim)
        self.own = nn.Linear(config.dim, 1)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        # Item vectors start short, so that an inner product of them would hardly move at first.
        self.log_scale = nn.Parameter(torch.tensor(math.log(math.sqrt(config.dim))))
        for layer in (self.project, self.own):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def query(self, hidden: Tensor, users: Tensor) -> Tensor:
        """Return query vectors (..., dim + 2) of (..., dim) and users' rates (...)."""
        projected = self.project(hidden) * self.log_scale.exp()
        own = self.own(hidden) + users[..., None] + self.rates.center()
        return _with_one(torch.cat([projected, own], dim=-1))

    def items(self, table: Tensor) -> Tensor:
        """Return item vectors (num_items + 1, dim + 2), row 0 all zero."""
        real = (torch.arange(len(table), device=table.device) > 0)[:, None].to(table.dtype)
        return _with_bias(torch.cat([table, real], dim=1), self.bias + self.rates.of_items())

    def new_items(self, vectors: Tensor) -> Tensor:
        """Return item vectors (items, dim + 2) of items without a past: no bias, the mean rate."""
        one = torch.ones_like(vectors[:, :1])
        return torch.cat([vectors, one, 0 * one], dim=1)


def make_heads(config: ModelConfig, num_items: int) -> dict[str, nn.Module]:
    """Build the head of every task that the settings name."""
    return {
        task: NextItemHead(config, num_items)
        if task == "next-item"
        else ValueHead(config, task, num_items)
        for task in config.tasks
    }


def _with_one(query: Tensor) -> Tensor:
    return torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)


def _with_bias(table: Tensor, bias: Tensor) -> Tensor:
    real = (torch.arange(len(table), device=table.device) > 0).to(table.dtype)
    return torch.cat([table, (bias * real)[:, None]], dim=1)
