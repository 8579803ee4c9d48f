"""What a bundle holds for explanations alone: parts of item rows, and the graph of attention.

Nothing here is needed to recommend. A bundle without these files is served as well; its
explanations then leave the share or the matrix out and say so.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional

from service.contract import bundle as contract
from service.contract.features import Arrays, Float32s
from training.config import TrainingError
from training.model.attention import BlockBody
from training.model.batch import serving_batch
from training.model.classic import PlainBlock
from training.model.heads import NextItemHead
from training.model.sequence_model import SequenceModel
from training.model.transformer import LigrBlock
from training.off_edges import off_edges
from training.onnx_graph import export_of_windows, graph_bytes

# A table of 4,096 items with 64 numbers.
MIN_TABLE_BYTES = 1 << 20
# How far attention in torch and in ONNX Runtime may be apart, of weights that add up to 1.
ATTENTION_TOLERANCE = 1e-5
SOFTMAX_BLOCKS = (LigrBlock, PlainBlock)


class AttentionMaps(nn.Module):
    """The attention of every block and head at every position, from the encoder's own inputs."""

    table: Tensor

    def __init__(self, model: SequenceModel, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("table", model.items().detach().clone())
        self.inputs = inputs
        self.blocks = _blocks(model)

    def forward(self, *arrays: Tensor) -> Tensor:
        """Return weights (batch, layers, heads, window, window), queries before keys."""
        batch = serving_batch(dict(zip(self.inputs, arrays, strict=True)))
        x = self.model.input(functional.embedding(batch.items, self.table), batch)
        mask = self.model.mask_of(batch)
        maps = []
        for block in self.blocks:
            keys = block.attention_norm(x)  # type: ignore[operator]  # one of SOFTMAX_BLOCKS
            maps.append(block.attention.weights(keys, keys, mask))  # type: ignore[operator,union-attr]
            x = block(x, mask)
        return torch.stack(maps).permute(2, 0, 1, 3, 4)


def has_attention(model: SequenceModel) -> bool:
    """Return whether a model's blocks share a whole 1 among the events that each may see.

    HSTU's weights are no shares, a language model's body brings its own blocks, BERT4Rec asks from
    a position behind the window, and recurrent networks have none.
    """
    blocks = _blocks(model)
    are_softmax = all(isinstance(block, SOFTMAX_BLOCKS) for block in blocks)
    return bool(len(blocks)) and are_softmax and not model.bidirectional


def _blocks(model: SequenceModel) -> nn.ModuleList:
    """Return the attention blocks of a model, none of a body of another kind."""
    return model.body.layers if isinstance(model.body, BlockBody) else nn.ModuleList()


def attention_model(model: SequenceModel, inputs: tuple[str, ...]) -> onnx.ModelProto:
    """Return the graph of `AttentionMaps`; batch and window length are free."""
    maps, outputs = AttentionMaps(model, inputs), [contract.ATTENTION_OUTPUT]
    return export_of_windows(maps, inputs, model.config.window_len, outputs)


def write_attention(
    model: SequenceModel, inputs: tuple[str, ...], encoder: bytes, golden: Arrays, folder: Path
) -> None:
    """Write the graph of attention, if the model has one, beside the encoder written already.

    Large tables are the encoder's, and are read from its file. Raises TrainingError if ONNX Runtime
    finds another weight than torch does, anywhere in the golden windows moved off the edges.
    """
    if not has_attention(model):
        return
    proto = onnx.ModelProto.FromString(graph_bytes(attention_model(model, inputs)))
    _share_tables(proto, encoder, folder)
    path = folder / contract.ATTENTION_FILE
    path.write_bytes(proto.SerializeToString(deterministic=True))
    # The library's reader fetches large tables, which the runtime finds by the graph's folder.
    from onnxruntime import InferenceSession  # noqa: PLC0415  # the graph must be whole first

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tried = {name: values for name, values in off_edges(golden).items() if name in inputs}
    [found] = session.run([contract.ATTENTION_OUTPUT], tried)
    with torch.inference_mode():
        arrays = [torch.from_numpy(tried[name]) for name in inputs]
        expected = AttentionMaps(model.eval(), inputs)(*arrays).numpy()
    # Positions of padding ask too, and nobody reads what they find.
    rows = np.abs(found - expected).max(axis=4).transpose(0, 3, 1, 2)[golden["items"] > 0]
    difference = float(rows.max())
    if not difference < ATTENTION_TOLERANCE:
        raise TrainingError(
            f"attention of torch and ONNX Runtime differs by {difference:.2e} on the golden "
            f"windows, allowed is {ATTENTION_TOLERANCE:.0e}; no bundle was written"
        )


def _share_tables(proto: onnx.ModelProto, encoder: bytes, folder: Path) -> None:
    """Let large tables be read from where the encoder's file of tables has the same bytes."""
    written = onnx.load(folder / contract.ENCODER_FILE, load_external_data=False).graph.initializer
    entries = {tensor.name: tensor for tensor in written if tensor.external_data}
    whole = onnx.ModelProto.FromString(encoder).graph.initializer
    places = {tensor.raw_data: entries[tensor.name] for tensor in whole if tensor.name in entries}
    for tensor in proto.graph.initializer:
        if tensor.ByteSize() < MIN_TABLE_BYTES or tensor.raw_data not in places:
            continue
        tensor.external_data.extend(places[tensor.raw_data].external_data)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")


def row_parts(model: SequenceModel) -> dict[str, NDArray[np.float16]]:
    """Return what an item's text and place are of its row, each (num_items + 1, out_dim), by file.

    An item's vector is a sum, and its row of the item matrix that sum at length 1 or followed by
    its bias, so each part of the sum is a part of the row.
    """
    items = model.items
    parts: dict[str, Tensor] = {}
    if items.texts is not None:
        parts[contract.TEXT_ROWS_FILE] = items.texts()
    if items.cells is not None:
        place = items.cells(items.item_cells) + items.place(items.item_place_features)
        parts[contract.PLACE_ROWS_FILE] = place
    return {name: _as_rows(model, part) for name, part in parts.items()}


def _as_rows(model: SequenceModel, part: Tensor) -> NDArray[np.float16]:
    head = model.heads[model.config.tasks[0]]
    table = model.items()
    if isinstance(head, NextItemHead) and head.normalised:
        lengths = torch.linalg.vector_norm(table, dim=-1, keepdim=True).clamp(min=1e-12)
        rows = part / lengths
    else:
        width = model.item_vectors().shape[1]
        rows = functional.pad(part, (0, width - part.shape[1]))
    filled: Float32s = rows.numpy().copy()
    filled[0] = 0.0
    return filled.astype(np.float16)


def write_row_parts(model: SequenceModel, folder: Path) -> None:
    """Write the parts that the model's item vectors have."""
    with torch.inference_mode():
        for name, rows in row_parts(model.eval()).items():
            np.save(folder / name, rows)
