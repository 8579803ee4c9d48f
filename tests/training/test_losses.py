"""The losses against torch's own, and against values worked by hand."""

import math

import pytest
import torch

from training.losses import (
    CHUNK_ROWS,
    CopyBonus,
    full_cross_entropy,
    gbce,
    info_nce,
    sampled_softmax,
)


def example(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random queries, 17 items and targets."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(rows, 5, generator=generator).requires_grad_()
    items = torch.randn(17, 5, generator=generator).requires_grad_()
    return query, items, torch.randint(17, (rows,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, CHUNK_ROWS, CHUNK_ROWS + 3])
def test_loss_and_gradients_equal_the_reference(rows: int, smoothing: float) -> None:
    """The closed form of the gradient is the reason for the function; it must be exact."""
    query, items, targets = example(rows)
    loss = 3 * full_cross_entropy(query, items, targets, label_smoothing=smoothing)
    ours = torch.autograd.grad(loss, [query, items])
    reference = 3 * torch.nn.functional.cross_entropy(
        query @ items.T, targets, label_smoothing=smoothing
    )
    theirs = torch.autograd.grad(reference, [query, items])
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, reference)


def test_copy_bonuses_add_to_the_logits_and_get_their_gradient() -> None:
    """Twice the same item adds twice; -1 is padding and adds nowhere, not even to the last item."""
    query, items, targets = example(2)
    windows = torch.tensor([[-1, 4, 4], [0, 16, 2]])
    weights = torch.tensor([[9.0, 0.5, 0.25], [1.0, -1.0, 2.0]]).requires_grad_()
    loss = full_cross_entropy(query, items, targets, CopyBonus(windows, weights))
    (ours,) = torch.autograd.grad(loss, [weights])
    bonus = torch.zeros(2, 17)
    bonus = bonus.index_put((torch.tensor([0, 0]), torch.tensor([4, 4])), weights[0, 1:], True)
    bonus = bonus.index_put((torch.tensor([1, 1, 1]), windows[1]), weights[1], True)
    reference = torch.nn.functional.cross_entropy(query @ items.T + bonus, targets)
    (theirs,) = torch.autograd.grad(reference, [weights])
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert ours[0, 0].item() == 0.0


def test_sampling_every_item_once_comes_near_the_full_loss() -> None:
    """With all items drawn once from a uniform sampler the correction is 0: log(1/n) + log(n)."""
    query, items, targets = example(40)
    log_q = torch.full((17,), -math.log(17))
    sampled = sampled_softmax(query, items, targets, torch.arange(17), log_q)
    torch.testing.assert_close(sampled, full_cross_entropy(query, items, targets))


def test_a_copy_bonus_counts_for_target_and_negatives_alike() -> None:
    """Every item drawn once from all: with a bonus, too, the full softmax's loss and gradients."""
    query, items, targets = example(9)
    generator = torch.Generator().manual_seed(4)
    window = torch.randint(-1, 17, (9, 6), generator=generator)
    weights = torch.randn(9, 6, generator=generator).requires_grad_()
    copy = CopyBonus(window, weights)
    log_q = torch.full((17,), -math.log(17))
    sampled = sampled_softmax(query, items, targets, torch.arange(17), log_q, copy)
    full = full_cross_entropy(query, items, targets, copy)
    torch.testing.assert_close(sampled, full)
    ours, theirs = (torch.autograd.grad(loss, [query, weights]) for loss in (sampled, full))
    torch.testing.assert_close(ours, theirs)
    twice = torch.arange(17).repeat(2)
    repeated = sampled_softmax(query, items, targets, twice, log_q, copy)
    torch.testing.assert_close(repeated, full)


def test_an_accidental_hit_is_no_negative() -> None:
    """The target among the negatives must not push its own score down: one class, loss 0."""
    query, items, targets = example(1)
    hits = targets.repeat(3)
    loss = sampled_softmax(query, items, targets, hits, torch.full((17,), -math.log(17)))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    pushed = gbce(query, items, targets, hits[None], t=0.0)
    alone = torch.nn.functional.softplus(-(query[0] @ items[targets[0]]))
    torch.testing.assert_close(pushed, alone)


def test_rarely_drawn_negatives_count_for_more() -> None:
    """An item that is drawn nine times less often stands for nine times as many."""
    query, items = torch.zeros(1, 2), torch.zeros(3, 2)
    log_q = torch.log(torch.tensor([0.0, 0.9, 0.1]).clamp(min=1e-9))
    common = sampled_softmax(query, items, torch.tensor([0]), torch.tensor([1]), log_q)
    rare = sampled_softmax(query, items, torch.tensor([0]), torch.tensor([2]), log_q)
    assert common.item() == pytest.approx(math.log(1 + 1 / 0.9))
    assert rare.item() == pytest.approx(math.log(1 + 1 / 0.1))


def test_gbce_weakens_the_positive_by_its_calibration() -> None:
    """4 of 16 items sampled: alpha = 1/4; t = 1 gives beta = alpha (1 - 4 + 4) = alpha = 1/4."""
    query, items = torch.zeros(1, 2), torch.zeros(17, 2)
    negatives = torch.tensor([[1, 2, 3, 4]])
    target = torch.tensor([0])
    plain = gbce(query, items, target, negatives, t=0.0)
    calibrated = gbce(query, items, target, negatives, t=1.0)
    assert plain.item() == pytest.approx(5 * math.log(2))
    assert calibrated.item() == pytest.approx((1 / 4 + 4) * math.log(2))


def test_partners_that_are_alike_and_others_that_are_not_cost_nothing() -> None:
    """Two users with orthogonal views: each view's partner scores 1 / t, the other two 0."""
    views = torch.eye(2)
    cost = math.log(1 + 2 * math.exp(-1 / 0.5))
    assert info_nce(views, views, 0.5).item() == pytest.approx(cost)
