"""The bundle's text encoder: texts in, rows of the item matrix out, by ONNX Runtime alone.

The only importer of tokenizers in the service, and only for a bundle that has a text encoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from service.contract import bundle as contract
from service.contract.bundle import Manifest
from service.contract.errors import BundleMismatch, ContractError
from service.contract.features import Float32s, Int64s
from service.onnx_session import OnnxSession, open_onnx

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts of one call of the graph, and tokens with their padding: more are no faster on one core, and
# attention takes memory for each pair of a text's tokens.
MAX_TEXTS = 16
MAX_CALL_TOKENS = 1_024


class TextEncoder:
    """Turns texts into vectors, (texts, dim), each as if it were its item's row; thread-safe.

    A text is cut where training cut it. Texts of one call are sorted by length, so that short ones
    are not padded to the longest of all.
    """

    def __init__(self, session: OnnxSession, tokenizer: "Tokenizer", dim: int) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._dim = dim
        padding = tokenizer.padding
        self._pad_id = padding["pad_id"] if padding else 0
        # Here a batch is padded by NumPy: the tokenizer's own batches take threads.
        tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return the vectors of texts, (len(texts), dim).

        Raises ContractError if the graph fails or gives anything that is not a finite number.
        """
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        vectors = np.zeros((len(texts), self._dim), np.float32)
        for places in calls_of([len(ids) for ids in tokens]):
            vectors[places] = self._encode([tokens[place] for place in places])
        return vectors

    def _encode(self, tokens: Sequence[Sequence[int]]) -> Float32s:
        """Return the vectors of texts by their tokens, in one call of the graph."""
        input_ids, attention_mask = padded(tokens, self._pad_id)
        fed = dict(zip(contract.TEXT_INPUTS, (input_ids, attention_mask), strict=True))
        vectors: Float32s = self._session.run([contract.TEXT_OUTPUT], fed)[0]
        if vectors.shape != (len(tokens), self._dim):
            raise ContractError(
                f"the text encoder gives {vectors.shape}, the item matrix wants "
                f"{(len(tokens), self._dim)}"
            )
        if not np.isfinite(vectors).all():
            raise ContractError("the text encoder's vectors hold numbers that are not finite")
        return vectors


def calls_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return which texts are read in one call, by their numbers of tokens, the shortest first."""
    calls: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        size = len(calls[-1]) + 1 if calls else 0
        if size and size <= MAX_TEXTS and size * lengths[place] <= MAX_CALL_TOKENS:
            calls[-1].append(place)
        else:
            calls.append([place])
    return calls


def padded(tokens: Sequence[Sequence[int]], pad_id: int) -> tuple[Int64s, Int64s]:
    """Return token ids and their mask, (texts, longest), padded on the right.

    A text without a token is one padding token, so that there is something to gather.
    """
    longest = max(1, *(len(ids) for ids in tokens))
    input_ids = np.full((len(tokens), longest), pad_id, np.int64)
    mask = np.zeros((len(tokens), longest), np.int64)
    for place, ids in enumerate(tokens):
        input_ids[place, : len(ids)] = ids
        mask[place, : len(ids)] = 1
    return input_ids, mask


def read_text_encoder(bundle: Path, manifest: Manifest, *, num_threads: int) -> TextEncoder | None:
    """Return a bundle's text encoder, which gives its golden vectors here, or None if it has none.

    Raises ContractError or BundleMismatch with what is wrong with its files.
    """
    spec = manifest.text
    if spec is None:
        return None
    path = bundle / contract.TEXT_ENCODER_FILE
    # Every length of a text is another shape.
    session = open_onnx(path, "the text encoder", num_threads=num_threads, keeps_memory=False)
    session.check_signature(path, contract.TEXT_INPUTS, [contract.TEXT_OUTPUT])
    tokenizer = _read_tokenizer(bundle / contract.TOKENIZER_FILE)
    tokenizer.enable_truncation(spec.max_tokens)
    encoder = TextEncoder(session, tokenizer, manifest.features.dim)
    _check_golden(bundle / contract.GOLDEN_TEXTS_FILE, encoder, manifest)
    return encoder


def _read_tokenizer(path: Path) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  # bundles without texts do not pay for it
    except ImportError as exc:
        raise ContractError(f"{path}: needs tokenizers, which is not installed: {exc}") from exc
    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises nothing more special
        raise BundleMismatch(f"{path}: is no file of a tokenizer: {exc}") from exc


def _check_golden(path: Path, encoder: TextEncoder, manifest: Manifest) -> None:
    """Raise BundleMismatch unless texts get the vectors here that they got where it was made."""
    texts = manifest.text.golden_texts if manifest.text else ()
    expected: Float32s = np.lib.format.open_memmap(path, mode="r")
    shape = (len(texts), manifest.features.dim)
    if expected.shape != shape or expected.dtype != np.float32:
        raise BundleMismatch(
            f"{path}: is {expected.dtype} {expected.shape}, the manifest says float32 {shape}"
        )
    cosine = least_cosine(encoder.encode(texts), expected)
    # Written so that NaN fails too.
    if not cosine >= contract.GOLDEN_TEXT_COSINE:
        raise BundleMismatch(
            f"{path}: a text's vector here has a cosine of {cosine:.3f} to the expected one, "
            f"{contract.GOLDEN_TEXT_COSINE} is the least allowed"
        )


def least_cosine(found: Float32s, expected: Float32s) -> float:
    """Return the least cosine of two matrices' rows; of two zero rows it is 1."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    products = np.einsum("ij,ij->i", found, expected)
    both_zero = ~found.any(axis=1) & ~expected.any(axis=1)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return float(np.where(both_zero, 1.0, cosines).min())
