"""Losses as pure functions of tensors."""

from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 1024


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over all items without keeping a (positions, items) matrix.

    The gradient of softmax cross-entropy is known in closed form, so it is taken chunk by chunk in
    the forward pass, while the chunk's logits are still there, and only scaled in the backward.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        query_grad = torch.empty_like(query)
        items_grad = torch.zeros_like(items)
        total = query.new_zeros(())
        for start in range(0, len(query), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            logits = query[rows] @ items.T  # (chunk, num_items)
            log_norm = torch.logsumexp(logits, dim=1)  # (chunk,)
            picked = logits.gather(1, targets[rows, None])[:, 0]  # (chunk,)
            total += (log_norm - picked).sum()
            grad = logits.sub_(log_norm[:, None]).exp_()  # softmax, (chunk, num_items)
            grad.scatter_add_(1, targets[rows, None], -grad.new_ones(len(grad), 1))
            query_grad[rows] = grad @ items
            items_grad.addmm_(grad.T, query[rows])
        ctx.save_for_backward(query_grad / len(query), items_grad / len(query))
        return total / len(query)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        query_grad, items_grad = ctx.saved_tensors
        return query_grad * grads[0], items_grad * grads[0], None


def full_cross_entropy(query: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the targets among all items, in nats, ().

    `query` is (positions, dim), `items` (num_items, dim), `targets` (positions,) int64, the row of
    each target in `items`. The logits are query · item. The same as
    `torch.nn.functional.cross_entropy(query @ items.T, targets)`, with its memory bounded.
    """
    loss: Tensor = _ChunkedCrossEntropy.apply(query, items, targets)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return loss
