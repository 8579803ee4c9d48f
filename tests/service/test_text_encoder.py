"""The text encoder of a bundle: the vectors of training, or a refusal with the reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.bundle_loader import load_bundle
from service.contract import bundle as contract
from service.errors import BundleRefused
from service.text_encoder import MAX_TEXTS, TextEncoder, calls_of, least_cosine, padded
from tests.text_bundles import MAX_TOKENS, make_text_bundle, vector_of

DIAGONAL = 0.5**0.5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """Return the encoder of a tiny bundle."""
    loaded = load_bundle(make_text_bundle(tmp_path_factory.mktemp("texts")))
    assert loaded.text_encoder is not None
    return loaded.text_encoder


def test_a_text_has_the_mean_of_its_words(encoder: TextEncoder) -> None:
    """`action` and `drama` are two axes: half of each, at length 1."""
    assert encoder.encode(["Action drama"])[0] == pytest.approx([DIAGONAL, DIAGONAL, 0])


def test_a_text_has_one_vector_whatever_it_is_read_with(encoder: TextEncoder) -> None:
    """Sorted by length, in two calls and padded there, each comes back to its own place."""
    texts = [f"{'drama ' * (at % 7)}night{' action' * (at % 3)}" for at in range(2 * MAX_TEXTS - 3)]
    together = encoder.encode(texts)
    assert together.shape == (len(texts), 3)
    for text, row in zip(texts, together, strict=True):
        assert row == pytest.approx(vector_of(text), abs=1e-6)
        assert encoder.encode([text])[0] == pytest.approx(row, abs=1e-6)


def test_a_text_is_cut_where_training_cut_it(encoder: TextEncoder) -> None:
    """After eight tokens the rest says nothing."""
    long = "drama " * MAX_TOKENS + "action " * 10_000
    assert encoder.encode([long])[0] == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("text", ["", "   ", "🎉🎉", "שלום", "\u0001", "x" * 100_000])
def test_a_text_that_says_nothing_known_is_finite(encoder: TextEncoder, text: str) -> None:
    """Nothing, and words that it never saw: no direction, and no NaN."""
    assert encoder.encode([text, "action"]).tolist() == [[0, 0, 0], [1, 0, 0]]


def test_no_texts_are_no_vectors(encoder: TextEncoder) -> None:
    """The graph is not asked about nothing."""
    assert encoder.encode([]).shape == (0, 3)


def test_long_texts_are_read_few_at_a_time() -> None:
    """16 texts at most; of 500 tokens, padding too, 1,024 hold two; a longer one goes alone."""
    lengths = [2_000, 500, 64, 500, *[3] * 16, 500]
    assert calls_of(lengths) == [[*range(4, 20)], [2, 1], [3, 20], [0]]
    assert calls_of([]) == []


def test_padding_is_on_the_right_and_masked() -> None:
    """A text without tokens is one that is masked."""
    ids, mask = padded([[5, 6, 7], [], [8]], pad_id=2)
    assert ids.tolist() == [[5, 6, 7], [2, 2, 2], [8, 2, 2]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert padded([[]], pad_id=2)[0].tolist() == [[2]]


def test_the_least_cosine_of_rows_is_worked_by_hand() -> None:
    """(1, 0) and (2, 0) are alike, (0, 1) and (1, 1) at 45 degrees; zeros are like zeros only."""
    one = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    assert least_cosine(one, np.array([[2, 0], [1, 1], [0, 0]], np.float32)) == pytest.approx(
        DIAGONAL
    )
    assert least_cosine(one, np.array([[2, 0], [0, 1], [0, 1]], np.float32)) == 0


def _no_tokenizer(path: Path) -> None:
    (path / contract.TOKENIZER_FILE).write_text('{"version": "1.0"}', encoding="utf-8")


def _other_golden(path: Path) -> None:
    np.save(path / contract.GOLDEN_TEXTS_FILE, np.eye(3, dtype=np.float32)[::-1])


def _golden_of_other_shape(path: Path) -> None:
    np.save(path / contract.GOLDEN_TEXTS_FILE, np.eye(3))


def _sequence_encoder(path: Path) -> None:
    other = path / contract.ENCODER_FILE
    (path / contract.TEXT_ENCODER_FILE).write_bytes(other.read_bytes())


def _no_graph(path: Path) -> None:
    (path / contract.TEXT_ENCODER_FILE).write_bytes(b"no graph")


def _gone(path: Path) -> None:
    (path / contract.TOKENIZER_FILE).unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_no_tokenizer, "tokenizer.json: is no file of a tokenizer"),
        (_other_golden, "golden_texts.npy: a text's vector here has a cosine of 0.000"),
        (_golden_of_other_shape, "golden_texts.npy: is float64"),
        (_sequence_encoder, "text_encoder.onnx: takes items, request_time_ms"),
        (_no_graph, "text_encoder.onnx: ONNX Runtime refuses it"),
        (_gone, "the manifest names no hash of tokenizer.json"),
    ],
)
def test_a_bundle_whose_text_files_do_not_fit_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    """With the file and the reason; nothing of it is served."""
    with pytest.raises(BundleRefused, match=reason):
        load_bundle(make_text_bundle(tmp_path / "b", change_texts=spoil))


def test_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    """They could not stand beside the item matrix's rows."""
    rows = {f"i{at}": row for at, row in enumerate(np.eye(7, 4, dtype=np.float32))}
    with pytest.raises(BundleRefused, match=r"the text encoder gives \(3, 3\)"):
        load_bundle(
            make_text_bundle(
                tmp_path / "b",
                item_rows=rows,
                item_facts={},
                change_texts=lambda path: np.save(
                    path / contract.GOLDEN_TEXTS_FILE, np.eye(3, 4, dtype=np.float32)
                ),
            )
        )


def test_a_bundle_without_text_files_reads_no_texts(tmp_path: Path, bundle_path: Path) -> None:
    """Nor does one that has such files and says nothing of them."""
    assert load_bundle(bundle_path).text_encoder is None
    stray = make_text_bundle(tmp_path / "b", text=None)
    assert load_bundle(stray).text_encoder is None
