"""Networks as ONNX graphs: exported in one way, and free of what only the exporter knew."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from service.contract.features import REQUEST_INPUTS, WINDOW_INPUTS
from training.config import TrainingError

ONNX_OPSET = 23
_DTYPES = {"int64": torch.int64, "float32": torch.float32}


def export_graph(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    dims: tuple[Any, ...],
) -> onnx.ModelProto:
    """Return the graph of a module in evaluation mode, with the exporter's notes still in it.

    `examples` are its inputs by name and in order, each a tensor of its own: the exporter takes one
    object given twice for one input. `dims` are its free dimensions as `torch.export` takes them.
    """
    with warnings.catch_warnings():
        # The exporter's own deprecations are nothing that a caller could mend.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=dims,
            opset_version=ONNX_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise TrainingError("the exporter returned no program")
    return program.model_proto


def export_of_windows(
    module: nn.Module, inputs: Sequence[str], window_len: int, outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the graph of a module that takes the contract's arrays named `inputs`, in their order.

    Batch and window length are free.
    """
    dtypes = WINDOW_INPUTS | REQUEST_INPUTS
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    examples: dict[str, Tensor] = {}
    dims: list[dict[int, Any]] = []
    for name in inputs:
        of_window = name in WINDOW_INPUTS
        shape = (2, window_len) if of_window else (2,)
        examples[name] = torch.zeros(shape, dtype=_DTYPES[dtypes[name]])
        dims.append({0: batch, 1: length} if of_window else {0: batch})
    return export_graph(module, examples, outputs, (tuple(dims),))


def graph_bytes(proto: onnx.ModelProto) -> bytes:
    """Return a graph as it is written: checked, the same bytes every time; strips `proto`."""
    strip(proto)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths, in every node."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
