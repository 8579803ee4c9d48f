"""Valid things unless overridden: events, histories' raw material, and tiny bundles."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from service.contract import bundle as contract
from service.contract.events import Event, ItemId, UserId
from service.contract.features import Arrays, Float32s, RequestPoint, Window, encode_windows
from service.contract.vocabulary import id_crc, item_hash
from tests.fakes import NOON_MS

MS_PER_HOUR = 3_600_000
DAY_MS = 86_400_000
WINDOW_LEN = 4
DIM = 3
INPUTS = ("items", "request_time_ms")
ONNX_OPSET = 18
ONNX_IR_VERSION = 9

# Six items on two axes: a user of action films is shown action films. The third coordinate
# answers to the request's time of day, so the same window asks for others at night.
ITEM_ROWS: Mapping[str, tuple[float, float, float]] = {
    "action-1": (1.0, 0.0, 0.0),
    "action-2": (0.9, 0.1, 0.0),
    "action-3": (0.8, 0.0, 0.1),
    "drama-1": (0.0, 1.0, 0.0),
    "drama-2": (0.1, 0.9, 0.0),
    "night-1": (0.0, 0.0, 1.0),
}
# What the items say of themselves, for filters; the others say nothing.
ITEM_FACTS: Mapping[str, Mapping[str, Any]] = {
    "action-1": {"categories": ["action"], "attributes": '{"price": 5}', "opening_hours": "24/7"},
    "action-2": {"categories": ["action", "classic"], "attributes": '{"price": 15}'},
    "drama-1": {"categories": ["drama", "classic"], "lat": 48.86, "lon": 2.35},
    "drama-2": {"categories": ["drama"], "released_at_ms": NOON_MS - DAY_MS},
    "night-1": {"opening_hours": "20:00-04:00"},
}
POPULAR = ("drama-1", "action-1", "night-1")
POPULAR_AT_NOON = ("action-2", "drama-1")


def event(**overrides: Any) -> Event:
    """Return one valid event."""
    fields: dict[str, Any] = {
        "event_id": "event-1",
        "user_id": UserId("anna"),
        "item_id": ItemId("action-1"),
        "event_type": "view",
        "timestamp_ms": NOON_MS - MS_PER_HOUR,
    }
    return Event(**(fields | overrides))


def event_json(**overrides: Any) -> dict[str, Any]:
    """Return one valid event as a caller sends it."""
    body: dict[str, Any] = {
        "user_id": "anna",
        "item_id": "action-1",
        "event_type": "view",
        "timestamp": NOON_MS - MS_PER_HOUR,
    }
    return body | overrides


def manifest(**overrides: Any) -> dict[str, Any]:
    """Return a valid manifest's document, but for the files' hashes and the version."""
    document: dict[str, Any] = {
        "schema_version": {"major": contract.SCHEMA_MAJOR, "minor": contract.SCHEMA_MINOR},
        "name": "tiny",
        "created_at": "2026-01-14T12:00:00+00:00",
        "model_family": "mean",
        "model_config_used": {},
        "num_items": len(ITEM_ROWS),
        "event_types": ["view", "purchase"],
        "features": {
            "window_len": WINDOW_LEN,
            "dim": DIM,
            "inputs": list(INPUTS),
            "outputs": [contract.QUERY_OUTPUT],
            "uses_request_time": True,
            "knows_offsets": True,
        },
        "exclude_seen": "none",
        "repeat_share": 0.5,
        "onnx_opset": ONNX_OPSET,
        "parity_max_abs": 0.0,
        "data_sha256": "0" * 64,
        "metrics": [],
        "library_versions": {},
    }
    return document | overrides


def make_bundle(
    folder: Path,
    *,
    item_rows: Mapping[str, Sequence[float] | Float32s] = ITEM_ROWS,
    item_facts: Mapping[str, Mapping[str, Any]] = ITEM_FACTS,
    copy_weight: float | None = None,
    golden_error: float = 0.0,
    change_files: Callable[[Path], None] | None = None,
    item_index: Mapping[str, Any] | None = None,
    says_until: bool = False,
    **overrides: Any,
) -> Path:
    """Write a tiny valid bundle into `folder` and return it.

    Its query is the mean of the window's item vectors, plus on the last axis the request's hour of
    day in UTC over 24. `item_facts` are what items say of themselves. `copy_weight` adds a second
    output that favours the window's own items; `golden_error` spoils the golden scores;
    `change_files` runs before the hashes are taken. `item_index` is what the manifest says of an
    index that it wrote, where that is not what is usual. With `says_until` the encoder promises
    the same for an hour, which is not quite true of this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.array([*item_rows.values()], np.float32)
    matrix = np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows])
    onnx.save_model(encoder(matrix, copy_weight), str(folder / contract.ENCODER_FILE))
    np.save(folder / contract.ITEM_MATRIX_FILE, matrix)
    _write_items(folder, list(item_rows), item_facts)
    _write_popularity(folder, list(item_rows))
    _write_golden(folder, matrix, copy_weight, golden_error)
    if change_files is not None:
        change_files(folder)
    document = manifest(num_items=len(item_rows))
    document["features"]["dim"] = rows.shape[1]
    if copy_weight is not None:
        document["features"]["outputs"] = [contract.QUERY_OUTPUT, contract.COPY_OUTPUT]
    if says_until:
        document["features"]["outputs"] += [contract.UNTIL_OUTPUT]
    if item_index is not None:
        usual: dict[str, Any] = {
            "num_cells": 1,
            "num_probes": 1,
            "recall_at_10": 1.0,
            "num_queries": 1,
        }
        matrix_sha256 = contract.file_sha256(folder / contract.ITEM_MATRIX_FILE)
        document["item_index"] = usual | {"matrix_sha256": matrix_sha256} | dict(item_index)
    write_manifest(folder, document | overrides)
    return folder


def write_manifest(folder: Path, document: dict[str, Any]) -> None:
    """Write a manifest with the hashes and the version of the files that are there."""
    names = [name for name in contract.ALL_FILES if (folder / name).is_file()]
    files = {name: contract.file_sha256(folder / name) for name in names}
    named = {"files": files, "bundle_version": contract.UNNAMED_VERSION} | document
    if named["bundle_version"] == contract.UNNAMED_VERSION and _is_valid(named):
        valid = contract.Manifest.model_validate(named)
        named["bundle_version"] = contract.content_version(valid)
    (folder / contract.MANIFEST_FILE).write_text(json.dumps(named), encoding="utf-8")


def _is_valid(document: dict[str, Any]) -> bool:
    """Say whether a document is a manifest of this build; tests spoil some on purpose."""
    try:
        contract.Manifest.model_validate(document)
    except ValidationError:
        return False
    return True


def encoder(matrix: Float32s, copy_weight: float | None = None) -> onnx.ModelProto:
    """Return the encoder of `make_bundle` as an ONNX graph."""
    dim = matrix.shape[1]
    constants: dict[str, NDArray[Any]] = {
        "matrix": matrix,
        "zero": np.array(0, np.int64),
        "one": np.array(1.0, np.float32),
        "last_axis": np.array([2], np.int64),
        "second_axis": np.array([1], np.int64),
        "day_ms": np.array(DAY_MS, np.int64),
        "day_ms_float": np.array(DAY_MS, np.float32),
        "time_axis": np.eye(dim, dtype=np.float32)[-1:],
        "hour_ms": np.array(3_600_000, np.int64),
        "copy": np.array(copy_weight or 0.0, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["matrix", "items"], ["rows"], axis=0),
        helper.make_node("Greater", ["items", "zero"], ["is_real"]),
        helper.make_node("Cast", ["is_real"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["rows", "second_axis"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "second_axis"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["total", "divisor"], ["mean"]),
        helper.make_node("Mod", ["request_time_ms", "day_ms"], ["time_of_day"]),
        helper.make_node("Cast", ["time_of_day"], ["time_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["time_float", "day_ms_float"], ["share_of_day"]),
        helper.make_node("Unsqueeze", ["share_of_day", "second_axis"], ["share_column"]),
        helper.make_node("Mul", ["share_column", "time_axis"], ["time_term"]),
        helper.make_node("Add", ["mean", "time_term"], [contract.QUERY_OUTPUT]),
        helper.make_node("Mul", ["mask", "copy"], [contract.COPY_OUTPUT]),
        helper.make_node("Add", ["request_time_ms", "hour_ms"], [contract.UNTIL_OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_of_window",
        [
            helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "window"]),
            helper.make_tensor_value_info("request_time_ms", TensorProto.INT64, ["batch"]),
        ],
        [
            helper.make_tensor_value_info(contract.QUERY_OUTPUT, TensorProto.FLOAT, ["batch", dim]),
            helper.make_tensor_value_info(
                contract.COPY_OUTPUT, TensorProto.FLOAT, ["batch", "window"]
            ),
            helper.make_tensor_value_info(contract.UNTIL_OUTPUT, TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", ONNX_OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=ONNX_IR_VERSION)


def expected_scores(matrix: Float32s, arrays: Arrays, copy_weight: float | None = None) -> Float32s:
    """Return the scores of the encoder of `make_bundle`, worked out in NumPy."""
    items = arrays["items"]
    counts = np.maximum((items > 0).sum(axis=1, keepdims=True), 1)
    query = matrix[items].sum(axis=1) / counts
    query[:, -1] += (arrays["request_time_ms"] % DAY_MS) / DAY_MS
    scores = query @ matrix.T
    for row, window in enumerate(items):
        np.add.at(scores[row], window, copy_weight or 0.0)
    scores[:, 0] = 0.0
    return np.asarray(scores, np.float32)


def window(*items: int, first_ms: int = NOON_MS - DAY_MS) -> Window:
    """Return a window of views of these items, an hour apart."""
    unknown = np.full(len(items), np.nan, np.float32)
    return Window(
        items=np.array(items, np.int64),
        event_types=np.ones(len(items), np.int64),
        timestamps_ms=first_ms + MS_PER_HOUR * np.arange(len(items), dtype=np.int64),
        tz_offsets_min=np.zeros(len(items), np.int64),
        values=unknown,
        durations_s=unknown,
        lats=unknown,
        lons=unknown,
    )


def _write_golden(
    folder: Path, matrix: Float32s, copy_weight: float | None, golden_error: float
) -> None:
    pieces = [window(), window(1), window(1, 2, 3, 4), window(*range(1, 7), 1)]
    points = [RequestPoint(NOON_MS + case * MS_PER_HOUR) for case in range(len(pieces))]
    arrays = encode_windows(pieces, points, WINDOW_LEN)
    scores = expected_scores(matrix, arrays, copy_weight)
    scores[:, 1:] += golden_error
    named = {name: arrays[name] for name in INPUTS} | {contract.GOLDEN_SCORES: scores}
    np.savez(folder / contract.GOLDEN_FILE, **named)  # type: ignore[arg-type]  # arrays by name


def _write_items(
    folder: Path, ids: Sequence[str], item_facts: Mapping[str, Mapping[str, Any]]
) -> None:
    facts = [item_facts.get(text, {}) for text in ids]
    kinds = {
        "categories": pa.list_(pa.string()),
        "lat": pa.float64(),
        "lon": pa.float64(),
        "attributes": pa.string(),
        "opening_hours": pa.string(),
        "released_at_ms": pa.int64(),
    }
    table = pa.table(
        {
            "item_index": pa.array(range(1, len(ids) + 1), pa.int32()),
            "item_id": pa.array(ids, pa.string()),
            "title": pa.array([f"Title of {text}" for text in ids[:-1]] + [None], pa.string()),
            "num_events": pa.array([1] * len(ids), pa.int64()),
            contract.HASH_COLUMN: pa.array([item_hash(text) for text in ids], pa.uint64()),
            contract.CRC_COLUMN: pa.array([id_crc(text) for text in ids], pa.uint32()),
        }
        | {name: pa.array([fact.get(name) for fact in facts], kind) for name, kind in kinds.items()}
    )
    pq.write_table(table, folder / contract.ITEMS_FILE)


def _write_popularity(folder: Path, ids: Sequence[str]) -> None:
    rows = [("overall", 0, text, 9.0 - place) for place, text in enumerate(POPULAR)]
    rows += [("hour", 12, text, 5.0 - place) for place, text in enumerate(POPULAR_AT_NOON)]
    rows = [row for row in rows if row[2] in ids]
    table = pa.table(
        {
            "scope": pa.array([row[0] for row in rows], pa.string()),
            "key": pa.array([row[1] for row in rows], pa.int64()),
            "item_index": pa.array([ids.index(row[2]) + 1 for row in rows], pa.int32()),
            "weight": pa.array([row[3] for row in rows], pa.float64()),
        }
    )
    pq.write_table(table, folder / contract.POPULARITY_FILE)
