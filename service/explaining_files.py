"""What a bundle holds for explanations alone: parts of item rows, and the encoder's attention."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from service.contract import bundle as contract
from service.contract.bundle import FeatureSpec, Manifest
from service.contract.errors import BundleMismatch, ContractError
from service.contract.features import Arrays, Float32s, Int64s
from service.onnx_session import OnnxSession, open_onnx

HalfFloats = NDArray[np.float16]


class AttentionGraph:
    """How much each event of a window looks at each; opened when first wanted, thread-safe."""

    def __init__(self, path: Path, spec: FeatureSpec, num_threads: int) -> None:
        self._path = path
        self._spec = spec
        self._num_threads = num_threads
        self._lock = Lock()
        self._session: OnnxSession | None = None

    def of(self, arrays: Arrays) -> Float32s:
        """Return the attention of one encoded window, (layers, heads, window, window).

        Raises ContractError if the graph does not fit the encoder or fails.
        """
        fed = {name: arrays[name] for name in self._spec.inputs}
        found = self._opened().run([contract.ATTENTION_OUTPUT], fed)[0]
        if found.ndim != 5 or not np.isfinite(found).all():  # noqa: PLR2004  # batch and the above
            raise ContractError(f"{self._path.name}: gives no finite (batch, layers, heads, n, n)")
        attention: Float32s = found[0]
        return attention

    def _opened(self) -> OnnxSession:
        with self._lock:
            if self._session is None:
                session = open_onnx(
                    self._path,
                    "the attention graph",
                    num_threads=self._num_threads,
                    keeps_memory=False,
                )
                inputs, outputs = self._spec.inputs, [contract.ATTENTION_OUTPUT]
                session.check_signature(self._path, inputs, outputs)
                self._session = session
            return self._session


@dataclass(frozen=True, slots=True)
class ExplainingFiles:
    """Parts of item rows, mapped, each (num_items + 1, dim), and attention; None where not there.

    `unknown` names what the bundle's items or encoder may have although it has no file of it.
    """

    text_rows: HalfFloats | None = None
    place_rows: HalfFloats | None = None
    attention: AttentionGraph | None = None
    unknown: tuple[str, ...] = ()

    def parts_of(self, indices: Int64s, dim: int) -> tuple[Float32s, Float32s]:
        """Return what items' texts and places are of their rows, (len(indices), dim) each.

        Zeros where the bundle does not tell, or does not know the item.
        """
        return _rows(self.text_rows, indices, dim), _rows(self.place_rows, indices, dim)


def read_explaining_files(bundle: Path, manifest: Manifest, *, num_threads: int) -> ExplainingFiles:
    """Return what a bundle has for explanations; raises BundleMismatch for other shapes."""
    attention = None
    if contract.ATTENTION_FILE in manifest.files:
        path = bundle / contract.ATTENTION_FILE
        attention = AttentionGraph(path, manifest.features, num_threads)
    return ExplainingFiles(
        text_rows=_mapped(bundle, contract.TEXT_ROWS_FILE, manifest),
        place_rows=_mapped(bundle, contract.PLACE_ROWS_FILE, manifest),
        attention=attention,
        unknown=_unknown_parts(manifest),
    )


def _unknown_parts(manifest: Manifest) -> tuple[str, ...]:
    """Return the shares that an older bundle cannot tell apart from the history's."""
    if manifest.schema_version.minor >= contract.EXPLAINING_MINOR:
        return ()
    return ("place", "text") if manifest.text is not None else ("place",)


def _mapped(bundle: Path, name: str, manifest: Manifest) -> HalfFloats | None:
    if name not in manifest.files:
        return None
    rows: HalfFloats = np.lib.format.open_memmap(bundle / name, mode="r")
    expected = (manifest.num_items + 1, manifest.features.dim)
    if rows.shape != expected or rows.dtype != np.float16:
        raise BundleMismatch(
            f"{bundle / name}: is {rows.dtype} {rows.shape}, the manifest says float16 {expected}"
        )
    return rows


def _rows(part: HalfFloats | None, indices: Int64s, dim: int) -> Float32s:
    if part is None:
        return np.zeros((len(indices), dim), np.float32)
    known = indices < len(part)
    rows = part[np.where(known, indices, 0)].astype(np.float32)
    rows[~known] = 0.0
    return rows
