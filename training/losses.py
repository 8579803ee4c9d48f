"""Losses as pure functions of tensors; all return the mean over rows, ().

`query` is (rows, dim), `items` (num_items, dim), `targets` (rows,) int64, the row of each target in
`items`; a logit is query · item. A row is one real position of one window.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_ROWS = 1024
# What an accidental hit scores: low enough to vanish, finite so that no gradient is NaN.
HIT_LOGIT = -1e4


@dataclass(frozen=True, slots=True)
class CopyBonus:
    """What is added to the logits of items in the rows' windows.

    `items` is (rows, window) int64, the item of each event as a row of `items`, -1 where there is
    none; `weights` is (rows, window), added up where an item comes twice.
    """

    items: Tensor
    weights: Tensor


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over all items without keeping a (rows, items) matrix.

    The gradient of softmax cross-entropy is known in closed form, so it is taken chunk by chunk in
    the forward pass, while the chunk's logits are still there, and only scaled in the backward.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by place
        ctx: Any,
        query: Tensor,
        items: Tensor,
        targets: Tensor,
        copy_items: Tensor | None,
        copy_weights: Tensor | None,
        smoothing: float,
    ) -> Tensor:
        query_grad, items_grad = torch.empty_like(query), torch.zeros_like(items)
        copy_grad = None if copy_weights is None else torch.empty_like(copy_weights)
        total = query.new_zeros(())
        for start in range(0, len(query), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            logits = query[rows] @ items.T  # (chunk, num_items)
            if copy_items is not None and copy_weights is not None:
                _add_copies(logits, copy_items[rows], copy_weights[rows])
            picked = logits.gather(1, targets[rows, None])  # (chunk, 1)
            highest = logits.amax(dim=1, keepdim=True)
            mean = logits.mean(dim=1, keepdim=True) if smoothing else picked
            grad = logits.sub_(highest).exp_()
            norm = grad.sum(dim=1, keepdim=True)
            total += (norm.log() + highest - (1 - smoothing) * picked - smoothing * mean).sum()
            grad.div_(norm)  # softmax, (chunk, num_items)
            if smoothing:
                grad -= smoothing / len(items)
            grad.scatter_add_(1, targets[rows, None], grad.new_full((len(grad), 1), smoothing - 1))
            query_grad[rows] = grad @ items
            items_grad.addmm_(grad.T, query[rows])
            if copy_grad is not None and copy_items is not None:
                copy_grad[rows] = _gather_copies(grad, copy_items[rows])
        count = max(1, len(query))
        ctx.save_for_backward(query_grad / count, items_grad / count)
        ctx.copy_grad = None if copy_grad is None else copy_grad / count
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query_grad, items_grad = ctx.saved_tensors
        copy_grad = None if ctx.copy_grad is None else ctx.copy_grad * grads[0]
        return query_grad * grads[0], items_grad * grads[0], None, None, copy_grad, None


def _add_copies(logits: Tensor, copy_items: Tensor, copy_weights: Tensor) -> None:
    present = copy_items >= 0
    logits.scatter_add_(1, copy_items.clamp(min=0), copy_weights * present)


def _gather_copies(grad: Tensor, copy_items: Tensor) -> Tensor:
    return grad.gather(1, copy_items.clamp(min=0)) * (copy_items >= 0)


def full_cross_entropy(
    query: Tensor,
    items: Tensor,
    targets: Tensor,
    copy: CopyBonus | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of the targets among all items, in nats.

    The same as `torch.nn.functional.cross_entropy(query @ items.T + bonus, targets)` with its
    memory bounded; smoothing spreads that share of the target evenly over all items.
    """
    copy_items, copy_weights = (None, None) if copy is None else (copy.items, copy.weights.float())
    # A softmax over thousands of items, and its gradients' sums over chunks, need float32.
    with torch.autocast(query.device.type, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch's apply is untyped
            query.float(), items.float(), targets, copy_items, copy_weights, label_smoothing
        )
    return loss


def sampled_softmax(  # noqa: PLR0917 - as full_cross_entropy, plus the sample
    query: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_q: Tensor,
    copy: CopyBonus | None = None,
) -> Tensor:
    """Return the cross-entropy of the targets among themselves and shared negatives, in nats.

    `negatives` is (num_negatives,) int64, drawn with replacement by a sampler that gives item i
    the log probability `log_q[i]`, (num_items,). The logits of target and negatives are corrected
    by the log of how often the sampler draws them, log_q + log(num_negatives) for a negative and
    nothing for the target, which is always there; a negative that is the row's target is an
    accidental hit and masked. Source: Yi et al., 2019, with the target's correction left out, as
    in Bengio & Senecal, 2008.
    """
    positive = (query * items[targets]).sum(dim=1, keepdim=True)  # (rows, 1)
    drawn = query @ items[negatives].T - (log_q[negatives] + math.log(len(negatives)))
    if copy is not None:
        own = copy.weights * (copy.items == targets[:, None])
        positive = positive + own.sum(dim=1, keepdim=True)
        drawn = drawn + _bonus_of(negatives, copy)
    drawn = drawn.masked_fill(negatives[None] == targets[:, None], HIT_LOGIT)
    logits = torch.cat([positive, drawn], dim=1)  # (rows, 1 + num_negatives)
    # Summed and divided, since the mean of no row at all is NaN.
    total = functional.cross_entropy(logits, torch.zeros_like(targets), reduction="sum")
    return total / max(1, len(targets))


def _bonus_of(items: Tensor, copy: CopyBonus) -> Tensor:
    """Return what the copy bonus adds to shared items in each row, (rows, len(items))."""
    distinct, place_of = torch.unique(items, return_inverse=True)
    places = torch.searchsorted(distinct, copy.items).clamp(max=len(distinct) - 1)
    drawn = (distinct[places] == copy.items).to(copy.weights.dtype)
    bonus = copy.weights.new_zeros(len(copy.items), len(distinct))
    return bonus.scatter_add(1, places, copy.weights * drawn)[:, place_of]


def gbce(query: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, t: float) -> Tensor:
    """Return the generalised binary cross-entropy of targets and own negatives, in nats.

    `negatives` is (rows, num_negatives) int64, drawn uniformly. The target's probability is raised
    to beta = alpha (t (1 - 1/alpha) + 1/alpha), alpha being the share of items sampled; t = 0 is
    plain binary cross-entropy, t = 1 calibrated to the softmax.
    Source: Petrov & Macdonald, gSASRec, 2023, equation 9.
    """
    alpha = negatives.shape[1] / (len(items) - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    positive = (query * items[targets]).sum(dim=1)  # (rows,)
    drawn = torch.einsum("rd,rnd->rn", query, items[negatives])
    drawn = drawn.masked_fill(negatives == targets[:, None], HIT_LOGIT)
    loss = -beta * functional.logsigmoid(positive) - functional.logsigmoid(-drawn).sum(dim=1)
    return loss.sum() / max(1, len(loss))


def info_nce(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of two views, (rows, dim) each, in nats.

    Every view looks for its partner among all other views of the batch, by cosine.
    Source: NT-Xent of Chen et al., 2020, as in CL4SRec (Xie et al., 2022).
    """
    views = functional.normalize(torch.cat([left, right]), dim=1)  # (2 rows, dim)
    logits = views @ views.T / temperature
    own = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = logits.masked_fill(own, HIT_LOGIT)
    rows = torch.arange(len(left), device=views.device)
    partners = torch.cat([rows + len(left), rows])
    return functional.cross_entropy(logits, partners)
