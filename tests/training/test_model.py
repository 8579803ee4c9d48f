"""The network: causal, blind to padding, exact in time."""

from dataclasses import replace

import pytest
import torch

from training.config import ModelConfig
from training.dataset import serving_batch
from training.model import NUM_GAP_BUCKETS, Batch, SequenceModel, gap_bucket

CONFIG = ModelConfig(dim=8, hidden_dim=8, num_heads=2, num_blocks=2, window_len=8, dropout=0.0)
HOUR_MS = 3_600_000


def model(config: ModelConfig = CONFIG) -> SequenceModel:
    """A model with random weights, its time tables away from their neutral start."""
    torch.manual_seed(0)
    built = SequenceModel(config, num_items=9).eval()
    if built.gap_bias is not None:
        torch.nn.init.normal_(built.gap_bias.table.weight)
    return built


def batch(items: list[int], request_ms: int = 50 * HOUR_MS, offset_min: int = 0) -> Batch:
    """One window of items an hour apart."""
    times = [place * HOUR_MS if item else 0 for place, item in enumerate(items, start=1)]
    return serving_batch(
        torch.tensor([items]),
        torch.tensor([times]),
        torch.tensor([request_ms]),
        torch.tensor([offset_min]),
    )


@torch.inference_mode()
def encode(built: SequenceModel, window: Batch, num_queries: int = 1) -> torch.Tensor:
    """Encode without gradients."""
    return built.encode(window, num_queries)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, request_time="unknown")])
def test_a_later_event_changes_no_earlier_query(config: ModelConfig) -> None:
    """Causality: position 2 must not know what position 3 holds, or training sees its answer."""
    built = model(config)
    before = encode(built, batch([1, 2, 3, 4]), 4)[:, :2]
    after = encode(built, batch([1, 2, 9, 8]), 4)[:, :2]
    torch.testing.assert_close(before, after)


def test_padding_changes_no_score() -> None:
    """Batches pad to their longest window; the service pads to window_len."""
    built = model()
    padded = batch([0, 0, 0, 1, 2, 3])
    shifted = replace(
        padded, timestamps_ms=torch.tensor([[0, 0, 0, HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS]])
    )
    shifted = serving_batch(
        shifted.items, shifted.timestamps_ms, torch.tensor([50 * HOUR_MS]), torch.tensor([0])
    )
    torch.testing.assert_close(encode(built, shifted), encode(built, batch([1, 2, 3])))


def test_the_last_position_alone_equals_the_last_of_all() -> None:
    """Serving computes one query; training all of them."""
    built = model()
    window = batch([1, 2, 3, 4, 5])
    torch.testing.assert_close(encode(built, window, 1), encode(built, window, 5)[:, -1:])


def test_an_empty_window_gives_a_finite_query() -> None:
    """The mask is finite, so a row without keys is no NaN."""
    assert torch.isfinite(encode(model(), batch([0, 0, 0]))).all()


def test_the_request_time_changes_the_query_only_when_the_model_knows_it() -> None:
    """Time-blind and time-aware are two tasks."""
    blind = model(replace(CONFIG, request_time="unknown"))
    early, late = batch([1, 2, 3], 5 * HOUR_MS), batch([1, 2, 3], 500 * HOUR_MS)
    torch.testing.assert_close(encode(blind, early), encode(blind, late))
    aware = model()
    assert not torch.allclose(encode(aware, early), encode(aware, late))


def test_the_hour_is_local() -> None:
    """The same instant at another offset is another hour of day."""
    aware = model()
    at_utc, at_plus_six = batch([1, 2], offset_min=0), batch([1, 2], offset_min=360)
    assert not torch.allclose(encode(aware, at_utc), encode(aware, at_plus_six))


def test_gaps_are_bucketed_from_whole_milliseconds() -> None:
    """In float32 these two times are equal; their gap of 2 s is not the gap of 0 s."""
    now = torch.tensor([1_700_000_002_000])
    then = torch.tensor([1_700_000_000_000])
    assert now.to(torch.float32).item() - then.to(torch.float32).item() != 2000.0
    assert gap_bucket(now - then).item() > gap_bucket(now - now).item()


def test_gap_buckets_are_bounded_and_ordered() -> None:
    """A clock that ran backwards counts as no gap; centuries share the last bucket."""
    gaps = torch.tensor([-5, 0, 1_000, 60_000, HOUR_MS, 24 * HOUR_MS, 10**16])
    buckets = gap_bucket(gaps).tolist()
    assert buckets[0] == buckets[1] == 0
    assert buckets[-1] == NUM_GAP_BUCKETS - 1
    assert buckets == sorted(buckets)
    assert len(set(buckets[1:])) == 6


def test_padding_has_a_zero_item_vector() -> None:
    """Row 0 of the item matrix is unused and scores 0."""
    assert model().item_vectors()[0].abs().sum().item() == 0.0
