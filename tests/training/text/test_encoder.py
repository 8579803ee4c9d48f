"""The text encoder: tokens, pooling, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.training.text.checkpoints import REAL, save_bert, save_gpt
from training.config import TextConfig, TrainingError
from training.text.encoder import TextEncoder, load_text_encoder, pool

ODD_TEXTS = ("", "🍵🍵🍵", "شاي أخضر", "tea " * 25_000)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT's folder, to be read only."""
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2's folder, to be read only."""
    return save_gpt(tmp_path_factory.mktemp("gpt"))


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    """The real MiniLM."""
    return load_text_encoder(TextConfig(weights=REAL))


def load(folder: Path, **settings: Any) -> TextEncoder:
    """Load a checkpoint of at most 24 tokens."""
    return load_text_encoder(TextConfig(weights=str(folder), max_tokens=24, **settings))


def vectors(encoder: TextEncoder, *texts: str) -> Tensor:
    """Read texts as one batch."""
    with torch.inference_mode():
        found: Tensor = encoder(*encoder.tokenize(texts))
    return found


def test_pooling_takes_the_mean_the_first_or_the_last_real_token() -> None:
    """Two texts of two and three tokens, one number each; 9 is what padding would add."""
    hidden = torch.tensor([[[1.0], [3.0], [9.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(hidden, mask, "mean").tolist() == [[(1 + 3) / 2], [(2 + 4 + 6) / 3]]
    assert pool(hidden, mask, "first").tolist() == [[1], [2]]
    assert pool(hidden, mask, "last").tolist() == [[3], [6]]


def test_pooling_goes_by_the_kind_of_network_unless_it_is_said(bert: Path, gpt: Path) -> None:
    """Only a causal network's last token has read the text."""
    assert load(bert).pooling == "mean"
    assert load(gpt).pooling == "last"
    assert load(gpt, pooling="mean").pooling == "mean"


def test_a_bert_that_was_made_a_decoder_is_causal(tmp_path: Path) -> None:
    """Its tokens see only those before them, whatever its kind is called."""
    assert load(save_bert(tmp_path, is_decoder=True)).pooling == "last"


def test_tokens_are_cut_and_padded_on_the_right(bert: Path) -> None:
    """[CLS] is 2 and [SEP] 3; the file's own fixed padding to 9 is not what is asked for."""
    tokens = load(bert).tokenize(["green tea", "tea"])
    assert tokens.input_ids.tolist() == [[2, 5, 6, 3], [2, 6, 3, 0]]
    assert tokens.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert load(bert).tokenize(["tea " * 100]).input_ids.shape == (1, 24)
    assert load(bert).tokenize([]).input_ids.shape == (0, 0)


def test_a_causal_network_reads_its_start_token_first(gpt: Path) -> None:
    """GPT-2's tokenizer makes nothing of an empty text, and there would be no last token."""
    tokens = load(gpt).tokenize(["", "a"])
    start = 256  # after the 256 bytes
    assert tokens.input_ids[:, 0].tolist() == [start, start]
    assert tokens.attention_mask.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("kind", ["bert", "gpt"])
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_does_not_change_a_vector(
    kind: str, pooling: Any, request: pytest.FixtureRequest
) -> None:
    """A text has one vector, whatever is read beside it."""
    encoder = load(request.getfixturevalue(kind), pooling=pooling)
    texts = ["tea", "green tea cup", "", "hot water and a cold steel drill"]
    together = vectors(encoder, *texts)
    alone = torch.cat([vectors(encoder, text) for text in texts])
    assert (together - alone).abs().max() < 1e-6


def test_the_last_token_of_a_causal_network_has_read_all(gpt: Path) -> None:
    """Texts that differ in their first letter only have different vectors."""
    found = vectors(load(gpt), "a tea", "b tea")
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["bert", "gpt", "minilm"])
@pytest.mark.parametrize("text", ODD_TEXTS, ids=["empty", "emoji", "right-to-left", "100 kB"])
def test_odd_texts_have_a_sane_vector(kind: str, text: str, request: pytest.FixtureRequest) -> None:
    """Catalogues have such titles; each is read like any other, and cut like any other."""
    held = request.getfixturevalue(kind)
    encoder = held if isinstance(held, TextEncoder) else load(held)
    tokens = encoder.tokenize([text])
    assert 1 <= tokens.input_ids.shape[1] <= encoder.max_tokens
    found = vectors(encoder, text)
    assert found.shape == (1, encoder.dim)
    assert found.isfinite().all()
    assert 0.01 < found.norm() < 100


def test_the_real_model_finds_similar_texts_nearer(minilm: TextEncoder) -> None:
    """Its weights are in place: random ones would not know what a drill is."""
    found = vectors(minilm, "cordless power drill", "electric screwdriver 18 V", "herbal tea bags")
    drill, driver, tea = torch.nn.functional.normalize(found, dim=1)
    assert minilm.dim == 384
    assert drill @ driver > drill @ tea + 0.2


def write_config(folder: Path, **settings: Any) -> None:
    """Change entries of a checkpoint's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def refusal(folder: Path, max_tokens: int = 24) -> str:
    """Return what is said of a checkpoint that cannot be read."""
    with pytest.raises(TrainingError) as refused:
        load_text_encoder(TextConfig(weights=str(folder), max_tokens=max_tokens))
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("vit", "'vit', which is no text network; networks of text are read: BERT-like"),
        ("t5", "'t5', an encoder and a decoder; networks of text are read: BERT-like"),
        ("clip", "'clip', which is no text network"),
        ("whisper", "'whisper', an encoder and a decoder"),
        ("of-tomorrow", "config.json cannot be read"),
    ],
)
def test_a_wrong_architecture_is_refused(bert: Path, tmp_path: Path, kind: str, said: str) -> None:
    """What is read is said, before any weights are."""
    folder = Path(shutil.copytree(bert, tmp_path / "copy"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    message = refusal(folder)
    assert message.startswith(f"text.weights: {str(folder)!r}")
    assert said in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "config.json cannot be read"),
        ("tokenizer.json", "tokenizer.json cannot be read"),
        ("model.safetensors", "the weights cannot be read"),
    ],
)
def test_a_torn_file_is_refused(bert: Path, tmp_path: Path, name: str, said: str) -> None:
    """A copy that was cut short says which file to copy again."""
    folder = Path(shutil.copytree(bert, tmp_path / "copy"))
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert said in refusal(folder)


def test_weights_that_lack_a_layer_are_refused(bert: Path, tmp_path: Path) -> None:
    """The library would make the layer up from random numbers."""
    folder = Path(shutil.copytree(bert, tmp_path / "copy"))
    write_config(folder, num_hidden_layers=3)
    assert "the weights lack 16 tables that config.json asks for, as 'encoder.layer.2." in refusal(
        folder
    )


def test_a_tokenizer_of_another_checkpoint_is_refused(
    bert: Path, gpt: Path, tmp_path: Path
) -> None:
    """Its tokens would be rows that the network does not have."""
    folder = Path(shutil.copytree(bert, tmp_path / "copy"))
    shutil.copy(gpt / "tokenizer.json", folder)
    assert "has 257 tokens, the network 21; they are not of one checkpoint" in refusal(folder)


def test_more_tokens_than_positions_are_refused(bert: Path) -> None:
    """The message says how many there may be."""
    message = refusal(bert, max_tokens=41)
    assert message.startswith("text.max_tokens: 41 is more than the 40 positions of")
    assert message.endswith("set text.max_tokens=40 or less")


def test_weights_that_are_not_numbers_are_refused(bert: Path, tmp_path: Path) -> None:
    """A checkpoint of a run that diverged."""
    folder = Path(shutil.copytree(bert, tmp_path / "copy"))
    path = folder / "model.safetensors"
    tables = load_file(path)
    tables["embeddings.word_embeddings.weight"][:] = torch.nan
    save_file(tables, path, metadata={"format": "pt"})
    assert "wanted are finite ones of 16; the checkpoint is broken" in refusal(folder)


def test_loading_prints_nothing(bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The library draws bars and tables of keys by itself."""
    load(bert)
    assert capfd.readouterr() == ("", "")
