"""One ONNX graph that runs, and what is wrong with it otherwise; the only importer of the runtime.

A worker has one core, so a graph has a stated number of threads, and none of them spins.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.contract.errors import ContractError

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


class OnnxSession:
    """A graph that was opened; thread-safe."""

    def __init__(self, session: ort.InferenceSession, what: str) -> None:
        self._session = session
        self._what = what

    def run(self, names: Sequence[str], fed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs of these names; raises ContractError if the graph fails."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(names, fed)
        except ORT_ERRORS as exc:
            raise ContractError(f"{self._what} failed: {_first_line(exc)}") from exc
        return outputs

    def check_signature(self, path: Path, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Raise ContractError unless the graph takes exactly these and gives at least those."""
        taken = {node.name for node in self._session.get_inputs()}
        if taken != set(inputs):
            raise ContractError(
                f"{path.name}: takes {_listed(taken)}, the manifest says {_listed(inputs)}"
            )
        missing = set(outputs) - {node.name for node in self._session.get_outputs()}
        if missing:
            raise ContractError(
                f"{path.name}: gives no {_listed(missing)}, which the manifest names"
            )


def open_onnx(path: Path, what: str, *, num_threads: int, keeps_memory: bool = True) -> OnnxSession:
    """Open a graph, which errors call `what`; raises ContractError if the runtime refuses it.

    With `keeps_memory` what a call took is kept for the next one, which a graph whose inputs have
    many shapes would let grow to the largest of all its calls.
    """
    options = ort.SessionOptions()
    # ONNX Runtime counts the machine's cores, not the container's share of them.
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = keeps_memory
    options.enable_mem_pattern = keeps_memory
    # Threads that spin while they wait would take the event loop's core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Processors without 8-bit dot products would cut off sums that overflow 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as exc:
        raise ContractError(f"{path.name}: ONNX Runtime refuses it: {_first_line(exc)}") from exc
    return OnnxSession(session, what)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
