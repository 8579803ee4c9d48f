"""A text encoder in 8-bit numbers: a quarter of the size, and less time.

Weights get a scale for each column, activations one for each token, found as it runs: with one for
all, as dynamic quantisation has it, a text's vector would depend on what is read beside it.
Transformers have a few channels of far larger activations, which leave the others few of the 256
steps; so each channel is divided by how large it gets and its weights are multiplied by the same
(SmoothQuant, Xiao et al., 2023, section 4.1). A table of token vectors, which is half of a small
network, gets a scale for each row.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

# How much of the range is moved into the weights, 0 none and 1 all: the paper's.
SMOOTHED = 0.5
LEAST_RANGE = 1e-5
# Smaller ones are not worth their scales.
MIN_TABLE_ROWS = 1_024


class Smoothed(nn.Module):
    """A linear layer whose input channels are scaled, (channels,), and its weights against it."""

    scale: Tensor

    def __init__(self, linear: nn.Linear, scale: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what the layer did before, but for rounding."""
        found: Tensor = self.linear(hidden * self.scale)
        return found


class ByteLinear(nn.Module):
    """A linear layer of int8 weights that scales each token's activations by itself.

    So a token's result does not depend on what is read beside it. It can be exported only: torch
    has no such product on the CPU.
    """

    weight: Tensor
    steps: Tensor
    middle: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        steps = linear.weight.abs().amax(1).clamp(min=LEAST_RANGE) / 127  # (out,)
        rounded = (linear.weight / steps[:, None]).round().to(torch.int8)
        self.register_buffer("weight", rounded.T.contiguous())
        self.register_buffer("steps", steps)
        self.register_buffer("middle", torch.tensor(128, dtype=torch.uint8))
        self.bias = linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out) of (..., in), as a node of the graph."""
        steps = hidden.abs().amax(-1, keepdim=True).clamp(min=LEAST_RANGE) / 127
        rounded = ((hidden / steps).round() + 128).to(torch.uint8)
        products = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (rounded, self.weight, self.middle),
            dtype=torch.int32,
            shape=(*hidden.shape[:-1], self.weight.shape[1]),
        )
        found = products.float() * steps * self.steps
        return found if self.bias is None else found + self.bias


class ByteTable(nn.Module):
    """A table of vectors, (rows, dim), in int8 with a scale for each row."""

    rows: Tensor
    scales: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scales = table.abs().amax(1, keepdim=True).clamp(min=LEAST_RANGE) / 127
        self.register_buffer("rows", (table / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids, (*ids, dim) float32."""
        return functional.embedding(ids, self.rows).float() * functional.embedding(ids, self.scales)


def smooth(body: nn.Module, read_some: Callable[[], object]) -> None:
    """Even out what a body's products take, in place; `read_some` has it read texts like its own.

    What the body gives stays the same.
    """
    with torch.no_grad():
        _unconvolve(body)
        _smooth(body, _ranges(body, read_some))


def to_bytes(body: nn.Module) -> None:
    """Put a body's weights into int8, in place; from then on it can only be exported."""
    with torch.no_grad():
        for name, module in list(body.named_modules()):
            if type(module) is nn.Linear:
                body.set_submodule(name, ByteLinear(module))
            if type(module) is nn.Embedding and module.num_embeddings >= MIN_TABLE_ROWS:
                body.set_submodule(name, ByteTable(module.weight))


def _unconvolve(body: nn.Module) -> None:
    """Make linear layers of GPT-2's, which hold their weights the other way round."""
    for name, module in list(body.named_modules()):
        if isinstance(module, Conv1D):
            num_in, num_out = module.weight.shape
            linear = nn.Linear(num_in, num_out)
            linear.weight.copy_(module.weight.T)
            linear.bias.copy_(module.bias)
            body.set_submodule(name, linear)


def _ranges(body: nn.Module, read_some: Callable[[], object]) -> dict[str, Tensor]:
    """Return the largest size of each input channel, (channels,), by the linear layer's name."""
    ranges: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].abs().flatten(0, -2).amax(0)
            ranges[name] = torch.maximum(ranges.get(name, largest), largest)

        return note

    hooks = [
        module.register_forward_pre_hook(noting(name))
        for name, module in body.named_modules()
        if type(module) is nn.Linear
    ]
    read_some()
    for hook in hooks:
        hook.remove()
    return ranges


def _smooth(body: nn.Module, ranges: dict[str, Tensor]) -> None:
    for name, largest in ranges.items():
        linear = body.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{name} is no linear layer")
        weights = linear.weight.abs().amax(0).clamp(min=LEAST_RANGE)  # (channels,)
        moved = largest.clamp(min=LEAST_RANGE) ** SMOOTHED / weights ** (1 - SMOOTHED)
        linear.weight.mul_(moved)
        body.set_submodule(name, Smoothed(linear, 1 / moved))
