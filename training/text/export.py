"""A text encoder in a bundle: its graph, its tokenizer, and texts whose vectors are known.

The graph goes from tokens to a row of the item matrix: network, pooling, whitening, projection and
whatever the head does to items. It is of 8-bit products where that changes the rows of the bundle's
own items little, else of float32.
"""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from service.contract import bundle as contract
from service.contract.features import Float32s
from training.config import TrainingError
from training.onnx_graph import export_graph, graph_bytes
from training.text import quantise
from training.text.encoder import TextEncoder
from training.text.whitening import Whitening

# Texts that 8-bit ranges are found by, and others that the graphs are judged on.
CALIBRATION_TEXTS, JUDGED_TEXTS = 256, 256
# What 8-bit rows must keep of the cosine to the trained encoder's: on average, and the worst
# hundredth of them.
LEAST_COSINES = (0.98, 0.95)
LEAST_NORM = 1e-12
# Larger does not fit the format's single file.
MAX_GRAPH_BYTES = 2_000_000_000
GOLDEN_TEXTS = ("Stainless steel hex bolts, pack of 100", "🍵🔩🛒", "شاي أخضر عضوي")

log = logging.getLogger(__name__)


class TextRows(nn.Module):
    """Tokens to rows of the item matrix: (texts, tokens) twice in, (texts, dim) out."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, encoder: TextEncoder, whitening: Whitening, project: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = project
        self.register_buffer("mean", torch.from_numpy(whitening.mean))
        self.register_buffer("matrix", torch.from_numpy(whitening.matrix))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the rows that texts would have, were nothing else known of their items."""
        pooled = self.encoder(input_ids, attention_mask)
        found: Tensor = self.project((pooled - self.mean) @ self.matrix)
        return found


class OnnxTexts:
    """Reads texts by a written graph and the tokenizer's file, as the service does."""

    def __init__(self, encoder: Path, tokenizer: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Processors without 8-bit dot products would cut off sums that overflow 16 bits.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = ort.InferenceSession(
            str(encoder), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(tokenizer))

    def read(self, texts: Sequence[str]) -> Float32s:
        """Return the rows of texts, (texts, dim), each read alone."""
        return np.vstack([self._read(text) for text in texts])

    def _read(self, text: str) -> Float32s:
        read = self._tokenizer.encode(text)
        arrays = (read.ids, read.attention_mask)
        fed = {
            name: np.array([array], np.int64)
            for name, array in zip(contract.TEXT_INPUTS, arrays, strict=True)
        }
        row: Float32s = self._session.run([contract.TEXT_OUTPUT], fed)[0]
        return row


def write_text_encoder(
    encoder: TextEncoder,
    whitening: Whitening,
    project: nn.Module,
    texts: Sequence[str],
    folder: Path,
    *,
    least: tuple[float, float] = LEAST_COSINES,
) -> contract.TextSpec:
    """Write TEXT_FILES into a bundle's folder; returns what the manifest says of them.

    `project` makes rows of the item matrix, (texts, dim), of whitened vectors, (texts, out);
    `texts` are those of the bundle's items. The graph is in int8 if the mean and the first
    percentile of the cosines of its rows to torch's are `least`. Nothing given is changed.
    Raises TrainingError when the graph's rows are not those of torch, or the network is too large
    for one file.
    """
    # A copy: it moves to the CPU, and what learns next may still be elsewhere.
    rows = copy.deepcopy(TextRows(encoder, whitening, project)).cpu().eval()
    _check_size(rows)
    path, tokenizer = folder / contract.TEXT_ENCODER_FILE, folder / contract.TOKENIZER_FILE
    tokenizer.write_text(encoder.tokenizer.to_str(), encoding="utf-8")
    calibrating, judged = _samples(texts)
    expected = _rows_of(rows, judged)
    _write_int8(rows, calibrating, path)
    found = cosines(OnnxTexts(path, tokenizer).read(judged), expected)
    measured = float(found.mean()), float(np.percentile(found, 1))
    is_quantised = all(value >= enough for value, enough in zip(measured, least, strict=True))
    kept = "kept" if is_quantised else "float32 is written instead"
    log.info("text encoder in int8: cosine %.4f, worst hundredth %.4f; %s", *measured, kept)
    if not is_quantised:
        path.write_bytes(graph_bytes(_graph(rows)))
        found = _check_parity(OnnxTexts(path, tokenizer).read(judged), expected)
    np.save(folder / contract.GOLDEN_TEXTS_FILE, OnnxTexts(path, tokenizer).read(GOLDEN_TEXTS))
    return contract.TextSpec(
        max_tokens=encoder.max_tokens,
        is_quantised=is_quantised,
        min_cosine=float(found.min()),
        golden_texts=GOLDEN_TEXTS,
    )


def cosines(rows: Float32s, expected: Float32s) -> NDArray[np.float64]:
    """Return the cosine of each row, (texts,), to the one expected."""
    exact, other = rows.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(other, axis=1)
    products: NDArray[np.float64] = (exact * other).sum(1) / np.maximum(norms, LEAST_NORM)
    return products


def _check_size(rows: TextRows) -> None:
    num_bytes = sum(table.numel() * table.element_size() for table in rows.state_dict().values())
    if num_bytes > MAX_GRAPH_BYTES:
        raise TrainingError(
            f"text.weights: the network has {num_bytes / 1e9:.1f} GB of weights and a bundle's "
            f"file holds {MAX_GRAPH_BYTES / 1e9:.0f}; take a smaller checkpoint"
        )


def _samples(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return texts to find ranges by and others to judge by, spread over the items."""
    distinct = [text for text in dict.fromkeys(texts) if text] or list(GOLDEN_TEXTS)
    return _spread(distinct[::2], CALIBRATION_TEXTS), _spread(
        distinct[1::2] or distinct, JUDGED_TEXTS
    )


def _spread(texts: list[str], most: int) -> list[str]:
    return texts[:: -(-len(texts) // most)]


def _rows_of(rows: TextRows, texts: Sequence[str]) -> Float32s:
    """Return the rows that torch gives texts, (texts, dim), each read alone."""
    with torch.inference_mode():
        found = [rows(*rows.encoder.tokenize([text])) for text in texts]
    joined: Float32s = torch.cat(found).float().numpy()
    return joined


def _write_int8(rows: TextRows, calibrating: list[str], path: Path) -> None:
    smoothed = copy.deepcopy(rows)
    quantise.smooth(smoothed.encoder.body, lambda: _rows_of(smoothed, calibrating))
    quantise.to_bytes(smoothed.encoder.body)
    path.write_bytes(graph_bytes(_graph(smoothed)))


def _graph(rows: TextRows) -> onnx.ModelProto:
    """Return the graph with the exporter's notes; texts and tokens are free."""
    tokens = rows.encoder.tokenize(["two texts", "of a few tokens"])
    texts, length = torch.export.Dim("texts"), torch.export.Dim("tokens")
    free = {0: texts, 1: length}
    examples = dict(zip(contract.TEXT_INPUTS, tokens, strict=True))
    return export_graph(rows, examples, [contract.TEXT_OUTPUT], (free, free))


def _check_parity(found: Float32s, expected: Float32s) -> NDArray[np.float64]:
    difference = float(np.abs(found - expected).max())
    if not difference < contract.GOLDEN_TOLERANCE:
        raise TrainingError(
            f"torch and ONNX Runtime differ by {difference:.2e} on the rows of texts, allowed is "
            f"{contract.GOLDEN_TOLERANCE:.0e}; no bundle was written"
        )
    return cosines(found, expected)
