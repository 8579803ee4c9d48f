"""Attention: of the exported graph and over HTTP, and no graph that says other than torch does."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from service.app import create_app
from service.bundle_loader import load_bundle
from service.config import Settings
from service.contract.features import RequestPoint, Window, encode_windows
from tests.builders import window
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.training import builders
from training import explaining
from training.config import TrainingError, load_run_config
from training.export import export_bundle
from training.model.sequence_model import SequenceModel
from training.model.time import BUCKETS_PER_NAT, FIRST_BUCKET, GapBias, gap_bucket
from training.off_edges import near_distance_edge, near_gap_edge, off_edges
from training.runs import read_inputs
from training.train import train

HOUR_MS = 3_600_000


def trained(folder: Path, preset: str, *overrides: str) -> Path:
    """Return a tiny run of a preset."""
    dataset, _ = builders.cyclic_dataset(folder)
    config = load_run_config(preset, None, overrides or builders.TINY)
    train(read_inputs(dataset, config), config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose attention knows gaps; its window is of six events."""
    return trained(tmp_path_factory.mktemp("attention"), "time")


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its bundle."""
    return export_bundle(run, tmp_path_factory.mktemp("bundles"))[0]


async def explained(bundle: Path, num_events: int, **settings: Any) -> dict[str, Any]:
    """Return the explanation, with attention, of a session."""
    loaded = load_bundle(bundle)
    events = [
        {
            "item_id": loaded.vocabulary.id(1 + at),
            "event_type": "view",
            "timestamp": builders.START_MS + at * HOUR_MS,
        }
        for at in range(num_events)
    ]
    body = {"events": events, "explain": True, "attention": True, "exclude_seen": "none"}
    async with client_of(create_app(Settings(**settings), bundle=loaded, **fake_stores())) as c:
        answer = await c.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["explanation"]
    return found


@pytest.mark.parametrize("num_events", [1, 4, 8])
async def test_rows_of_attention_are_shares_of_the_history(exported: Path, num_events: int) -> None:
    """As long as the history on both sides, nothing from later events, each row a whole 1."""
    found = await explained(exported, num_events)
    attention, count = np.array(found["attention"]), len(found["history"])
    assert count == min(num_events, 6)
    assert attention.shape == (2, 2, count, count)
    assert (attention >= 0).all()
    assert not np.triu(attention, 1).any()
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
    assert "attention" not in found["unknown"]


async def test_attention_is_among_the_events_that_were_examined(exported: Path) -> None:
    """Of a longer window it is the newest corner, whose rows lack what went to older events."""
    whole = await explained(exported, 6)
    part = await explained(exported, 6, explain_events=2)
    assert (len(part["history"]), part["num_events"]) == (2, 6)
    corner = np.array(whole["attention"])[:, :, -2:, -2:]
    np.testing.assert_allclose(part["attention"], corner, atol=1e-6)
    assert (np.array(part["attention"]).sum(axis=-1) < 1).all()


async def test_too_many_numbers_are_not_told(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loop has to write is bounded, and the answer says what it leaves out."""
    monkeypatch.setattr("service.explaining.MAX_NUMBERS", 2 * 2 * 4 * 4)
    assert (await explained(exported, 4))["attention"] is not None
    found = await explained(exported, 5)
    assert (found["attention"], found["unknown"]) == (None, ["attention"])


def test_padding_is_given_no_attention(exported: Path) -> None:
    """In the graph itself, of a batch of windows that are shorter than the longest."""
    graph = load_bundle(exported).explaining.attention
    assert graph is not None
    arrays = encode_windows([window(1, 2, 3)], [RequestPoint(builders.START_MS)], 6)
    found, real = graph.of(arrays), arrays["items"][0] > 0
    np.testing.assert_allclose(found[:, :, real][..., real].sum(axis=-1), 1, atol=1e-5)
    assert np.abs(found[:, :, real][..., ~real]).max() < 1e-6


RECURRENT = [each for each in builders.TINY if "num_heads" not in each and "blocks" not in each]


@pytest.mark.parametrize(("preset", "sizes"), [("gru", RECURRENT), ("hstu", builders.TINY)])
async def test_a_family_without_shares_says_so(
    tmp_path: Path, preset: str, sizes: Sequence[str]
) -> None:
    """No graph was written, and `unknown` is the reason of the null."""
    bundle = export_bundle(trained(tmp_path, preset, *sizes), tmp_path / "bundles")[0]
    found = await explained(bundle, 3)
    assert (found["attention"], found["unknown"]) == (None, ["attention"])


def test_a_graph_that_differs_in_one_gap_writes_no_bundle(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket of gaps of five days, in which the first and the last event of a window are."""
    honest = explaining.attention_model

    def changed(model: SequenceModel, inputs: tuple[str, ...]) -> onnx.ModelProto:
        other = copy.deepcopy(model)
        biases = [module for module in other.modules() if isinstance(module, GapBias)]
        assert biases
        bucket = int(gap_bucket(torch.tensor(5 * builders.DAY_MS)))
        with torch.no_grad():
            for bias in biases:
                bias.table.weight[bucket] += 0.1
        return honest(other, inputs)

    monkeypatch.setattr(explaining, "attention_model", changed)
    with pytest.raises(TrainingError, match="attention of torch and ONNX Runtime differs"):
        export_bundle(run, tmp_path)


def test_windows_are_moved_off_the_edges_of_buckets() -> None:
    """Pairs at an edge are not after it, and windows without one stay as they are."""
    edge_ms = round(np.exp((30 + FIRST_BUCKET) / BUCKETS_PER_NAT)) - 1_000
    assert near_gap_edge(np.array([edge_ms])).all()
    times = [builders.START_MS, builders.START_MS + edge_ms, builders.START_MS + 2 * edge_ms]
    windows = [window(1, 2, 3), Window.empty()]
    arrays = encode_windows(windows, [RequestPoint(times[2] + edge_ms), RequestPoint()], 6)
    arrays["timestamps_ms"][0, -3:] = times
    arrays["lats"][0, -3:], arrays["lons"][0, -3:] = [40.0, 40.0, 40.001], -74.0
    moved = off_edges(arrays)
    asked = [*moved["timestamps_ms"][0, -3:], moved["request_time_ms"][0]]
    gaps = np.array([late - early for at, late in enumerate(asked) for early in asked[:at]])
    assert (gaps > 0).all()
    assert not near_gap_edge(gaps).any()
    assert (asked[1] - asked[0]) % HOUR_MS == edge_ms % HOUR_MS
    again = off_edges(moved)
    for name, values in moved.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.isnan(moved["lats"][0, -2])


def test_no_distance_is_at_no_edge() -> None:
    """Events at one place keep it."""
    assert not near_distance_edge(np.zeros(3)).any()
