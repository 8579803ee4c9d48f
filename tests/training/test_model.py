"""The networks, every family: causal, blind to padding, exact in time, one inner product."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training import builders
from training.items import ItemFacts
from training.model.attention import Rotary
from training.model.batch import Batch, serving_batch
from training.model.copy_head import CopyHead, SeenBias
from training.model.lookup import BIAS_GAIN
from training.model.sequence_model import SequenceModel
from training.model.time import NUM_GAP_BUCKETS, gap_bucket, last_times
from training.model_config import (
    Bert4RecConfig,
    LanguageModelConfig,
    ModelConfig,
    RecurrentConfig,
    SasrecConfig,
    TransformerConfig,
)

CONFIG = TransformerConfig(
    dim=8, hidden_dim=8, num_heads=2, num_blocks=2, window_len=8, dropout=0.0, emb_dropout=0.0
)
FAMILIES: dict[str, ModelConfig] = {
    "ligr": CONFIG,
    "ligr, blind": replace(CONFIG, request_time="unknown", time_gaps=False),
    "hstu": replace(CONFIG, block="hstu"),
    "rotary": replace(CONFIG, positions="rotary"),
    "hstu, rotary": replace(CONFIG, block="hstu", positions="rotary"),
    "seen alone": replace(CONFIG, positions="rotary", copy=True, copy_heads=0),
    "all inputs": replace(
        CONFIG, event_types=True, durations=True, values=True, copy=True, copy_heads=2,
        places=True, distances=True, categories=True,
    ),
    "sasrec": SasrecConfig(dim=8, window_len=8, dropout=0.0),
    "bert4rec": Bert4RecConfig(dim=8, window_len=8, dropout=0.0),
    "gru": RecurrentConfig(dim=8, hidden_dim=6, window_len=8, dropout=0.0),
    "lstm, click": RecurrentConfig(
        family="lstm", dim=8, hidden_dim=6, depth=2, window_len=8, dropout=0.0, tasks=("click",)
    ),
    "rnn": RecurrentConfig(family="rnn", dim=8, hidden_dim=6, window_len=8, dropout=0.0),
    # Their weights are tiny checkpoints of this kind.
    "lm, gpt2": LanguageModelConfig(weights="gpt2", dim=8, window_len=8, dropout=0.0),
    "lm, bert, timed": LanguageModelConfig(
        weights="bert", dim=8, window_len=8, dropout=0.0, time_gaps=True, request_time="known"
    ),
}  # fmt: skip
CAUSAL = [name for name in FAMILIES if name != "bert4rec"]
HOUR_MS = 3_600_000
NUM_ITEMS = 9


def facts() -> ItemFacts:
    """Nine items on a line through a city, in three cells and two categories."""
    steps = np.arange(NUM_ITEMS + 1, dtype=np.float32)
    return ItemFacts(
        num_items=NUM_ITEMS,
        lats=np.where(steps > 0, 40.7 + steps / 100, np.nan).astype(np.float32),
        lons=np.where(steps > 0, -74.0, np.nan).astype(np.float32),
        cells=np.array([0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
        num_cells=3,
        categories=np.array([1, 2, 1, 2, 1, 2, 1, 2, 1]),
        category_starts=np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        num_categories=2,
        texts=("",) * (NUM_ITEMS + 1),
    )


def with_checkpoint(config: ModelConfig) -> ModelConfig:
    """Settings whose language model, if they have one, is the tiny one of that kind."""
    if not isinstance(config, LanguageModelConfig):
        return config
    return replace(config, weights=str(builders.language_checkpoint(config.weights)))


def model(config: ModelConfig = CONFIG) -> SequenceModel:
    """A model with random weights, every table away from its neutral start."""
    torch.manual_seed(0)
    built = SequenceModel(with_checkpoint(config), facts()).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim:
                parameter.normal_(std=0.4)
        built.items.identity.weight[0].zero_()
        if built.items.cells is not None:
            built.items.cells.weight[0].zero_()
    return built


def batch(items: list[int], request_ms: int = 50 * HOUR_MS, offset_min: int = 0) -> Batch:
    """One window of items an hour apart, left-padded ones included."""
    first = next((place for place, item in enumerate(items) if item), 0)
    times = [(place - first + 1) * HOUR_MS if item else 0 for place, item in enumerate(items)]
    floats = [float(item) if item else float("nan") for item in items]
    return serving_batch(
        {
            "items": torch.tensor([items]),
            "event_types": torch.tensor([[1 if item else 0 for item in items]]),
            "timestamps_ms": torch.tensor([times]),
            "values": torch.tensor([floats]),
            "durations_s": torch.tensor([floats]),
            "request_time_ms": torch.tensor([request_ms]),
            "request_tz_offset_min": torch.tensor([offset_min]),
        }
    )


@torch.inference_mode()
def encode(built: SequenceModel, window: Batch, num_queries: int = 1) -> Tensor:
    """Encode without gradients."""
    return built.encode(window, num_queries)


@torch.inference_mode()
def copy_bonus(built: SequenceModel, window: Batch) -> Tensor:
    """Return what each item's own past adds to the last query's score, (num_items + 1,)."""
    copy = built(window, 1).copy
    assert copy is not None
    return torch.zeros(NUM_ITEMS + 1).scatter_add(0, window.items[0], copy[0, 0])


@pytest.mark.parametrize("name", CAUSAL)
def test_a_later_event_changes_no_earlier_query(name: str) -> None:
    """Causality: position 2 must not know what position 3 holds, or training sees its answer."""
    built = model(FAMILIES[name])
    before = encode(built, batch([1, 2, 3, 4]), 4)[:, :2]
    after = encode(built, batch([1, 2, 9, 8]), 4)[:, :2]
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_changes_no_score(name: str) -> None:
    """Batches pad to their longest window; the service pads to window_len."""
    built = model(FAMILIES[name])
    padded, bare = batch([0, 0, 0, 1, 2, 3]), batch([1, 2, 3])
    torch.testing.assert_close(encode(built, padded), encode(built, bare), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_the_last_position_alone_equals_the_last_of_all(name: str) -> None:
    """Serving computes one query; training all of them."""
    built = model(FAMILIES[name])
    window = batch([1, 2, 3, 4, 5])
    torch.testing.assert_close(encode(built, window, 1), encode(built, window, 5)[:, -1:])


@pytest.mark.parametrize("name", FAMILIES)
def test_an_empty_window_gives_a_finite_query(name: str) -> None:
    """The mask is finite, so a row without keys is no NaN."""
    assert torch.isfinite(encode(model(FAMILIES[name]), batch([0, 0, 0]))).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_has_a_zero_item_vector(name: str) -> None:
    """Row 0 of the item matrix is unused and scores 0, whatever the head."""
    assert model(FAMILIES[name]).item_vectors()[0].abs().sum().item() == 0.0


def test_rotary_positions_count_from_the_query_alone() -> None:
    """Two neighbours are as far apart early in a window as late: with one block, one query."""
    config = replace(CONFIG, positions="rotary", time_gaps=False, request_time="unknown")
    built = model(config)
    window = batch([1, 2, 1, 2])
    first, last = encode(built, window, 4)[0, 1], encode(built, batch([1, 2]))[0, 0]
    torch.testing.assert_close(first, last)
    swapped = encode(built, batch([2, 1]))[0, 0]
    assert not torch.allclose(last, swapped)
    order = encode(built, batch([3, 1, 2]))[0, 0]
    assert not torch.allclose(order, encode(built, batch([1, 3, 2]))[0, 0])


def test_without_rotation_the_order_of_earlier_events_is_lost() -> None:
    """What the rotary test shows is the rotation's doing: without angles two orders are one."""
    config = replace(
        CONFIG, positions="rotary", time_gaps=False, request_time="unknown", num_blocks=1
    )
    built = model(config)
    for module in built.modules():
        if isinstance(module, Rotary):
            module.cos.fill_(1.0)
            module.sin.zero_()
    torch.testing.assert_close(encode(built, batch([3, 1, 2])), encode(built, batch([1, 3, 2])))


def test_a_filled_mask_sees_both_sides() -> None:
    """BERT4Rec's query is a mask after the newest event, and every event reaches it."""
    built = model(FAMILIES["bert4rec"])
    first = encode(built, batch([1, 2, 3]))
    assert not torch.allclose(first, encode(built, batch([4, 2, 3])))
    assert not torch.allclose(first, encode(built, batch([1, 2, 4])))


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


COPYING = replace(CONFIG, copy=True, copy_heads=2)


def test_only_items_of_the_window_get_a_copy_bonus() -> None:
    """An item without a past has nothing to copy, padding least of all."""
    bonus = copy_bonus(model(COPYING), batch([0, 2, 5, 2]))
    assert (bonus != 0).nonzero().flatten().tolist() == [2, 5]


def test_a_copy_bonus_is_the_log_of_one_plus_the_weight_of_the_past() -> None:
    """With neutral tables and one head every event weighs e^(8 base): log(1 + 2 of it) for two."""
    torch.manual_seed(0)
    built = SequenceModel(replace(COPYING, copy_heads=1), facts()).eval()
    head = built.copy_head
    assert isinstance(head, CopyHead)
    with torch.no_grad():
        head.query.weight.zero_()
        head.base.fill_(-1.0 / BIAS_GAIN)
        head.seen.fill_(0.25)
    bonus = copy_bonus(built, batch([2, 5, 2, 7]))
    one, two = np.log(1 + np.exp(-1.0)), np.log(1 + 2 * np.exp(-1.0))
    assert bonus[2].item() == pytest.approx(0.25 + two, abs=1e-5)
    assert bonus[5].item() == pytest.approx(0.25 + one, abs=1e-5)


def test_a_copy_bonus_knows_what_followed_the_present_item_before() -> None:
    """After 3 came 8, now 3 is there again: 8 is lifted by e to the liking, 5 is not."""
    torch.manual_seed(0)
    built = SequenceModel(replace(COPYING, copy_heads=1), facts()).eval()
    head = built.copy_head
    assert isinstance(head, CopyHead)
    with torch.no_grad():
        head.query.weight.zero_()
        head.follows.fill_(2.0 / BIAS_GAIN)
    bonus = copy_bonus(built, batch([3, 8, 5, 3]))
    start = BIAS_GAIN * head.base[0].item()
    assert bonus[8].item() == pytest.approx(np.log1p(np.exp(start + 2.0)), abs=1e-5)
    assert bonus[5].item() == pytest.approx(np.log1p(np.exp(start)), abs=1e-5)


def test_without_heads_every_seen_item_gets_the_one_learned_number() -> None:
    """However often an item came, and nothing for the others."""
    built = SequenceModel(replace(COPYING, copy_heads=0), facts()).eval()
    with torch.no_grad():
        assert isinstance(built.copy_head, SeenBias)
        built.copy_head.seen.fill_(-7.0)
    bonus = copy_bonus(built, batch([0, 2, 5, 2]))
    assert bonus.tolist() == pytest.approx([0, 0, -7, 0, 0, -7, 0, 0, 0, 0])


def test_both_ways_the_last_known_event_is_the_one_before() -> None:
    """A masked event's own time is the one asked about: its gap would always be 0."""
    window = batch([0, 4, 5, 6])
    first, second, third = window.timestamps_ms[0, 1:].tolist()
    assert last_times(window, both_ways=False).tolist() == [[0, first, second, third]]
    assert last_times(window, both_ways=True).tolist() == [[0, first, first, second]]
