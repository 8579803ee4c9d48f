"""Vectors of texts on disk, so that a text is read once by a network with the same weights.

A folder belongs to one network: its name is a hash of the weights as they are in memory, so what
was tuned since it was loaded has another; of the network's settings; and of how texts become
tokens and tokens vectors. In it every file holds some texts' hashes and vectors, is written aside,
renamed and never changed. So two processes only ever add files, and a text that both read is there
twice. What was torn is read by the checksums of its format, removed, and encoded again.
"""

import hashlib
import logging
import secrets
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.features import Float32s
from training.text.encoder import TextEncoder

BATCH_TEXTS = 64
# Kept at once: what a killed process has to read again is at most so many.
FILE_TEXTS = 4_096
KEY_BYTES = 32
# Of a network's settings, where it was and what wrote it; the same weights give the same vectors.
NOT_OF_NETWORK = ("_name_or_path", "name_or_path", "transformers_version")

log = logging.getLogger(__name__)


def encode_texts(
    encoder: TextEncoder,
    texts: Sequence[str],
    folder: Path | None,
    *,
    texts_per_file: int = FILE_TEXTS,
) -> Float32s:
    """Return the vectors of texts, (texts, dim), reading only those that `folder` does not hold.

    Equal texts are read once. `folder` None keeps nothing; else each `texts_per_file` texts are
    kept as soon as they are read. The encoder is in evaluation mode meanwhile, and reads on the
    device that it is on.
    """
    unique = list(dict.fromkeys(texts))
    rows = {text: row for row, text in enumerate(unique)}
    vectors = np.zeros((len(unique), encoder.dim), np.float32)
    held = None if folder is None else folder / network_hash(encoder)
    new = list(range(len(unique))) if held is None else _read_into(vectors, unique, held)
    for start in range(0, len(new), texts_per_file):
        part = new[start : start + texts_per_file]
        some = [unique[row] for row in part]
        vectors[part] = _encode(encoder, some)
        if held is not None:
            _write(held, some, vectors[part])
    return vectors[[rows[text] for text in texts]]


def network_hash(encoder: TextEncoder) -> str:
    """Return a hash of all that decides a text's vector, 32 hexadecimal characters."""
    sha = hashlib.sha256()
    settings = getattr(encoder.body, "config", {})
    described = settings if isinstance(settings, dict) else settings.to_dict()
    parts = sorted((key, repr(value)) for key, value in described.items())
    kept = [part for part in parts if part[0] not in NOT_OF_NETWORK]
    # How strongly low-rank updates count is in no table.
    tuned = repr(getattr(encoder.body, "peft_config", None))
    sha.update(repr((type(encoder.body).__name__, kept, tuned, encoder.pooling)).encode())
    # Its text says where it cuts.
    sha.update(encoder.tokenizer.to_str().encode())
    for name, tensor in encoder.state_dict().items():
        sha.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()[:32]


def _encode(encoder: TextEncoder, texts: list[str]) -> Float32s:
    """Return vectors, (texts, dim), read in batches of similar length: less padding to compute."""
    device = next(encoder.parameters()).device
    tokens = encoder.tokenize(texts)
    lengths = tokens.attention_mask.sum(1)
    found = torch.empty((len(texts), encoder.dim))
    with _evaluating(encoder), torch.inference_mode():
        for rows in torch.split(torch.argsort(lengths, stable=True), BATCH_TEXTS):
            longest = int(lengths[rows].max())
            ids, mask = (part[rows, :longest].to(device) for part in tokens)
            found[rows] = encoder(ids, mask).float().cpu()
    vectors: Float32s = found.numpy()
    return vectors


@contextmanager
def _evaluating(encoder: TextEncoder) -> Iterator[None]:
    """Put every module into evaluation mode, and back into its own, which may differ."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _read_into(vectors: Float32s, texts: list[str], folder: Path) -> list[int]:
    """Fill the rows of texts that `folder` holds; returns the others."""
    wanted = {_key(text): row for row, text in enumerate(texts)}
    for keys, found in _files(folder, vectors.shape[1]):
        pairs = [(wanted.pop(key.tobytes(), -1), place) for place, key in enumerate(keys)]
        held = np.array([pair for pair in pairs if pair[0] >= 0], np.int64).reshape(-1, 2)
        vectors[held[:, 0]] = found[held[:, 1]]
    return sorted(wanted.values())


def _files(folder: Path, dim: int) -> Iterator[tuple[NDArray[np.uint8], Float32s]]:
    """Yield each file's keys, (texts, KEY_BYTES), and vectors, (texts, dim); removes torn ones."""
    for path in sorted(folder.glob("*.npz")):
        try:
            # Opened here: of a torn file the library would leave its own open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
                keys, found = held["keys"], held["vectors"]
            _check(keys, found, dim)
        except FileNotFoundError:
            continue  # another process found it torn, and removed it
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
            log.warning("%s: %s; its texts are read again", path, exc)
            path.unlink(missing_ok=True)
            continue
        yield keys, found


def _check(keys: NDArray[np.uint8], found: Float32s, dim: int) -> None:
    if keys.dtype != np.uint8 or keys.shape != (len(found), KEY_BYTES):
        raise ValueError(f"keys are {keys.dtype} {keys.shape}")
    if found.dtype != np.float32 or found.shape != (len(keys), dim):
        raise ValueError(f"vectors are {found.dtype} {found.shape}")


def _write(folder: Path, texts: list[str], vectors: Float32s) -> None:
    """Add a file; its name is that of its texts, so the same texts make the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = b"".join(_key(text) for text in texts)
    path = folder / f"{hashlib.sha256(keys).hexdigest()[:32]}.npz"
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.writing")
    table = np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES)
    with aside.open("wb") as stream:
        np.savez(stream, keys=table, vectors=vectors)
    aside.replace(path)
