"""Smoothing and tables of bytes: what they leave as it was, and how near."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from training.text.quantise import ByteTable, Smoothed, smooth, to_bytes


def test_smoothing_changes_nothing_but_the_ranges() -> None:
    """A channel a hundred times larger than the others is near them, and the output the same."""
    torch.manual_seed(4)
    body = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    read = torch.randn(50, 3) * torch.tensor([1.0, 100.0, 1.0])
    expected = body(read)
    smooth(body, lambda: body(read))
    first = body[0]
    assert isinstance(first, Smoothed)
    assert (body(read) - expected).abs().max() < 1e-4
    ranges = (read * first.scale).abs().amax(0)
    assert ranges.max() / ranges.min() < 15
    before = read.abs().amax(0)
    assert before.max() / before.min() > 50


def test_a_channel_that_is_never_there_stays_finite() -> None:
    """Zero activations have no range to divide by."""
    body = nn.Sequential(nn.Linear(2, 2))
    read = torch.tensor([[0.0, 1.0], [0.0, -2.0]])
    expected = body(read)
    smooth(body, lambda: body(read))
    assert body(read).isfinite().all()
    assert (body(read) - expected).abs().max() < 1e-5


def test_layers_with_their_weights_the_other_way_round_are_linear_layers() -> None:
    """GPT-2 keeps (in, out), where all others keep (out, in)."""
    body = nn.Sequential(Conv1D(4, 3))
    read = torch.randn(5, 3)
    expected = body(read)
    smooth(body, lambda: body(read))
    assert isinstance(body[0], Smoothed)
    assert (body(read) - expected).abs().max() < 1e-5


def test_a_table_of_bytes_is_within_half_a_step_of_each_row() -> None:
    """A row's step is its largest number ÷ 127, whatever the other rows hold."""
    table = torch.tensor([[1.27, -0.5, 0.004], [127.0, 1.0, 0.6]])
    found = ByteTable(table)(torch.tensor([[0, 1]]))
    assert found.shape == (1, 2, 3)
    assert (found[0] - table).abs().amax(1).tolist() <= [0.005, 0.5]
    assert found[0, 0, 0] == pytest.approx(1.27)


def test_only_large_tables_become_bytes() -> None:
    """Positions and kinds of tokens are few, and each text has them all."""
    body = nn.ModuleDict({"tokens": nn.Embedding(2_000, 4), "places": nn.Embedding(64, 4)})
    to_bytes(body)
    assert isinstance(body["tokens"], ByteTable)
    assert isinstance(body["places"], nn.Embedding)
