"""Bundles that read texts: three words, each on an axis of the tiny bundle's items."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from service.contract import bundle as contract
from service.contract.features import Float32s
from tests.builders import DIM, ONNX_IR_VERSION, ONNX_OPSET, make_bundle

PAD, UNKNOWN = "[PAD]", "[UNK]"
# What the encoder makes of a word; what it does not know is nothing.
WORDS: dict[str, tuple[float, float, float]] = {
    PAD: (0.0, 0.0, 0.0),
    UNKNOWN: (0.0, 0.0, 0.0),
    "action": (1.0, 0.0, 0.0),
    "drama": (0.0, 1.0, 0.0),
    "night": (0.0, 0.0, 1.0),
}
GOLDEN_TEXTS = ("action", "A drama at night", "")
MAX_TOKENS = 8
# Longer than 0, and far below any vector's length: what it divides stays 0.
LEAST_LENGTH = 1e-6


def make_text_bundle(
    folder: Path,
    *,
    golden_texts: Sequence[str] = GOLDEN_TEXTS,
    change_texts: Callable[[Path], None] | None = None,
    **overrides: Any,
) -> Path:
    """Write the bundle of `make_bundle` with a text encoder; `change_texts` may spoil its files."""

    def add_texts(path: Path) -> None:
        write_text_encoder(path / contract.TEXT_ENCODER_FILE)
        write_tokenizer(path / contract.TOKENIZER_FILE)
        vectors = np.stack([vector_of(text) for text in golden_texts])
        np.save(path / contract.GOLDEN_TEXTS_FILE, vectors)
        if change_texts is not None:
            change_texts(path)

    spec = {
        "max_tokens": MAX_TOKENS,
        "is_quantised": False,
        "min_cosine": 1.0,
        "golden_texts": list(golden_texts),
    }
    return make_bundle(folder, change_files=add_texts, **({"text": spec} | overrides))


def vector_of(text: str) -> Float32s:
    """Return what the encoder makes of a text, (dim,), worked out in NumPy."""
    tokens = text.lower().split()[:MAX_TOKENS]
    total = np.sum([WORDS.get(word, WORDS[UNKNOWN]) for word in tokens] or [WORDS[PAD]], axis=0)
    mean = total / max(1, len(tokens))
    return np.asarray(mean / max(LEAST_LENGTH, float(np.linalg.norm(mean))), np.float32)


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of words."""
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(pad_id=0, pad_token=PAD)
    tokenizer.save(str(path))


def write_text_encoder(path: Path) -> None:
    """Write the graph: words' vectors, their mean over real tokens, at length 1."""
    constants: dict[str, NDArray[Any]] = {
        "words": np.array([*WORDS.values()], np.float32),
        "tokens": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        "one": np.array(1.0, np.float32),
        "least": np.array(LEAST_LENGTH, np.float32),
    }
    ids, mask = contract.TEXT_INPUTS
    nodes = [
        helper.make_node("Gather", ["words", ids], ["rows"], axis=0),
        helper.make_node("Cast", [mask], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["real_rows"]),
        helper.make_node("ReduceSum", ["real_rows", "tokens"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["real", "tokens"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["total", "divisor"], ["mean"]),
        helper.make_node("ReduceL2", ["mean", "tokens"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "least"], ["safe_length"]),
        helper.make_node("Div", ["mean", "safe_length"], [contract.TEXT_OUTPUT]),
    ]
    shape: list[str | int] = ["texts", "tokens"]
    graph = helper.make_graph(
        nodes,
        "mean_of_words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in (ids, mask)],
        [helper.make_tensor_value_info(contract.TEXT_OUTPUT, TensorProto.FLOAT, ["texts", DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", ONNX_OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=ONNX_IR_VERSION)
    onnx.save_model(model, str(path))
