"""Export: parity, the bundle's files and what they say."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from service.bundle_loader import load_bundle
from service.contract import bundle as contract
from service.contract.errors import BundleMismatch
from service.contract.features import RequestPoint, Window, encode_windows
from service.errors import BundleRefused
from tests.builders import make_bundle
from tests.training import builders
from training.dataset import past_window
from training.explaining import MIN_TABLE_BYTES
from training.export import (
    encoder_bytes,
    export_bundle,
    item_matrix,
    write_encoder,
)
from training.item_index import write_item_index
from training.items import ItemFacts
from training.model.copy_head import CopyHead
from training.model.sequence_model import SequenceModel
from training.runs import LoadedRun, load_run, read_inputs
from training.scorers import OnnxScorer, TorchScorer
from training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained tiny run."""
    folder = tmp_path_factory.mktemp("export")
    dataset, _ = builders.cyclic_dataset(folder)
    config = builders.tiny_config()
    train(read_inputs(dataset, config), config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedRun:
    """The run, read back."""
    return load_run(run)


@pytest.fixture(scope="module")
def onnx_scorer(loaded: LoadedRun) -> OnnxScorer:
    """Its exported encoder."""
    return OnnxScorer(encoder_bytes(loaded.model), item_matrix(loaded.model))


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the run, to be read only."""
    return export_bundle(run, tmp_path_factory.mktemp("bundles"))[0]


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """The bundle, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / exported.name))


@pytest.mark.parametrize("window_len", [1, 3, 6])
def test_torch_and_onnx_agree_on_real_windows(
    loaded: LoadedRun, onnx_scorer: OnnxScorer, window_len: int
) -> None:
    """Empty, one event, full and over-long, at any padded length: at most 1e-4 apart."""
    events = loaded.inputs.events
    windows = [Window.empty(), past_window(events, 1, 9), past_window(events, 8, 9)]
    windows += [past_window(events, int(row), 9) for row in loaded.inputs.split.test]
    points = [RequestPoint(builders.START_MS + 10**9, 330), RequestPoint()] * len(windows)
    arrays = encode_windows(windows, points[: len(windows)], window_len)
    difference = np.abs(TorchScorer(loaded.model).score(arrays) - onnx_scorer.score(arrays)).max()
    assert difference < contract.GOLDEN_TOLERANCE


def test_hours_change_at_the_same_millisecond_in_torch_and_onnx() -> None:
    """Whole milliseconds stay whole: float32 would round an hour's last minute up to the next."""
    torch.manual_seed(5)
    model = SequenceModel(builders.tiny_config().model, ItemFacts.unknown(12)).eval()
    scorer = OnnxScorer(encoder_bytes(model), item_matrix(model))
    hour = builders.START_MS // 3_600_000 * 3_600_000 + 5 * 24 * 3_600_000
    points = [RequestPoint(hour + apart) for apart in (-30_000, -1, 0, 30_000)]
    arrays = encode_windows([window(3)] * len(points), points, 6)
    difference = np.abs(TorchScorer(model).score(arrays) - scorer.score(arrays)).max()
    assert difference < contract.GOLDEN_TOLERANCE


def test_a_bundle_verifies_and_says_what_it_is(exported: Path) -> None:
    """What the manifest states is what the files hold."""
    path, manifest = exported, contract.read_manifest(exported)
    assert contract.resolve_bundle(exported.parent) == path
    contract.verify_files(path, manifest)
    matrix = np.load(path / contract.ITEM_MATRIX_FILE)
    items = pq.read_table(path / contract.ITEMS_FILE).to_pylist()
    assert matrix.shape == (manifest.num_items + 1, manifest.features.dim)
    assert [row["item_index"] for row in items] == list(range(1, manifest.num_items + 1))
    assert manifest.parity_max_abs < contract.GOLDEN_TOLERANCE
    assert manifest.exclude_seen == "all"
    assert {"model", "popularity"} <= set(manifest.metrics[0].results)


def test_popularity_is_counted_by_local_hour(exported: Path) -> None:
    """The log's events all happen at one UTC hour, a day apart: one hour has rows."""
    rows = pq.read_table(exported / contract.POPULARITY_FILE).to_pylist()
    hour = builders.START_MS // 3_600_000 % 24
    assert {row["key"] for row in rows if row["scope"] == "hour"} == {hour}
    overall = [row["weight"] for row in rows if row["scope"] == "overall"]
    assert sum(overall) == 24 * 9
    assert overall == sorted(overall, reverse=True)


def test_the_same_run_exports_the_same_version(run: Path, exported: Path) -> None:
    """The version names the content, so exporting again replaces nothing that differs."""
    again, _ = export_bundle(run, exported.parent)
    assert again == exported


def test_the_graph_carries_no_path_of_the_machine_that_made_it(exported: Path) -> None:
    """The exporter notes a stack trace at every node; a bundle goes to other people."""
    graph = (exported / contract.ENCODER_FILE).read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in graph
    assert b".py" not in graph


def test_one_flipped_byte_is_refused(copied: Path) -> None:
    """The hash says which file was damaged."""
    matrix = copied / contract.ITEM_MATRIX_FILE
    data = bytearray(matrix.read_bytes())
    data[-1] ^= 1
    matrix.write_bytes(data)
    with pytest.raises(BundleMismatch, match=r"item_matrix\.npy: SHA-256"):
        contract.verify_files(copied, contract.read_manifest(copied))


def test_a_manifest_of_a_newer_schema_is_refused(copied: Path) -> None:
    """An older service must not guess at what a newer bundle means."""
    manifest = contract.read_manifest(copied)
    newer = manifest.model_copy(update={"schema_version": {"major": 1, "minor": 99}})
    (copied / contract.MANIFEST_FILE).write_text(newer.model_dump_json(warnings=False))
    with pytest.raises(BundleMismatch, match=r"schema version 1\.99, this build reads"):
        contract.read_manifest(copied)


EVERYTHING = (
    "model.event_types=true", "model.durations=true", "model.values=true", "model.categories=true",
    "model.places=true", "model.distances=true", "model.copy=true", "model.copy_heads=2",
)  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(EVERYTHING, id="ligr with every input"),
        pytest.param(("model.block=hstu",), id="hstu"),
        pytest.param(("model.positions=rotary",), id="rotary"),
        pytest.param(("model.positions=absolute",), id="absolute"),
        pytest.param(("model.block=hstu", "model.positions=absolute"), id="hstu, absolute"),
        pytest.param(("model.copy=true", "model.copy_heads=0"), id="seen alone"),
        pytest.param(
            ("model.event_types=true", "model.durations=true", 'model.tasks=["watch", "click"]'),
            id="watch",
        ),
        pytest.param(("model.family=sasrec",), id="sasrec"),
        pytest.param(("model.family=bert4rec", "model.copy=false"), id="bert4rec"),
        pytest.param(("model.family=gru", "model.depth=2"), id="gru"),
        pytest.param(("model.family=lstm", 'model.tasks=["click"]'), id="lstm, click"),
        pytest.param(("model.family=rnn",), id="rnn"),
        pytest.param(("model.family=lm", "model.weights=gpt2"), id="lm, gpt2"),
        pytest.param(("model.family=lm", "model.weights=bert", "model.time_gaps=true"), id="lm"),
        pytest.param(
            ("model.family=lm", "model.weights=bert", "model.positions=absolute"), id="lm, absolute"
        ),
    ],
)
def test_every_family_exports_and_agrees(overrides: tuple[str, ...]) -> None:
    """Batch and window length are free, whatever the body; tables are moved off their start."""
    config = builders.tiny_config(*overrides).model
    torch.manual_seed(5)
    model = SequenceModel(config, ItemFacts.unknown(12)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        model.items.identity.weight[0].zero_()
    encoder = encoder_bytes(model)
    assert_padding_changes_nothing(encoder)
    scorer = OnnxScorer(encoder, item_matrix(model))
    for length in (3, 6):
        arrays = encode_windows([Window.empty(), window(2), window(9)], POINTS, length)
        difference = np.abs(TorchScorer(model).score(arrays) - scorer.score(arrays)).max()
        assert difference < contract.GOLDEN_TOLERANCE


def assert_padding_changes_nothing(encoder: bytes) -> None:
    """A batch cut to its longest window gives what the whole batch and each window alone give.

    So that a user with few events costs few positions, whatever the model's window.
    """
    session = ort.InferenceSession(encoder, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(counts: Sequence[int], length: int) -> list[NDArray[np.float32]]:
        windows = [window(count) for count in counts]
        arrays = encode_windows(windows, POINTS[: len(counts)], length)
        found = session.run(None, {name: arrays[name] for name in names})
        # What padding is worth is 0; cut off, it is not there. Times have no window.
        missing = ((0, 0), (6 - length, 0))
        copies = [np.pad(each, missing) if each.ndim > 1 else each for each in found[1:]]
        return [found[0], *copies]

    counts = (1, 4, 2)
    whole, cut = run(counts, 6), run(counts, 4)
    alone = [run([count] * 3, count) for count in counts]
    for place, output in enumerate(whole):
        single = np.stack([found[place][row] for row, found in enumerate(alone)])
        np.testing.assert_allclose(cut[place], output, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(single, output, atol=1e-5, rtol=1e-5)


POINTS = [RequestPoint(builders.START_MS + 10**9, 330), RequestPoint(), RequestPoint(10**12)]


def window(count: int) -> Window:
    """A window of `count` events with every column known, one item coming back."""
    steps = np.arange(count)
    return Window(
        items=steps % 5 + 1,
        event_types=steps % 3 + 1,
        timestamps_ms=builders.START_MS + steps * 3_600_000,
        tz_offsets_min=np.full(count, 60),
        values=(steps % 5 + 1).astype(np.float32),
        durations_s=(steps * 10.0).astype(np.float32),
        lats=(40 + steps / 100).astype(np.float32),
        lons=np.full(count, -74, np.float32),
    )


def test_a_bundle_of_a_copying_model_is_served_with_its_bonus(tmp_path: Path) -> None:
    """Train, export, load as the service does: the service's scores are torch's, bonus included."""
    dataset, _ = builders.cyclic_dataset(tmp_path)
    config = builders.tiny_config("model.copy=true", "model.copy_heads=2", "loop.max_epochs=2")
    train(read_inputs(dataset, config), config, tmp_path / "run")
    bundle, manifest = export_bundle(tmp_path / "run", tmp_path / "bundles")
    names = (contract.QUERY_OUTPUT, contract.COPY_OUTPUT, contract.UNTIL_OUTPUT)
    assert manifest.features.outputs == names
    loaded = load_run(tmp_path / "run")
    served = load_bundle(bundle)
    arrays = encode_windows([window(4)], [RequestPoint(builders.START_MS + 10**9)], 6)
    expected = TorchScorer(loaded.model).score(arrays)
    found = served.ranker.score_batch(arrays)
    np.testing.assert_allclose(found[0, 1:], expected[0, 1:], atol=contract.GOLDEN_TOLERANCE)
    head = loaded.model.copy_head
    assert isinstance(head, CopyHead)
    with torch.no_grad():
        head.seen.add_(5.0)
    lifted = TorchScorer(loaded.model).score(arrays) - expected
    assert lifted[0, 1:5] == pytest.approx(5.0, abs=1e-3)
    assert lifted[0, 5:] == pytest.approx(0.0, abs=1e-3)


def test_the_graph_holds_the_item_table_instead_of_making_it() -> None:
    """With categories and places the table is a sum over the catalogue; a request only gathers."""
    config, num_items = builders.tiny_config(*EVERYTHING).model, 500
    facts = replace(
        ItemFacts.unknown(num_items),
        categories=np.ones(num_items, np.int64),
        category_starts=np.maximum(np.arange(num_items + 2) - 1, 0),
        num_categories=1,
    )
    model = SequenceModel(config, facts).eval()
    assert model.items.categories is not None
    graph = onnx.load_from_string(encoder_bytes(model)).graph
    assert [num_items + 1, config.dim] in [list(each.dims) for each in graph.initializer]
    # The categories' means came out as a loop over all items.
    assert not {"Loop", "Scan", "SequenceConstruct"} & {node.op_type for node in graph.node}
    assert not any("categor" in each.name for each in graph.initializer)


def test_a_large_catalogue_gets_an_index_with_its_recall(loaded: LoadedRun, copied: Path) -> None:
    """Judged on windows of the log; a small catalogue is left without."""
    assert write_item_index(loaded, copied) is None
    spec = write_item_index(loaded, copied, min_items=1)
    assert spec is not None
    assert spec.recall_at_10 >= 0.99
    assert spec.matrix_sha256 == contract.file_sha256(copied / contract.ITEM_MATRIX_FILE)
    assert (copied / contract.ITEM_INDEX_FILE).is_file()


def test_large_tables_lie_beside_the_graph_and_scores_stay(tmp_path: Path) -> None:
    """Beside it they are mapped, and shared by processes; a bundle must name their hash."""
    rows = {f"i{at}": np.array([at % 7, at % 5, at % 3], np.float32) for at in range(90_000)}
    assert 4 * 3 * len(rows) > MIN_TABLE_BYTES
    inside = make_bundle(tmp_path / "inside", item_rows=rows, item_facts={})
    encoder = (inside / contract.ENCODER_FILE).read_bytes()

    def split(folder: Path) -> None:
        write_encoder(encoder, folder)

    beside = make_bundle(tmp_path / "beside", item_rows=rows, item_facts={}, change_files=split)
    assert (beside / contract.ENCODER_FILE).stat().st_size < len(encoder) / 100
    # Its own golden scores are those of the graph that has its tables inside.
    loaded = load_bundle(beside)
    assert contract.ENCODER_TABLES_FILE in loaded.manifest.files
    tables = beside / contract.ENCODER_TABLES_FILE
    tables.write_bytes(tables.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleRefused, match=r"encoder_tables\.bin: SHA-256"):
        load_bundle(beside)
