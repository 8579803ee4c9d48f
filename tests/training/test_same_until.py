"""How long an answer stays the same: until the next edge of an hour or of a gap's bucket."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from service.contract.bundle import UNTIL_OUTPUT
from service.contract.features import Arrays
from tests.training.test_model import CAUSAL, CONFIG, FAMILIES, facts, with_checkpoint
from training.export import ServingEncoder, encoder_outputs
from training.model.batch import Batch, serving_batch
from training.model.sequence_model import SequenceModel
from training.model.time import MS_PER_HOUR, gap_bucket, local_hour, local_weekday, same_until

NOW_MS = 1_700_000_123_456


def asked(times_ms: list[int], now_ms: int = NOW_MS, offset_min: int = 0) -> Batch:
    """Return a batch of one window whose events are at these times."""
    arrays = {
        "items": torch.ones((1, len(times_ms)), dtype=torch.int64),
        "timestamps_ms": torch.tensor([times_ms]),
        "request_time_ms": torch.tensor([now_ms]),
        "request_tz_offset_min": torch.tensor([offset_min]),
    }
    return serving_batch(arrays)


def until(times_ms: list[int], now_ms: int = NOW_MS, offset_min: int = 0) -> int:
    """Return until when the answer of one window stays the same."""
    return int(same_until(asked(times_ms, now_ms, offset_min))[0])


def buckets(times_ms: list[int], now_ms: int, offset_min: int) -> list[int]:
    """Return all that the network makes of the time of a request."""
    now, offset = torch.tensor(now_ms), torch.tensor(offset_min)
    gaps = gap_bucket(now - torch.tensor(times_ms)).tolist()
    return [*gaps, int(local_hour(now, offset)), int(local_weekday(now, offset))]


def test_every_bucket_stays_as_it_is_until_the_time_that_is_said() -> None:
    """Looked at in a thousand places before it, for gaps from a second to years."""
    rng = np.random.default_rng(5)
    lengths = []
    for case in range(200):
        gaps = np.exp(rng.uniform(0, 25, rng.integers(1, 6))).astype(np.int64)
        offset = int(rng.integers(-48, 57)) * 15
        times = [NOW_MS - int(gap) for gap in gaps]
        end = until(times, NOW_MS, offset)
        lengths.append(end - NOW_MS)
        before = buckets(times, NOW_MS, offset)
        for at in {NOW_MS, end - 1, *rng.integers(NOW_MS, end, 5).tolist()}:
            assert buckets(times, at, offset) == before, case
    assert np.median(lengths) > 100


def test_the_time_that_is_said_is_close_to_the_next_edge() -> None:
    """A week-old event's bucket lasts a day or two, so the hour ends first; a minute's, seconds."""
    assert (
        until([NOW_MS - 7 * 24 * MS_PER_HOUR]) == NOW_MS // MS_PER_HOUR * MS_PER_HOUR + MS_PER_HOUR
    )
    minute = [NOW_MS - 60_000]
    end = until(minute)
    assert 1_000 < end - NOW_MS < 25_000
    assert buckets(minute, end + 60, 0) != buckets(minute, NOW_MS, 0)


def test_padding_has_no_edges() -> None:
    """An empty window changes with the hour only."""
    batch = asked([0, 0, 0])
    empty = replace(batch, items=torch.zeros_like(batch.items))
    assert int(same_until(empty)[0]) == (NOW_MS // MS_PER_HOUR + 1) * MS_PER_HOUR


def test_an_event_from_after_the_request_is_waited_for() -> None:
    """A clock that is behind: the gap is none until the event's time, and a bucket after it."""
    times = [NOW_MS + 5_000]
    end = until(times)
    assert NOW_MS + 5_000 < end < NOW_MS + 10_000
    assert buckets(times, end - 1, 0) == buckets(times, NOW_MS, 0)


@pytest.mark.parametrize("now_ms", [0, NOW_MS])
def test_it_is_never_less_than_a_millisecond_after_the_request(now_ms: int) -> None:
    """Unknown times and times at an edge are right for themselves."""
    edge_ms = 1023_000  # a second less than 2**10 s
    assert until([now_ms - edge_ms], now_ms) == now_ms + 1


def test_only_models_that_can_tell_say_so() -> None:
    """Without the request's time nothing ends; both ways nothing is promised."""
    blind = replace(CONFIG, request_time="unknown", time_gaps=False)
    outputs = [
        encoder_outputs(SequenceModel(config, facts()))
        for config in (CONFIG, blind, replace(FAMILIES["bert4rec"], request_time="known"))
    ]
    assert [UNTIL_OUTPUT in names for names in outputs] == [True, False, False]


@pytest.mark.parametrize("family", CAUSAL)
def test_a_network_answers_the_same_until_then(family: str) -> None:
    """Whatever a family makes of time: its outputs at the first and the last moment are equal."""
    torch.manual_seed(3)
    config = replace(with_checkpoint(FAMILIES[family]), request_time="known")
    model = SequenceModel(config, facts()).eval()
    encoder = ServingEncoder(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    rng = np.random.default_rng(4)
    for _ in range(20):
        ages = np.sort(np.exp(rng.uniform(5, 22, 8)).astype(np.int64))[::-1]
        arrays: Arrays = {
            "items": rng.integers(1, 9, (1, 8)),
            "event_types": np.ones((1, 8), np.int64),
            "timestamps_ms": (NOW_MS - ages)[None],
            "tz_offsets_min": np.full((1, 8), 60),
            **{name: np.full((1, 8), np.nan, np.float32) for name in ("values", "durations_s")},
            "lats": np.full((1, 8), 40.7, np.float32),
            "lons": np.full((1, 8), -74.0, np.float32),
            "request_time_ms": np.array([NOW_MS]),
            "request_tz_offset_min": np.array([60]),
        }
        *first, end = outputs_of(encoder, arrays)
        *last, _ = outputs_of(encoder, arrays | {"request_time_ms": end.numpy() - 1})
        for one, other in zip(first, last, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def outputs_of(encoder: ServingEncoder, arrays: Arrays) -> tuple[torch.Tensor, ...]:
    """Return what the served graph gives."""
    with torch.no_grad():
        given: tuple[torch.Tensor, ...] = encoder(
            *(torch.from_numpy(arrays[name].copy()) for name in encoder.inputs)
        )
    return given


def test_arrays_of_a_batch_are_told_apart() -> None:
    """Each window has its own end."""
    arrays: Arrays = {
        "items": np.ones((2, 1), np.int64),
        "timestamps_ms": np.array([[NOW_MS - 60_000], [NOW_MS - 3 * MS_PER_HOUR]]),
        "request_time_ms": np.full(2, NOW_MS),
        "request_tz_offset_min": np.zeros(2, np.int64),
    }
    ends = same_until(serving_batch({k: torch.from_numpy(v) for k, v in arrays.items()}))
    assert ends.tolist() == [until([NOW_MS - 60_000]), until([NOW_MS - 3 * MS_PER_HOUR])]
