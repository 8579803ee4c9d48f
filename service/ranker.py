"""Ranking: arrays in, scores out, one ONNX call per micro-batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from service.allowed import Allowed
from service.contract.bundle import COPY_OUTPUT, QUERY_OUTPUT, UNTIL_OUTPUT, FeatureSpec
from service.contract.errors import ContractError
from service.contract.features import (
    Arrays,
    Float32s,
    Int64s,
    RequestPoint,
    Window,
    encode_windows,
)
from service.item_index import ItemIndex
from service.item_rows import ItemRows
from service.nearest import Bonus, Question, best_of, is_short
from service.onnx_session import OnnxSession, open_onnx
from service.ordering import Best

# Attention's time grows with the square of the window: 200 events take about a millisecond.
MAX_WINDOW_ON_LOOP = 512
# In the year 292,277,026.
FOREVER_MS = np.iinfo(np.int64).max


class Wanted(NamedTuple):
    """What may be found for one window, and how many."""

    allowed: Allowed
    k: int


class AtPoint(NamedTuple):
    """A window, and when and where something is wanted for it."""

    window: Window
    point: RequestPoint


class Encoded(NamedTuple):
    """What the encoder says of one window: the query vector, (dim,), and the bonus of own items.

    The same window gives the same at any later time before `until_ms`.
    """

    query: Float32s
    bonus: Bonus
    until_ms: int

    @property
    def num_bytes(self) -> int:
        """Return how much memory the arrays take."""
        return self.query.nbytes + self.bonus.items.nbytes + self.bonus.weights.nbytes

    def apart(self) -> "Encoded":
        """Return the same without the rest of its batch, whose memory the arrays are a part of."""
        real = self.bonus.items > 0
        bonus = Bonus(self.bonus.items[real], self.bonus.weights[real])
        return Encoded(self.query.copy(), bonus, self.until_ms)


class Ranker:
    """Scores items for windows with one bundle's encoder and item rows; thread-safe.

    With an index it looks for the best where the index says, else at every item.
    """

    def __init__(
        self,
        onnx_session: OnnxSession,
        rows: ItemRows,
        spec: FeatureSpec,
        index: ItemIndex | None = None,
    ) -> None:
        self._onnx_session = onnx_session
        self._rows = rows
        self._spec = spec
        self._index = index

    def extended(self, added: Float32s) -> "Ranker":
        """Return a ranker of the same encoder and matrix with these rows behind it."""
        return Ranker(self._onnx_session, self._rows.extended(added), self._spec, self._index)

    def vectors(self, indices: Int64s) -> Float32s:
        """Return item vectors, (len(indices), dim)."""
        return self._rows.of(indices)

    def likeness(self, vector: Float32s) -> Float32s:
        """Return the cosine of every item's vector to one, (num_items + 1,), 0 of a zero vector."""
        return self._rows.likeness(vector)

    @property
    def inputs(self) -> frozenset[str]:
        """Return the names of the arrays that ranking takes."""
        return frozenset({*self._spec.inputs, "items"})

    def is_short(self, wanted: Wanted) -> bool:
        """Say whether a ranking takes so little that an event loop may wait for it."""
        in_window = self._spec.window_len <= MAX_WINDOW_ON_LOOP
        return in_window and is_short(self._rows, self._index, wanted.allowed, wanted.k)

    def best(self, asked: Sequence[tuple[Encoded, Wanted]]) -> list[Best]:
        """Return for each window the best items and their scores, best first."""
        questions = [
            Question(encoded.query, encoded.bonus, wanted.allowed, wanted.k)
            for encoded, wanted in asked
        ]
        return best_of(self._rows, self._index, questions)

    def score_batch(self, arrays: Arrays) -> Float32s:
        """Return the catalogue's scores of a batch, (batch, num_items + 1), column 0 at 0."""
        encoded = self.encode(arrays)
        products = self._rows.products(np.stack([one.query for one in encoded]))
        scores = np.ascontiguousarray(products.T)
        for row, one in zip(scores, encoded, strict=True):
            one.bonus.add_to(row)
        scores[:, 0] = 0.0
        return scores

    def arrays_of(self, asked: Sequence[AtPoint]) -> Arrays:
        """Return windows as the encoder takes them, no longer than the longest of them is."""
        # Every position costs as much, padding too.
        windows = [one.window for one in asked]
        length = min(self._spec.window_len, max(1, *(len(window) for window in windows)))
        return encode_windows(windows, [one.point for one in asked], length, self.inputs)

    def encode_at(self, asked: Sequence[AtPoint]) -> list[Encoded]:
        """Return what the encoder says of windows; see `encode`."""
        return self.encode(self.arrays_of(asked))

    def encode(self, arrays: Arrays) -> list[Encoded]:
        """Return what the encoder says of each window of a batch.

        Windows may be shorter than the bundle's: padding changes no score, and costs as much as
        events do. Raises ContractError if the encoder gives anything that is not a finite number.
        """
        outputs = self._run(arrays)
        queries = outputs[QUERY_OUTPUT]
        bonuses = [Bonus.nothing()] * len(queries)
        if COPY_OUTPUT in outputs:
            bonuses = list(map(Bonus, arrays["items"], outputs[COPY_OUTPUT]))
        # An encoder that does not say is right for the time itself, one that wants none for ever.
        until_ms = outputs.get(UNTIL_OUTPUT, arrays["request_time_ms"] + 1)
        if not self._spec.uses_request_time:
            until_ms = np.full(len(queries), FOREVER_MS)
        return list(map(Encoded, queries, bonuses, until_ms.tolist()))

    def _run(self, arrays: Arrays) -> Arrays:
        names = list(self._spec.outputs)
        fed = {name: arrays[name] for name in self._spec.inputs}
        outputs = dict(zip(names, self._onnx_session.run(names, fed), strict=True))
        for name in (QUERY_OUTPUT, COPY_OUTPUT):
            if name in outputs and not np.isfinite(outputs[name]).all():
                raise ContractError(f"the encoder's {name!r} holds numbers that are not finite")
        return outputs


def open_encoder(path: Path, spec: FeatureSpec, *, num_threads: int) -> OnnxSession:
    """Open an encoder with a stated number of threads; raises ContractError if it does not fit."""
    session = open_onnx(path, "the encoder", num_threads=num_threads)
    session.check_signature(path, spec.inputs, spec.outputs)
    return session
