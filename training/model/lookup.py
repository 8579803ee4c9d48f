"""A bias per head from a small table, for every pair of a query and a key."""

from typing import Any

import torch
from torch import Tensor

# A bias must reach several nats before attention follows it, and Adam moves a weight by about the
# learning rate a step: tables are multiplied by this, so that small data sets get there too.
BIAS_GAIN = 8.0


class _PairLookup(torch.autograd.Function):
    """Indexing whose backward counts: `embedding` adds row by row and takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows, ctx.num_heads = table.shape
        return table.T.contiguous()[:, index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        flat = index.flatten()
        columns = [
            torch.bincount(flat, weights=grads[0][head].reshape(-1), minlength=ctx.num_rows)
            for head in range(ctx.num_heads)
        ]
        return torch.stack(columns, dim=1).to(grads[0].dtype), None


def pair_lookup(table: Tensor, index: Tensor) -> Tensor:
    """Return table[index], (heads, batch, queries, keys), of a table (rows, heads).

    `index` is (batch, queries, keys) int64.
    """
    if torch.onnx.is_in_onnx_export():
        return _onnx_lookup(table.T, index)
    if not torch.is_grad_enabled():
        return table.T.contiguous()[:, index]
    found: Tensor = _PairLookup.apply(table, index)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return found


def _onnx_lookup(columns: Tensor, index: Tensor) -> Tensor:
    """Return columns[:, index] by the operator that takes single numbers.

    ONNX Runtime's Gather copies a row at a time: over 200 × 200 pairs it takes 3 x as long.
    """
    found: Tensor = torch.onnx.ops.symbolic(
        "ai.onnx.ml::ArrayFeatureExtractor",
        (columns, index.flatten()),
        dtype=columns.dtype,
        shape=(columns.shape[0], index.numel()),
        version=1,
    )
    return found.view(columns.shape[0], *index.shape)
