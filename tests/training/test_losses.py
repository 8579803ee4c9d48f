"""The chunked loss against torch's own."""

import pytest
import torch

from training.losses import CHUNK_ROWS, full_cross_entropy


@pytest.mark.parametrize("positions", [1, CHUNK_ROWS, CHUNK_ROWS + 3])
def test_loss_and_gradients_equal_the_reference(positions: int) -> None:
    """The closed form of the gradient is the reason for the function; it must be exact."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(positions, 5, generator=generator).requires_grad_()
    items = torch.randn(17, 5, generator=generator).requires_grad_()
    targets = torch.randint(17, (positions,), generator=generator)
    ours = torch.autograd.grad(3 * full_cross_entropy(query, items, targets), [query, items])
    reference = 3 * torch.nn.functional.cross_entropy(query @ items.T, targets)
    theirs = torch.autograd.grad(reference, [query, items])
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(3 * full_cross_entropy(query, items, targets), reference)
