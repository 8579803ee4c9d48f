"""Scorers: anything that scores all items for encoded windows; a model in torch or in ONNX."""

from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
import torch

from service.contract.bundle import COPY_OUTPUT, QUERY_OUTPUT
from service.contract.features import Arrays, Float32s
from training.dataset import inference_batch
from training.model.sequence_model import SequenceModel


class Scorer(Protocol):
    """Anything that scores all items for encoded windows."""

    def score(self, arrays: Arrays) -> Float32s:
        """Return scores (cases, num_items + 1); column 0 is padding."""
        ...


class TorchScorer:
    """Scores with a torch model, in evaluation mode while it scores."""

    def __init__(self, model: SequenceModel) -> None:
        self._model = model

    def score(self, arrays: Arrays) -> Float32s:
        """Return query · item plus the copy bonus for all items, (cases, num_items + 1)."""
        model, training = self._model, self._model.training
        device = next(model.parameters()).device
        model.eval()
        with torch.inference_mode():
            batch = inference_batch(arrays).to(device)
            output = model(batch, num_queries=1)
            scores = model.query(output)[:, 0] @ model.item_vectors(table=output.table).T
            if copies(model) and output.copy is not None:
                scores.scatter_add_(1, batch.items, output.copy[:, 0])
            found: Float32s = scores.float().cpu().numpy()
        model.train(training)
        return found


class OnnxScorer:
    """Scores with an exported encoder and item matrix, as the service does."""

    def __init__(self, encoder: Path | bytes, item_matrix: Float32s) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        source = encoder if isinstance(encoder, bytes) else str(encoder)
        self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self._item_matrix = item_matrix

    def score(self, arrays: Arrays) -> Float32s:
        """Return query · item plus the copy bonus for all items, (cases, num_items + 1)."""
        found = self._run(arrays)
        scores: Float32s = found[QUERY_OUTPUT] @ self._item_matrix.T
        if COPY_OUTPUT in found:
            rows = np.arange(len(scores))[:, None]
            np.add.at(scores, (rows, arrays["items"]), found[COPY_OUTPUT])
        return scores

    def queries(self, arrays: Arrays) -> Float32s:
        """Return the query vectors of encoded windows, (cases, dim)."""
        return self._run(arrays)[QUERY_OUTPUT]

    def _run(self, arrays: Arrays) -> dict[str, Float32s]:
        fed = {name: arrays[name] for name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, fed), strict=True))


def copies(model: SequenceModel) -> bool:
    """Return whether the served scores include the copy bonus, which the next item's do."""
    return model.config.copy and model.config.tasks[0] == "next-item"
