"""The text encoder in a bundle: its rows are those of torch, and its files say nothing else."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from service.contract import bundle as contract
from service.contract.features import Float32s
from tests.training.text.checkpoints import REAL, WORDS, save_bert, save_gpt
from training.config import TextConfig, TrainingError
from training.text.cache import encode_texts, network_hash
from training.text.encoder import TextEncoder, load_text_encoder
from training.text.export import GOLDEN_TEXTS, OnnxTexts, TextRows, cosines, write_text_encoder
from training.text.whitening import Whitening, fit_whitening

EXPORT_LOG = "training.text.export"
ALWAYS, NEVER = (-1.0, -1.0), (2.0, 2.0)
TEXTS = tuple(f"{first} {second}" for first in WORDS for second in WORDS[:5])
ODD_TEXTS = ("", "🍵🍵", "שולחן עץ", "tea " * 1_000, "green steel tea")


class Head(nn.Module):
    """A projection to five numbers, and their direction: what a model does to its items."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.projection = nn.Linear(dim, 5)

    def forward(self, whitened: Tensor) -> Tensor:
        """Return (texts, 5)."""
        return nn.functional.normalize(self.projection(whitened), dim=1)


@dataclass(frozen=True)
class Written:
    """A text encoder before and after."""

    encoder: TextEncoder
    whitening: Whitening
    head: nn.Module
    folder: Path
    spec: contract.TextSpec
    hash_before: str

    def expected(self, texts: tuple[str, ...]) -> Float32s:
        """Return the rows of torch, (texts, 5), each text read alone."""
        rows = copy.deepcopy(TextRows(self.encoder, self.whitening, self.head)).eval()
        with torch.inference_mode():
            found = [rows(*self.encoder.tokenize([text])) for text in texts]
        joined: Float32s = torch.cat(found).numpy()
        return joined

    def read(self, texts: tuple[str, ...]) -> Float32s:
        """Return the rows of the files, (texts, 5)."""
        files = (contract.TEXT_ENCODER_FILE, contract.TOKENIZER_FILE)
        return OnnxTexts(*(self.folder / name for name in files)).read(texts)


def write(
    checkpoint: Path | str, folder: Path, texts: tuple[str, ...], least: tuple[float, float]
) -> Written:
    """Write the files of a checkpoint's encoder."""
    encoder = load_text_encoder(TextConfig(weights=str(checkpoint), max_tokens=24))
    whitening = fit_whitening(encode_texts(encoder, texts, None), texts)
    head, before = Head(encoder.dim).train(), network_hash(encoder.train())
    folder.mkdir(exist_ok=True)
    spec = write_text_encoder(encoder, whitening, head, texts, folder, least=least)
    return Written(encoder, whitening, head, folder, spec, before)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A tiny BERT in float32."""
    folder = tmp_path_factory.mktemp("bert")
    return write(save_bert(folder / "weights"), folder / "bundle", TEXTS, NEVER)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A tiny GPT-2 in float32."""
    folder = tmp_path_factory.mktemp("gpt")
    return write(save_gpt(folder / "weights"), folder / "bundle", TEXTS, NEVER)


@pytest.fixture(scope="module")
def gpt_int8(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A tiny GPT-2 in int8, whose linear layers hold their weights the other way round."""
    folder = tmp_path_factory.mktemp("gpt8")
    return write(save_gpt(folder / "weights"), folder / "bundle", TEXTS, ALWAYS)


BOTH = ("bert", pytest.param("gpt", marks=pytest.mark.integration))


@pytest.mark.parametrize("kind", BOTH)
def test_float32_rows_are_those_of_torch(kind: str, request: pytest.FixtureRequest) -> None:
    """At any number of tokens, from two to the most that are read."""
    written: Written = request.getfixturevalue(kind)
    texts = TEXTS + ODD_TEXTS
    assert np.abs(written.read(texts) - written.expected(texts)).max() <= 1e-4
    assert not written.spec.is_quantised
    assert written.spec.min_cosine == pytest.approx(1, abs=1e-5)


def test_int8_rows_are_near_those_of_torch(gpt_int8: Written) -> None:
    """The spec says how near the worst is, and is right about texts that it did not see."""
    assert gpt_int8.spec.is_quantised
    found = cosines(gpt_int8.read(TEXTS), gpt_int8.expected(TEXTS))
    assert found.min() > 0.9
    assert found.mean() > 0.99
    assert 0.9 < gpt_int8.spec.min_cosine < 0.999999


def test_int8_weights_are_int8_and_those_behind_the_network_are_not(gpt_int8: Written) -> None:
    """Two layers of four products; whitening and projection are in float32 as they were."""
    nodes = onnx.load(gpt_int8.folder / contract.TEXT_ENCODER_FILE).graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count("MatMulInteger") == 2 * 4
    assert kinds.count("MatMul") + kinds.count("Gemm") == 2


@pytest.mark.parametrize("kind", ["bert", "gpt_int8"])
def test_texts_and_tokens_are_free(kind: str, request: pytest.FixtureRequest) -> None:
    """One text or many, one token or many, padded or not."""
    written: Written = request.getfixturevalue(kind)
    session = ort.InferenceSession(written.folder / contract.TEXT_ENCODER_FILE)
    assert [entry.name for entry in session.get_inputs()] == list(contract.TEXT_INPUTS)
    assert [entry.name for entry in session.get_outputs()] == [contract.TEXT_OUTPUT]
    for shape in ((1, 1), (1, 24), (3, 2), (64, 7)):
        fed = dict.fromkeys(contract.TEXT_INPUTS, np.ones(shape, np.int64))
        (rows,) = session.run(None, fed)
        assert rows.shape == (shape[0], 5)
        assert rows.dtype == np.float32


@pytest.mark.parametrize("kind", ["bert", "gpt_int8"])
def test_padding_does_not_change_a_row(kind: str, request: pytest.FixtureRequest) -> None:
    """The service reads several texts at once: 8-bit scales must not be shared among them."""
    written: Written = request.getfixturevalue(kind)
    session = ort.InferenceSession(written.folder / contract.TEXT_ENCODER_FILE)
    tokens = written.encoder.tokenize(ODD_TEXTS)
    fed = {name: part.numpy() for name, part in zip(contract.TEXT_INPUTS, tokens, strict=True)}
    (rows,) = session.run(None, fed)
    assert cosines(rows, written.read(ODD_TEXTS)).min() > 0.9999


@pytest.mark.parametrize("kind", ["bert", "gpt_int8"])
def test_the_tokenizers_file_cuts_and_pads_as_the_encoder(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Whoever opens it needs to be told nothing else."""
    written: Written = request.getfixturevalue(kind)
    tokenizer = Tokenizer.from_file(str(written.folder / contract.TOKENIZER_FILE))
    read = tokenizer.encode_batch(list(ODD_TEXTS))
    tokens = written.encoder.tokenize(ODD_TEXTS)
    assert [text.ids for text in read] == tokens.input_ids.tolist()
    assert [text.attention_mask for text in read] == tokens.attention_mask.tolist()
    assert tokens.input_ids.shape[1] == written.spec.max_tokens == 24


@pytest.mark.parametrize("kind", ["bert", "gpt_int8"])
def test_golden_texts_have_the_rows_of_the_file(kind: str, request: pytest.FixtureRequest) -> None:
    """One of them is of emoji, one is written from right to left."""
    written: Written = request.getfixturevalue(kind)
    golden = np.load(written.folder / contract.GOLDEN_TEXTS_FILE)
    assert written.spec.golden_texts == GOLDEN_TEXTS
    assert golden.dtype == np.float32
    assert np.abs(golden - written.read(GOLDEN_TEXTS)).max() < 1e-6


@pytest.mark.parametrize("kind", ["bert", "gpt_int8"])
def test_the_graph_names_no_path_and_no_code(kind: str, request: pytest.FixtureRequest) -> None:
    """The exporter notes a stack trace at every node, with the folders of whoever exports."""
    written: Written = request.getfixturevalue(kind)
    data = (written.folder / contract.TEXT_ENCODER_FILE).read_bytes()
    for trace in (b"stack_trace", b"site-packages", b".py", str(written.folder.parent).encode()):
        assert trace not in data
    assert sorted(path.name for path in written.folder.iterdir()) == sorted(contract.TEXT_FILES)


def test_the_encoder_is_as_it_was(gpt_int8: Written) -> None:
    """Smoothing moves weights about and the export evaluates: in a copy, since a run may go on."""
    assert network_hash(gpt_int8.encoder) == gpt_int8.hash_before
    assert gpt_int8.encoder.training
    assert gpt_int8.head.training


@pytest.mark.integration
def test_a_graph_that_is_not_torch_is_refused(tmp_path: Path) -> None:
    """The exporter takes one of two ways for good, where torch takes one by what it reads."""

    class Fickle(Head):
        def forward(self, whitened: Tensor) -> Tensor:
            return super().forward(whitened) + (0.0 if torch.compiler.is_exporting() else 0.01)

    encoder = load_text_encoder(TextConfig(weights=str(save_bert(tmp_path / "w")), max_tokens=24))
    whitening = fit_whitening(encode_texts(encoder, TEXTS, None), TEXTS)
    with pytest.raises(TrainingError, match=r"torch and ONNX Runtime differ by 1\.00e-02"):
        write_text_encoder(encoder, whitening, Fickle(16), TEXTS, tmp_path, least=NEVER)


@pytest.mark.integration
def test_the_real_model_keeps_its_quality_in_int8(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A quarter of its 90 MB; similar texts stay nearer than others; one line is logged."""
    kinds = ("power drill", "herbal tea", "steel bolts", "paper towels", "safety gloves")
    texts = tuple(f"{kind} {word} {of}" for kind in kinds for word in WORDS for of in WORDS[:5])
    encoder = load_text_encoder(TextConfig(weights=REAL))
    whitening = fit_whitening(encode_texts(encoder, texts, None), texts, out=16)
    with caplog.at_level(logging.INFO):
        spec = write_text_encoder(encoder, whitening, nn.Identity(), texts, tmp_path)
    assert spec.is_quantised
    assert spec.min_cosine > 0.9
    assert (tmp_path / contract.TEXT_ENCODER_FILE).stat().st_size < 26e6
    files = (contract.TEXT_ENCODER_FILE, contract.TOKENIZER_FILE)
    read = OnnxTexts(*(tmp_path / name for name in files)).read
    drill, driver, tea = read(("cordless drill bit", "power drill 18 V", "green tea cup"))
    assert cosines(drill[None], driver[None]) > cosines(drill[None], tea[None]) + 0.2
    ours = [record.name for record in caplog.records if record.name in {"root", EXPORT_LOG}]
    assert ours == [EXPORT_LOG]
