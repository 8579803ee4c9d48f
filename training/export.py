"""Export: ONNX encoder, item matrix, items, popularity, golden windows and manifest.

A bundle is written aside, checked by loading it back, and renamed.
"""

import logging
import shutil
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from service.contract import bundle as contract
from service.contract.features import (
    WINDOW_INPUTS,
    Arrays,
    Float32s,
    RequestPoint,
    Window,
    encode_windows,
)
from service.contract.vocabulary import id_crc, item_hash
from training.baselines import item_counts
from training.config import TrainingError, config_to_dict
from training.data import ITEM_SCHEMA, MS_PER_HOUR, EventTable, local_hours, read_items
from training.dataset import past_window
from training.evaluate import headline_rule
from training.explaining import MIN_TABLE_BYTES, write_attention, write_row_parts
from training.item_index import write_item_index
from training.model.batch import serving_batch
from training.model.sequence_model import SequenceModel
from training.model.time import same_until
from training.model_config import ModelConfig
from training.onnx_graph import ONNX_OPSET, export_of_windows, graph_bytes
from training.runs import LoadedRun, load_run, measure
from training.scorers import OnnxScorer, TorchScorer, copies

POPULAR_PER_HOUR = 200
GOLDEN_CASES = 5

log = logging.getLogger(__name__)


class ServingEncoder(nn.Module):
    """The graph that is served: raw window and request arrays in, query vector and copies out.

    The item table is taken once, here: summed from categories and places inside the graph, it
    would be made anew for the whole catalogue on every request.
    """

    table: Tensor

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("table", model.items().detach().clone())
        self.inputs = encoder_inputs(model.config)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Return what `encoder_outputs` names, of the last position.

        It is the query vector (batch, out_dim), copies (batch, window), and until when (batch,) a
        request finds the same. `arrays` are those that `encoder_inputs` names, in its order.
        """
        batch = serving_batch(dict(zip(self.inputs, arrays, strict=True)))
        # Not by an index, which the exporter turns into the slower GatherND.
        vectors = functional.embedding(batch.items, self.table)
        output = self.model.read(batch, self.table, vectors, num_queries=1)
        found = [self.model.query(output)[:, 0]]
        if copies(self.model) and output.copy is not None:
            found.append(output.copy[:, 0])
        if lasts(self.model):
            found.append(same_until(batch))
        return tuple(found)


# Always taken, so that a client may always send them.
BASIC_INPUTS = ("items", "timestamps_ms", "request_time_ms", "request_tz_offset_min")


def encoder_inputs(config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the contract's arrays that a model's graph takes."""
    hours = config.copy and config.request_time == "known"
    distances = config.places and getattr(config, "distances", False)
    more = {
        "event_types": config.event_types,
        "tz_offsets_min": hours,
        "values": config.values,
        "durations_s": config.durations,
        "lats": distances,
        "lons": distances,
    }
    return (*BASIC_INPUTS, *(name for name, taken in more.items() if taken))


def encoder_outputs(model: SequenceModel) -> tuple[str, ...]:
    """Return the names of what a model's graph gives."""
    more = {contract.COPY_OUTPUT: copies(model), contract.UNTIL_OUTPUT: lasts(model)}
    return (contract.QUERY_OUTPUT, *(name for name, given in more.items() if given))


def lasts(model: SequenceModel) -> bool:
    """Return whether the graph says how long its answer stays the same.

    Both ways, the request stands among the events, and their gaps to it are taken from each side.
    """
    return model.config.request_time == "known" and not model.bidirectional


def export_bundle(run: Path, out: Path) -> tuple[Path, contract.Manifest]:
    """Write `out`/<version>/ and name it in `out`/CURRENT; returns the bundle and its manifest.

    Raises TrainingError when torch and ONNX Runtime disagree by GOLDEN_TOLERANCE or more.
    """
    loaded = load_run(run)
    out.mkdir(parents=True, exist_ok=True)
    aside = out / ".writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    parity = _write_files(loaded, aside)
    index, text = write_item_index(loaded, aside), _write_texts(loaded, aside)
    manifest = _manifest(loaded, aside, parity, index, text)
    document = manifest.model_dump_json(indent=2) + "\n"
    (aside / contract.MANIFEST_FILE).write_text(document, encoding="utf-8")
    contract.verify_files(aside, contract.read_manifest(aside))
    final = out / manifest.bundle_version
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    pointer = out / (contract.CURRENT_FILE + ".writing")
    pointer.write_text(manifest.bundle_version + "\n", encoding="utf-8")
    pointer.replace(out / contract.CURRENT_FILE)
    return final, manifest


def encoder_bytes(model: SequenceModel) -> bytes:
    """Return the serialised ONNX encoder; batch and window length are free."""
    encoder, outputs = ServingEncoder(model), encoder_outputs(model)
    return graph_bytes(export_of_windows(encoder, encoder.inputs, model.config.window_len, outputs))


def item_matrix(model: SequenceModel) -> Float32s:
    """Return the item vectors, (num_items + 1, dim) float32, row 0 zero."""
    with torch.inference_mode():
        matrix: Float32s = model.item_vectors().numpy().astype(np.float32)
    return matrix


def onnx_scorer(loaded: LoadedRun) -> OnnxScorer:
    """Return the scorer that runs a run's exported encoder, without writing it to disk."""
    return OnnxScorer(encoder_bytes(loaded.model), item_matrix(loaded.model))


def golden_windows(events: EventTable, rows: NDArray[np.int64], window_len: int) -> Arrays:
    """Return encoded windows that try the edges: empty, one event, full, over-long, real ones."""
    long_window = past_window(events, int(rows[0]), window_len)
    pieces = [Window.empty(), long_window.select(slice(0, 1)), _over_long(long_window, window_len)]
    pieces += [past_window(events, int(row), window_len) for row in rows[:GOLDEN_CASES]]
    lasts = [int(w.timestamps_ms[-1]) if len(w) else 0 for w in pieces]
    # The newest case asks without a time, the others an hour after their last event, at UTC+2.
    points = [RequestPoint(last + MS_PER_HOUR, 120) for last in lasts[:-1]] + [RequestPoint()]
    return encode_windows(pieces, points, window_len)


def _over_long(window: Window, window_len: int) -> Window:
    times = -(-(window_len + 7) // max(1, len(window)))
    columns = {name: np.tile(getattr(window, name), times) for name in WINDOW_INPUTS}
    columns["timestamps_ms"] = np.sort(columns["timestamps_ms"])
    return Window(**columns)


def _write_files(loaded: LoadedRun, folder: Path) -> float:
    """Write every file but the manifest; returns the largest difference of torch and ONNX."""
    model, events = loaded.model, loaded.inputs.events
    encoder = encoder_bytes(model)
    write_encoder(encoder, folder)
    matrix = item_matrix(model)
    np.save(folder / contract.ITEM_MATRIX_FILE, matrix)
    longest = np.argsort(-np.diff(events.user_starts), kind="stable")
    rows = events.user_starts[1:][longest] - 1
    golden = golden_windows(events, rows, model.config.window_len)
    expected = TorchScorer(model).score(golden)
    scored = OnnxScorer(folder / contract.ENCODER_FILE, matrix).score(golden)
    difference = float(np.abs(expected - scored).max())
    if not difference < contract.GOLDEN_TOLERANCE:
        raise TrainingError(
            f"torch and ONNX Runtime differ by {difference:.2e} on the golden windows, allowed "
            f"is {contract.GOLDEN_TOLERANCE:.0e}; no bundle was written"
        )
    expected[:, 0] = 0.0
    names = encoder_inputs(model.config)
    write_attention(model, names, encoder, golden, folder)
    write_row_parts(model, folder)
    named = {name: golden[name] for name in names} | {contract.GOLDEN_SCORES: expected}
    np.savez(folder / contract.GOLDEN_FILE, **named)  # type: ignore[arg-type]  # arrays by name
    _write_items(loaded, folder)
    _write_popularity(loaded, folder)
    return difference


def write_encoder(encoder: bytes, folder: Path) -> None:
    """Write the graph, and its large tables beside it, which processes then map and share.

    Inside the graph they are copied into the memory of each, and parsed first.
    """
    path = folder / contract.ENCODER_FILE
    proto = onnx.ModelProto.FromString(encoder)
    if all(tensor.ByteSize() < MIN_TABLE_BYTES for tensor in proto.graph.initializer):
        path.write_bytes(encoder)
        return
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        location=contract.ENCODER_TABLES_FILE,
        size_threshold=MIN_TABLE_BYTES,
    )
    # The library writes it for its owner alone.
    shutil.copymode(path, folder / contract.ENCODER_TABLES_FILE)


class _NewItems(nn.Module):
    """Rows of the item matrix of whitened text vectors: projected, as the served head has items."""

    def __init__(self, projection: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.head = head

    def forward(self, whitened: Tensor) -> Tensor:
        """Return (texts, out_dim) of (texts, text_dim)."""
        rows: Tensor = self.head.new_items(self.projection(whitened))  # type: ignore[operator]  # a head's method
        return rows


def _write_texts(loaded: LoadedRun, folder: Path) -> contract.TextSpec | None:
    """Write what reads new items' texts, if the run learned from texts."""
    model, texts = loaded.model, loaded.model.items.texts
    if texts is None:
        return None
    from training.text.export import write_text_encoder  # noqa: PLC0415  # an extra of its own

    return write_text_encoder(
        texts.serving_encoder(),
        texts.whitening,
        _NewItems(texts.projection, model.heads[model.config.tasks[0]]),
        loaded.inputs.facts.texts[1:],
        folder,
    )


def _write_items(loaded: LoadedRun, folder: Path) -> None:
    events = loaded.inputs.events
    rows = {row["item_id"]: row for row in read_items(loaded.inputs.dataset_path).to_pylist()}
    ordered = [rows[item_id] for item_id in events.items]
    counts = item_counts(events, np.ones(len(events), bool))[1:]
    described = pa.Table.from_pylist(ordered, schema=ITEM_SCHEMA).select(contract.ITEM_COLUMNS)
    indices = pa.array(range(1, len(ordered) + 1), pa.int32())
    table = described.add_column(0, "item_index", indices)
    table = table.append_column("num_events", pa.array(counts, pa.int64()))
    hashes = pa.array([item_hash(item_id) for item_id in events.items], pa.uint64())
    table = table.append_column(contract.HASH_COLUMN, hashes)
    crcs = pa.array([id_crc(item_id) for item_id in events.items], pa.uint32())
    table = table.append_column(contract.CRC_COLUMN, crcs)
    pq.write_table(table, folder / contract.ITEMS_FILE, compression="zstd")


def _write_popularity(loaded: LoadedRun, folder: Path) -> None:
    """Write event counts by scope: overall and, where times are known, by local hour of day."""
    events = loaded.inputs.events
    everything = np.ones(len(events), bool)
    scopes = [("overall", 0, item_counts(events, everything), events.num_items)]
    window = events.window
    hours = local_hours(window.timestamps_ms, window.tz_offsets_min)
    if loaded.inputs.info.time_axis == "time":
        scopes += [
            ("hour", hour, item_counts(events, hours == hour), POPULAR_PER_HOUR)
            for hour in range(24)
        ]
    parts = []
    for scope, key, counts, limit in scopes:
        best = np.argsort(-counts, kind="stable")[:limit]
        best = best[counts[best] > 0]
        parts.append(
            pa.table(
                {
                    "scope": pa.array([scope] * len(best), pa.string()),
                    "key": pa.array([key] * len(best), pa.int64()),
                    "item_index": pa.array(best, pa.int32()),
                    "weight": pa.array(counts[best], pa.float64()),
                }
            )
        )
    table = pa.concat_tables(parts)
    pq.write_table(table, folder / contract.POPULARITY_FILE, compression="zstd")


def _manifest(
    loaded: LoadedRun,
    folder: Path,
    parity: float,
    index: contract.ItemIndexSpec | None,
    text: contract.TextSpec | None,
) -> contract.Manifest:
    config, inputs, model = loaded.config, loaded.inputs, loaded.model
    names = [name for name in contract.ALL_FILES if (folder / name).is_file()]
    files = {name: contract.file_sha256(folder / name) for name in names}
    rule = headline_rule(inputs.info.repeat_share)
    manifest = contract.Manifest(
        schema_version=contract.SchemaVersion(
            major=contract.SCHEMA_MAJOR, minor=contract.SCHEMA_MINOR
        ),
        bundle_version=contract.UNNAMED_VERSION,
        name=inputs.info.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model_family=config.model.family,
        model_config_used=config_to_dict(config),
        num_items=inputs.events.num_items,
        event_types=tuple(inputs.events.event_types),
        features=contract.FeatureSpec(
            window_len=config.model.window_len,
            dim=model.item_vectors().shape[1],
            inputs=encoder_inputs(config.model),
            outputs=encoder_outputs(model),
            uses_request_time=config.model.request_time == "known",
            knows_offsets=inputs.events.knows_offsets,
        ),
        exclude_seen="all" if rule == "removed" else "none",
        repeat_share=inputs.info.repeat_share,
        onnx_opset=ONNX_OPSET,
        parity_max_abs=parity,
        data_sha256=inputs.info.data_sha256,
        files=files,
        metrics=(_metric_report(loaded),),
        library_versions={
            name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")
        },
        licence_notice=inputs.info.licence_notice,
        item_index=index,
        text=text,
    )
    return manifest.model_copy(update={"bundle_version": contract.content_version(manifest)})


def _metric_report(loaded: LoadedRun) -> contract.MetricReport:
    """Measure validation again, with baselines: a bundle says what it was chosen by."""
    request_time = loaded.config.model.request_time
    report = measure(loaded, "validation", request_time, TorchScorer(loaded.model))
    return contract.MetricReport(
        protocol=report["protocol"],
        split="validation",
        split_sha256=report["split_sha256"],
        request_time=request_time,
        seen_items=report["seen_items"],
        results=report["results"],
    )
