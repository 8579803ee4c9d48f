"""Ranking: arrays in, scores out, one ONNX call per micro-batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.contract.bundle import COPY_OUTPUT, QUERY_OUTPUT, FeatureSpec
from service.contract.errors import ContractError
from service.contract.features import Arrays, Float32s, Int64s

# The runtime's errors share no base of their own.
ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One window's encoder arrays, without a batch axis, and the items to score.

    `indices` is (num_candidates,) int64; None scores the whole catalogue.
    """

    arrays: Arrays
    indices: Int64s | None = None


class Ranker:
    """Scores items for windows with one bundle's encoder and item matrix; thread-safe.

    Items that came after the bundle are further rows, `added`, (num_added, dim), beside the mapped
    matrix rather than in a copy of it.
    """

    def __init__(
        self,
        onnx_session: ort.InferenceSession,
        item_matrix: Float32s,
        spec: FeatureSpec,
        added: Float32s | None = None,
        lengths: Float32s | None = None,
    ) -> None:
        self._onnx_session = onnx_session
        # A plain view of the mapped file: products of a memmap would be memmaps too.
        self._item_matrix = np.asarray(item_matrix)
        self._spec = spec
        self._added = np.zeros((0, spec.dim), np.float32) if added is None else added
        self._lengths = lengths

    def extended(self, added: Float32s) -> "Ranker":
        """Return a ranker of the same encoder and matrix with these rows behind it."""
        return Ranker(
            self._onnx_session, self._item_matrix, self._spec, added, self._mapped_lengths()
        )

    @property
    def num_rows(self) -> int:
        """Return how many vectors there are, padding and added ones included."""
        return len(self._item_matrix) + len(self._added)

    def vectors(self, indices: Int64s) -> Float32s:
        """Return item vectors, (len(indices), dim)."""
        num_mapped = len(self._item_matrix)
        rows = self._item_matrix[np.where(indices < num_mapped, indices, 0)]
        behind = indices >= num_mapped
        if behind.any():
            rows[behind] = self._added[indices[behind] - num_mapped]
        return rows

    def likeness(self, vector: Float32s) -> Float32s:
        """Return the cosine of every item's vector to one, (num_items + 1,), 0 of a zero vector."""
        lengths = np.hstack([self._mapped_lengths(), np.linalg.norm(self._added, axis=1)])
        lengths = lengths * np.linalg.norm(vector)
        products = self._products(vector[None])[0]
        cosines: Float32s = products / np.where(lengths > 0, lengths, 1.0).astype(np.float32)
        return cosines

    def _mapped_lengths(self) -> Float32s:
        # Once: it reads the whole matrix.
        if self._lengths is None:
            self._lengths = np.linalg.norm(self._item_matrix, axis=1)
        return self._lengths

    def score(self, requests: Sequence[ScoreRequest]) -> list[Float32s]:
        """Return each request's scores: (num_candidates,), or (num_items + 1,) with column 0 at 0.

        Their windows are of one length. Raises ContractError if the encoder gives anything that is
        not a finite number.
        """
        arrays = {
            name: np.stack([request.arrays[name] for request in requests]) for name in self.inputs
        }
        return self.score_rows(arrays, [request.indices for request in requests])

    @property
    def inputs(self) -> frozenset[str]:
        """Return the names of the arrays that scoring takes."""
        return frozenset({*self._spec.inputs, "items"})

    def score_rows(self, arrays: Arrays, wanted: Sequence[Int64s | None]) -> list[Float32s]:
        """Return the scores of each row of a batch as `score` does; `wanted` as its `indices`.

        Windows may be shorter than the bundle's: padding changes no score, and costs as much as
        events do.
        """
        query, copy_weights = self.encode(arrays)
        whole = [row for row, indices in enumerate(wanted) if indices is None]
        catalogue = dict(zip(whole, self._products(query[whole]), strict=True))
        scores = []
        for row, indices in enumerate(wanted):
            bonus = self._copy_bonus(arrays["items"][row], copy_weights, row)
            if indices is None:
                scores.append(_without_padding(catalogue[row] + bonus))
            else:
                gathered = self.vectors(indices) @ query[row]
                scores.append(gathered + (bonus[indices] if bonus.ndim else bonus))
        return scores

    def score_batch(self, arrays: Arrays) -> Float32s:
        """Return the catalogue's scores of a batch, (batch, num_items + 1), column 0 at 0."""
        rows = len(arrays[self._spec.inputs[0]])
        requests = [
            ScoreRequest({name: column[row] for name, column in arrays.items()})
            for row in range(rows)
        ]
        return np.stack(self.score(requests))

    def encode(self, arrays: Arrays) -> tuple[Float32s, Float32s | None]:
        """Run the encoder: the query vectors (batch, dim), and (batch, window_len) copy weights."""
        names = list(self._spec.outputs)
        fed = {name: arrays[name] for name in self._spec.inputs}
        try:
            outputs = dict(zip(names, self._onnx_session.run(names, fed), strict=True))
        except ORT_ERRORS as exc:
            raise ContractError(f"the encoder failed: {_first_line(exc)}") from exc
        for name in (QUERY_OUTPUT, COPY_OUTPUT):
            if name in outputs and not np.isfinite(outputs[name]).all():
                raise ContractError(f"the encoder's {name!r} holds numbers that are not finite")
        return outputs[QUERY_OUTPUT], outputs.get(COPY_OUTPUT)

    def _products(self, query: Float32s) -> Float32s:
        """Return the products of query vectors with every item, (queries, num_items + 1)."""
        mapped: Float32s = query @ self._item_matrix.T
        return np.hstack([mapped, query @ self._added.T]) if len(self._added) else mapped

    def _copy_bonus(
        self, items: Int64s, copy_weights: Float32s | None, row: int
    ) -> NDArray[np.float32]:
        """Return what an item's own past adds to its score: (num_items + 1,), or () for nothing."""
        if copy_weights is None:
            return np.zeros((), np.float32)
        summed = np.bincount(items, weights=copy_weights[row], minlength=self.num_rows)
        return summed.astype(np.float32)


def open_encoder(path: Path, spec: FeatureSpec, *, num_threads: int) -> ort.InferenceSession:
    """Open an encoder with a stated number of threads; raises ContractError if it does not fit."""
    options = ort.SessionOptions()
    # ONNX Runtime counts the machine's cores, not the container's share of them.
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Threads that spin while they wait would take the event loop's core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as exc:
        raise ContractError(f"{path.name}: ONNX Runtime refuses it: {_first_line(exc)}") from exc
    _check_signature(path.name, session, spec)
    return session


def _check_signature(name: str, session: ort.InferenceSession, spec: FeatureSpec) -> None:
    inputs = {node.name for node in session.get_inputs()}
    if inputs != set(spec.inputs):
        raise ContractError(
            f"{name}: takes {_listed(inputs)}, the manifest says {_listed(spec.inputs)}"
        )
    missing = set(spec.outputs) - {node.name for node in session.get_outputs()}
    if missing:
        raise ContractError(f"{name}: gives no {_listed(missing)}, which the manifest names")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]


def _without_padding(scores: Float32s) -> Float32s:
    scores[0] = 0.0
    return scores
