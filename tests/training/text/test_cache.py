"""The cache of texts' vectors: what is read anew, and what it survives."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.text.checkpoints import save_bert, save_gpt
from training.config import TextConfig
from training.text.cache import encode_texts, network_hash
from training.text.encoder import TextEncoder, Tokens, load_text_encoder

TEXTS = ["green tea", "", "steel bolt nut", "tea", "hot water cup"]


class Counting(TextEncoder):
    """A text encoder that says what it has read, and can read only so many times."""

    seen: list[str]
    times_left = 1_000

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Note the texts; raises MemoryError when no time is left."""
        if self.times_left == 0:
            raise MemoryError
        self.times_left -= 1
        self.seen += texts
        return super().tokenize(texts)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT's folder."""
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def encoder(bert: Path) -> Counting:
    """A tiny BERT, freshly loaded, that has read nothing."""
    return counting(bert)


def counting(folder: Path, max_tokens: int = 24) -> Counting:
    """Load a checkpoint that counts."""
    encoder = load_text_encoder(TextConfig(weights=str(folder), max_tokens=max_tokens))
    encoder.__class__ = Counting
    assert isinstance(encoder, Counting)
    encoder.seen = []
    return encoder


def expected(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    """Read texts one by one."""
    with torch.inference_mode():
        return np.vstack([encoder(*encoder.tokenize([text])).numpy() for text in texts])


def test_vectors_come_in_the_order_of_the_texts(encoder: Counting, tmp_path: Path) -> None:
    """They are read by length, two hundred at a time in four batches, equal texts once."""
    texts = [" ".join(TEXTS[: 1 + number % 5]) for number in range(200)] + TEXTS
    found = encode_texts(encoder, texts, tmp_path)
    assert found.dtype == np.float32
    assert len(encoder.seen) == len(set(texts))
    assert np.abs(found - expected(encoder, texts)).max() < 1e-6


def test_only_what_is_new_is_read(encoder: Counting, tmp_path: Path) -> None:
    """The second time the rest comes from disk, bit by bit the same."""
    first = encode_texts(encoder, TEXTS[:3], tmp_path)
    assert sorted(encoder.seen) == sorted(TEXTS[:3])
    encoder.seen.clear()
    second = encode_texts(encoder, TEXTS, tmp_path)
    assert sorted(encoder.seen) == sorted(TEXTS[3:])
    assert np.array_equal(second[:3], first)
    encoder.seen.clear()
    assert np.array_equal(encode_texts(encoder, TEXTS[::-1], tmp_path), second[::-1])
    assert encoder.seen == []


def test_nothing_is_kept_without_a_folder(encoder: Counting, tmp_path: Path) -> None:
    """Texts read with weights of one step are not worth a disk."""
    assert np.array_equal(
        encode_texts(encoder, TEXTS, None), encode_texts(encoder, TEXTS, tmp_path)
    )
    assert len(encoder.seen) == 2 * len(TEXTS)


def test_no_texts_have_no_vectors(encoder: Counting, tmp_path: Path) -> None:
    """A catalogue may have none."""
    assert encode_texts(encoder, [], tmp_path).shape == (0, 16)


def test_what_decides_a_vector_has_a_folder_of_its_own(bert: Path, tmp_path: Path) -> None:
    """Weights, length, pooling; but not where the checkpoint lies."""
    encoder = counting(bert)
    plain = network_hash(encoder)
    assert network_hash(counting(save_bert(tmp_path / "elsewhere"))) == plain
    assert network_hash(counting(bert, max_tokens=20)) != plain
    assert network_hash(counting(save_gpt(tmp_path / "gpt"))) != plain
    encoder.pooling = "first"
    assert network_hash(encoder) != plain
    encoder.pooling = "mean"
    assert network_hash(encoder) == plain
    with torch.no_grad():
        next(encoder.parameters())[0, 0] += 1
    assert network_hash(encoder) != plain


def test_tuned_weights_find_nothing_of_the_untuned(encoder: Counting, tmp_path: Path) -> None:
    """Vectors of the checkpoint would be wrong for what was trained from it."""
    encode_texts(encoder, TEXTS, tmp_path)
    with torch.no_grad():
        for table in encoder.parameters():
            table.add_(0.01 * torch.randn_like(table))
    encoder.seen.clear()
    encode_texts(encoder, TEXTS, tmp_path)
    assert len(encoder.seen) == len(TEXTS)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_torn_file_is_read_again(encoder: Counting, tmp_path: Path, share: float) -> None:
    """Of three files one is cut short: its two texts are read again, and the file is whole."""
    first = encode_texts(encoder, TEXTS, tmp_path, texts_per_file=2)
    torn, *rest = sorted(tmp_path.glob("*/*.npz"))
    assert len(rest) == 2
    torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
    encoder.seen.clear()
    assert np.abs(encode_texts(encoder, TEXTS, tmp_path) - first).max() < 1e-6
    assert 1 <= len(encoder.seen) <= 2
    encoder.seen.clear()
    encode_texts(encoder, TEXTS, tmp_path)
    assert encoder.seen == []


def test_a_changed_byte_is_found(encoder: Counting, tmp_path: Path) -> None:
    """The checksum of the vectors tells; a wrong vector would be served for years."""
    encode_texts(encoder, TEXTS, tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    data = bytearray(path.read_bytes())
    data[-len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    encoder.seen.clear()
    encode_texts(encoder, TEXTS, tmp_path)
    assert len(encoder.seen) == len(TEXTS)


def test_a_file_of_another_shape_is_not_believed(encoder: Counting, tmp_path: Path) -> None:
    """Whole, and still not what this folder holds."""
    encode_texts(encoder, TEXTS, tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    np.savez(path, keys=np.zeros((5, 32), np.uint8), vectors=np.zeros((5, 15), np.float32))
    encoder.seen.clear()
    encode_texts(encoder, TEXTS, tmp_path)
    assert len(encoder.seen) == len(TEXTS)


def test_what_was_read_before_a_failure_is_kept(encoder: Counting, tmp_path: Path) -> None:
    """Of five texts in files of two, the second file's reading fails: two are held."""
    encoder.times_left = 1
    with pytest.raises(MemoryError):
        encode_texts(encoder, TEXTS, tmp_path, texts_per_file=2)
    encoder.times_left = 1
    encoder.seen.clear()
    encode_texts(encoder, TEXTS, tmp_path)
    assert len(encoder.seen) == 3


def test_reading_is_without_dropout_and_the_mode_is_put_back(encoder: Counting) -> None:
    """BERT drops a tenth in training mode, and no vector would be the same twice."""
    encoder.train()
    frozen = encoder.body.get_submodule("embeddings").eval()
    first = encode_texts(encoder, TEXTS, None)
    assert np.array_equal(encode_texts(encoder, TEXTS, None), first)
    assert encoder.body.training
    assert not frozen.training


@pytest.mark.integration
def test_two_processes_at_once_both_have_all(bert: Path, tmp_path: Path) -> None:
    """Both read the same hundred texts, keep them, and a third reads nothing."""
    texts = [f"tea cup {number} nut" for number in range(100)]
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from training.config import TextConfig\n"
        "from training.text.cache import encode_texts\n"
        "from training.text.encoder import load_text_encoder\n"
        "encoder = load_text_encoder(TextConfig(weights=sys.argv[1], max_tokens=24))\n"
        "texts = [f'tea cup {number} nut' for number in range(100)]\n"
        "found = encode_texts(encoder, texts, Path(sys.argv[2]), texts_per_file=10)\n"
        "print(found.shape, bool(abs(found).sum(1).min() > 0))\n"
    )
    command = [sys.executable, "-c", code, str(bert), str(tmp_path)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (out.strip(), err) == ("(100, 16) True", "")
    encoder = counting(bert)
    found = encode_texts(encoder, texts, tmp_path)
    assert encoder.seen == []
    assert np.abs(found - expected(encoder, texts)).max() < 1e-6
    assert list(tmp_path.rglob("*.writing")) == []
