"""Synthetic bundles: the default time-aware model with random weights over catalogues of any size.

The model, its graph, the item matrix and the golden windows are made by the project's own classes
and export. The vectors of random items would be noise, which no catalogue looks like, so items lie
around centres: `CLUSTER_SIZE` of them at a cosine of about .82 to each, in random order. A bundle
is kept in a folder named by all that made it, the sources of the model and the export included.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.serving import users
from benchmarks.serving.catalogue import (
    CLUSTER_SIZE,
    MAX_PRICE,
    SEED,
    Spec,
    category,
    clusters,
    item_id,
)
from benchmarks.serving.processes import ROOT
from benchmarks.serving.requests import BenchmarkFailed
from service.contract import bundle as contract
from service.contract.events import EVENT_TYPES
from service.contract.features import Float32s, RequestPoint, Window, encode_windows
from service.contract.vocabulary import Vocabulary, id_crc, item_hash
from training import export, item_index
from training.config import RunConfig, config_to_dict, load_run_config
from training.data import EventTable
from training.items import ItemFacts
from training.model.sequence_model import SequenceModel
from training.onnx_graph import ONNX_OPSET
from training.scorers import OnnxScorer, TorchScorer

PRESET = "time"
# Of the noise around a centre, to the centre's own length: the cosine is 1 / sqrt(1 + .7 ** 2).
NOISE = 0.7
NUM_POPULAR, NUM_POPULAR_PER_HOUR = 1_000, 50
NUM_GOLDEN_USERS = 5
START_MS, STEP_MS = 1_750_000_000_000, 3_600_000
WEIGHTS_FILE, SPEC_FILE = "model.pt", "spec.json"


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle on disk, and beside it, in `folder`, the same model's weights for torch."""

    spec: Spec
    folder: Path

    @property
    def bundle(self) -> Path:
        """Return the bundle's own folder."""
        return self.folder / "bundle"


def ensure_bundle(spec: Spec, cache: Path) -> Made:
    """Return the bundle of a spec, made now if the cache has none that the same sources made.

    One that other sources made is removed: a million items take most of a gigabyte.
    """
    name = f"w{spec.window_len}-{spec.num_items}"
    folder = cache / f"{name}-{_fingerprint()}"
    made = Made(spec, folder)
    if folder.is_dir():
        return made
    print(f"making a bundle of {spec.num_items:,} items, window {spec.window_len}", flush=True)
    for older in cache.glob(f"{name}-*"):
        shutil.rmtree(older)
    aside = folder.with_suffix(".writing")
    (aside / "bundle").mkdir(parents=True)
    # The exporter tells on every run which packages it can do without.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    _write(spec, aside)
    aside.rename(folder)
    return made


def load_model(folder: Path) -> SequenceModel:
    """Return the model whose bundle is beside it, in evaluation mode."""
    spec = Spec(**json.loads((folder / SPEC_FILE).read_text("utf-8")))
    model = SequenceModel(_config(spec).model, ItemFacts.unknown(spec.num_items))
    model.load_state_dict(torch.load(folder / WEIGHTS_FILE, weights_only=True))
    return model.eval()


def _fingerprint() -> str:
    """Return what stands for the sources that decide what a bundle is, 10 characters."""
    sources = [
        *sorted((ROOT / "training").rglob("*.py")),
        *sorted((ROOT / "training").rglob("*.toml")),
    ]
    sources += [*sorted((ROOT / "service" / "contract").rglob("*.py")), Path(__file__)]
    sources += [Path(__file__).with_name(name) for name in ("catalogue.py", "users.py")]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def _config(spec: Spec) -> RunConfig:
    return load_run_config(PRESET, None, [f"model.window_len={spec.window_len}"])


def _model(spec: Spec) -> SequenceModel:
    torch.manual_seed(SEED)
    model = SequenceModel(_config(spec).model, ItemFacts.unknown(spec.num_items)).eval()
    weight = model.items.identity.weight
    with torch.no_grad():
        length = weight[1:].norm(dim=1).mean()
        weight[1:] = torch.from_numpy(clustered_vectors(spec.num_items, weight.shape[1])) * length
    return model


def clustered_vectors(num_items: int, dim: int) -> Float32s:
    """Return unit vectors around random centres, (num_items, dim)."""
    rng = np.random.default_rng(SEED)
    vectors = rng.standard_normal((num_items, dim), np.float32)
    vectors *= NOISE / np.sqrt(dim)
    members = clusters(num_items) - 1
    centres = rng.standard_normal((len(members), dim), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors[members.ravel()] += np.repeat(centres, CLUSTER_SIZE, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _write(spec: Spec, folder: Path) -> None:
    """Write the bundle and the weights; everything that the export writes, from the same calls."""
    model, bundle = _model(spec), folder / "bundle"
    torch.save(model.state_dict(), folder / WEIGHTS_FILE)
    document = {"window_len": spec.window_len, "num_items": spec.num_items}
    (folder / SPEC_FILE).write_text(json.dumps(document), "utf-8")
    export.write_encoder(export.encoder_bytes(model), bundle)
    matrix = export.item_matrix(model)
    np.save(bundle / contract.ITEM_MATRIX_FILE, matrix)
    parity = _write_golden(spec, model, matrix, bundle)
    _write_items(spec, bundle)
    _write_popularity(spec, bundle)
    _write_manifest(spec, model, bundle, parity, _write_item_index(spec, bundle, matrix))


def _write_item_index(spec: Spec, bundle: Path, matrix: Float32s) -> contract.ItemIndexSpec | None:
    """Write the index, judged as by an export on windows of users; not those that are measured."""
    if spec.num_items < item_index.MIN_ITEMS:
        return None
    people = users.draw(spec, item_index.NUM_QUERIES, spec.window_len, seed=SEED)
    windows = [people.window(user) for user in range(len(people))]
    points = [RequestPoint(int(last)) for last in people.times_ms[:, -1] + STEP_MS]
    arrays = encode_windows(windows, points, spec.window_len)
    queries = OnnxScorer(bundle / contract.ENCODER_FILE, matrix).queries(arrays)
    found = item_index.write_index_of(matrix, queries, bundle)
    if found is None:
        raise BenchmarkFailed("no index finds enough of the ten best; see the log")
    return found


def _write_golden(spec: Spec, model: SequenceModel, matrix: Float32s, bundle: Path) -> float:
    events = _golden_events(spec)
    rows = events.user_starts[1:] - 1
    golden = export.golden_windows(events, rows, spec.window_len)
    expected = TorchScorer(model).score(golden)
    scored = OnnxScorer(bundle / contract.ENCODER_FILE, matrix).score(golden)
    difference = float(np.abs(expected - scored).max())
    if not difference < contract.GOLDEN_TOLERANCE:
        raise BenchmarkFailed(f"torch and ONNX Runtime differ by {difference:.2e}")
    expected[:, 0] = 0.0
    named = {name: golden[name] for name in export.encoder_inputs(model.config)}
    named[contract.GOLDEN_SCORES] = expected
    np.savez(bundle / contract.GOLDEN_FILE, **named)  # type: ignore[arg-type]  # arrays by name
    return difference


def _golden_events(spec: Spec) -> EventTable:
    """Return a few users with full windows."""
    length = spec.window_len + 1
    count = NUM_GOLDEN_USERS * length
    unknown = np.full(count, np.nan, np.float32)
    window = Window(
        items=np.random.default_rng(SEED).integers(1, spec.num_items + 1, count),
        event_types=np.ones(count, np.int64),
        timestamps_ms=START_MS + STEP_MS * np.arange(count),
        tz_offsets_min=np.zeros(count, np.int64),
        values=unknown, durations_s=unknown, lats=unknown, lons=unknown,
    )  # fmt: skip
    return EventTable(
        users=np.repeat(np.arange(NUM_GOLDEN_USERS), length),
        window=window,
        user_starts=np.arange(NUM_GOLDEN_USERS + 1) * length,
        user_ids=tuple(f"golden-{user}" for user in range(NUM_GOLDEN_USERS)),
        items=Vocabulary(item_id(index) for index in range(1, spec.num_items + 1)),
        event_types=Vocabulary(EVENT_TYPES),
        knows_offsets=False,
    )


def _write_items(spec: Spec, bundle: Path) -> None:
    """Write the items: a title, one of the categories and a price each."""
    indices = range(1, spec.num_items + 1)
    prices = np.random.default_rng(SEED).integers(1, MAX_PRICE + 1, spec.num_items)
    nothing = [None] * spec.num_items
    table = pa.table(
        {
            "item_index": pa.array(indices, pa.int32()),
            "item_id": pa.array([item_id(index) for index in indices], pa.string()),
            "title": pa.array([f"Item number {index}" for index in indices], pa.string()),
            "categories": pa.array([[category(i)] for i in indices], pa.list_(pa.string())),
            "lat": pa.array(nothing, pa.float64()),
            "lon": pa.array(nothing, pa.float64()),
            "attributes": pa.array([f'{{"price": {price}}}' for price in prices], pa.string()),
            "opening_hours": pa.array(nothing, pa.string()),
            "released_at_ms": pa.array(nothing, pa.int64()),
            "num_events": pa.array([1] * spec.num_items, pa.int64()),
            contract.HASH_COLUMN: pa.array(
                [item_hash(item_id(index)) for index in indices], pa.uint64()
            ),
            contract.CRC_COLUMN: pa.array([id_crc(item_id(i)) for i in indices], pa.uint32()),
        }
    )
    pq.write_table(table, bundle / contract.ITEMS_FILE, compression="zstd")


def _write_popularity(spec: Spec, bundle: Path) -> None:
    rng = np.random.default_rng(SEED)
    scopes = [("overall", 0, NUM_POPULAR)]
    scopes += [("hour", hour, NUM_POPULAR_PER_HOUR) for hour in range(24)]
    rows = [
        (scope, key, int(index), float(count - place))
        for scope, key, count in scopes
        for place, index in enumerate(rng.permutation(spec.num_items)[:count] + 1)
    ]
    columns = list(zip(*rows, strict=True))
    names = ("scope", "key", "item_index", "weight")
    kinds = (pa.string(), pa.int64(), pa.int32(), pa.float64())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    table = pa.table(dict(zip(names, arrays, strict=True)))
    pq.write_table(table, bundle / contract.POPULARITY_FILE, compression="zstd")


def _write_manifest(
    spec: Spec,
    model: SequenceModel,
    bundle: Path,
    parity: float,
    index: contract.ItemIndexSpec | None,
) -> None:
    config = _config(spec)
    files = sorted(path.name for path in bundle.iterdir())
    manifest = contract.Manifest(
        schema_version=contract.SchemaVersion(
            major=contract.SCHEMA_MAJOR, minor=contract.SCHEMA_MINOR
        ),
        bundle_version=contract.UNNAMED_VERSION,
        name=f"synthetic-{spec.num_items}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model_family=config.model.family,
        model_config_used=config_to_dict(config),
        num_items=spec.num_items,
        event_types=EVENT_TYPES,
        features=contract.FeatureSpec(
            window_len=spec.window_len,
            dim=model.item_vectors().shape[1],
            inputs=export.encoder_inputs(config.model),
            outputs=export.encoder_outputs(model),
            uses_request_time=config.model.request_time == "known",
            knows_offsets=False,
        ),
        exclude_seen="none",
        repeat_share=0.5,
        onnx_opset=ONNX_OPSET,
        parity_max_abs=parity,
        data_sha256="0" * 64,
        files={name: contract.file_sha256(bundle / name) for name in files},
        metrics=(),
        library_versions={
            name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")
        },
        item_index=index,
    )
    named = manifest.model_copy(update={"bundle_version": contract.content_version(manifest)})
    text = named.model_dump_json(indent=2) + "\n"
    (bundle / contract.MANIFEST_FILE).write_text(text, "utf-8")
