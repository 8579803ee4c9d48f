"""Bottleneck adapters: small networks behind each layer's feed-forward (Houlsby et al., 2019).

The paper puts a second one behind the attention; one per layer, behind the feed-forward, does as
well (Pfeiffer et al., 2021) and costs half. peft has no adapter of this kind.
"""

import torch
from torch import Tensor, nn

from training.text.layers import config_of, feed_forward_end, layers_of


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))), `width` wide inside; `up` starts at zero, so it starts as nothing."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        # As small as the paper's, so that the first steps are near those of the body alone.
        nn.init.normal_(self.down.weight, std=0.01)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., dim) for (..., dim)."""
        change: Tensor = self.up(torch.nn.functional.gelu(self.down(hidden)))
        return hidden + change


class Adapted(nn.Module):
    """A projection and the adapter behind it; the body adds its residual after both."""

    def __init__(self, projection: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.projection = projection
        self.adapter = adapter

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., dim) for (..., width of the feed-forward)."""
        adapted: Tensor = self.adapter(self.projection(hidden))
        return adapted


def add_adapters(body: nn.Module, width: int) -> None:
    """Put an adapter into every layer of the body, in place."""
    dim = config_of(body).hidden_size
    for _, layer in layers_of(body):
        name = feed_forward_end(layer, dim)
        projection = layer.get_submodule(name)
        adapter = Bottleneck(dim, width).to(next(projection.parameters()).device)
        layer.set_submodule(name, Adapted(projection, adapter))
