"""A language model's layers as the body: the same numbers as the library's, and nothing ahead."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from tests.training import builders
from training.checkpoints import BEST_FILE, load_state
from training.config import TrainingError, load_run_config
from training.items import ItemFacts
from training.model.attention import attention_mask
from training.model.language import LanguageBody, language_body
from training.model.sequence_model import SequenceModel
from training.model_config import LanguageModelConfig
from training.runs import load_run, read_inputs
from training.train import train

HIDDEN, WINDOW, VOCABULARY = 12, 7, 30
BERT_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_attention_heads": 3,
    "intermediate_size": 20, "num_hidden_layers": 3, "max_position_embeddings": 20,
}  # fmt: skip
NETWORKS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**BERT_SIZES)),
    # Its first two positions are of padding and of nothing; the norms' least variance is another.
    "roberta": lambda: RobertaModel(RobertaConfig(**BERT_SIZES, layer_norm_eps=1e-3)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(
            vocab_size=VOCABULARY, dim=HIDDEN, n_heads=3, hidden_dim=20, n_layers=3,
            max_position_embeddings=20,
        )
    ),
    "gpt2": lambda: GPT2Model(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=HIDDEN, n_head=3, n_layer=3, n_positions=20,
            bos_token_id=0, eos_token_id=0,
        )
    ),
}  # fmt: skip


def network(kind: str) -> PreTrainedModel:
    """A tiny network whose every weight counts: fresh ones have no biases."""
    torch.manual_seed(3)
    made = NETWORKS[kind]().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


def saved(made: PreTrainedModel, folder: Path) -> LanguageModelConfig:
    """Save a network as a checkpoint; returns settings that take all of its layers."""
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return LanguageModelConfig(
        weights=str(folder), num_blocks=0, dim=HIDDEN, window_len=WINDOW, dropout=0.0
    )


def open_body(config: LanguageModelConfig) -> LanguageBody:
    """A body between whose maps and the checkpoint's space nothing lies."""
    body = language_body(config).eval()
    with torch.no_grad():
        body.into.weight.copy_(torch.eye(HIDDEN))
        body.out.weight.copy_(torch.eye(HIDDEN))
    return body


def their_mask(real: Tensor, *, causal: bool) -> Tensor:
    """Return the library's additive mask, (batch, 1, queries, keys)."""
    mask = attention_mask(real, causal=causal)[0] < 0
    return torch.zeros(mask.shape).masked_fill(mask, torch.finfo(torch.float32).min)[:, None]


@torch.inference_mode()
def both(kind: str, folder: Path, *, causal: bool, num_queries: int) -> tuple[Tensor, Tensor]:
    """Return what our body and the library's network give for the same tokens."""
    made = network(kind)
    body = open_body(saved(made, folder))
    ids = torch.randint(3, VOCABULARY, (2, WINDOW), generator=torch.Generator().manual_seed(1))
    real = torch.ones(2, WINDOW, dtype=torch.bool)
    words = made.get_input_embeddings()(ids)
    ours = body(words, attention_mask(real, causal=causal), real, num_queries)
    theirs = made(input_ids=ids, attention_mask=their_mask(real, causal=causal))
    return ours, theirs.last_hidden_state[:, -num_queries:]


@pytest.mark.parametrize(
    ("kind", "causal"),
    [
        ("bert", False), ("bert", True), ("roberta", True), ("distilbert", True), ("gpt2", True),
    ],
)  # fmt: skip
def test_the_body_gives_the_networks_own_last_states(
    kind: str, causal: bool, tmp_path: Path
) -> None:
    """The same words under the same mask: every weight is where it belongs, and every step."""
    ours, theirs = both(kind, tmp_path, causal=causal, num_queries=WINDOW)
    assert (ours - theirs).abs().max().item() <= 1e-5
    assert theirs.abs().max().item() > 0.1


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_last_layer_computes_the_asked_positions_alone(kind: str, tmp_path: Path) -> None:
    """Serving asks one; the keys are still those of the whole window."""
    ours, theirs = both(kind, tmp_path, causal=True, num_queries=2)
    assert ours.shape == (2, 2, HIDDEN)
    assert (ours - theirs).abs().max().item() <= 1e-5


@torch.inference_mode()
def states(body: LanguageBody, x: Tensor, real: list[bool]) -> Tensor:
    """Return a body's states of one window, (window, dim)."""
    present = torch.tensor([real])
    found: Tensor = body(x[None], attention_mask(present, causal=True), present, len(x))[0]
    return found


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_no_position_sees_what_comes_after_it(kind: str, tmp_path: Path) -> None:
    """Also a BERT, which learned to look both ways, is made to look back alone."""
    body = open_body(saved(network(kind), tmp_path))
    x = torch.randn(WINDOW, HIDDEN)
    changed = x.clone()
    changed[4:] = torch.randn(WINDOW - 4, HIDDEN)
    before, after = states(body, x, [True] * WINDOW), states(body, changed, [True] * WINDOW)
    torch.testing.assert_close(before[:4], after[:4])
    assert not torch.allclose(before[4:], after[4:])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_padding_before_the_events_changes_nothing(kind: str, tmp_path: Path) -> None:
    """Places are counted from the first event, whatever stands before it."""
    body = open_body(saved(network(kind), tmp_path))
    x = torch.randn(WINDOW, HIDDEN)
    padded = states(body, x, [False] * 3 + [True] * 4)
    torch.testing.assert_close(padded[3:], states(body, x[3:], [True] * 4), rtol=1e-4, atol=1e-5)


def test_the_first_layers_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    """Two of three; a start from scratch has their sizes and none of their numbers."""
    made = network("bert")
    config = replace(saved(made, tmp_path), num_blocks=2)
    body, scratch = language_body(config), language_body(replace(config, start="scratch"))
    theirs = made.state_dict()["encoder.layer.1.output.dense.weight"]
    assert len(body.layers) == 2
    assert torch.equal(body.state_dict()["layers.1.feed_out.weight"], theirs)
    fresh = scratch.state_dict()
    assert {name: weight.shape for name, weight in fresh.items()} == {
        name: weight.shape for name, weight in body.state_dict().items()
    }
    assert fresh["layers.1.feed_out.weight"].std().item() == pytest.approx(0.02, rel=0.3)


def test_what_the_layers_leave_alone_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """The two maps begin as each other's reverse, so that a query begins near its last item."""
    body = language_body(replace(saved(network("bert"), tmp_path), dim=5))
    torch.testing.assert_close(body.out.weight @ body.into.weight, torch.eye(5), atol=1e-5, rtol=0)


def test_pickled_weights_and_old_names_are_read(tmp_path: Path) -> None:
    """The first BERTs call a norm's weight gamma; with a head, their names begin with `bert.`."""
    config = saved(network("bert"), tmp_path)
    expected = language_body(config).state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        "bert." + name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): each
        for name, each in tensors.items()
    }
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    found = language_body(config).state_dict()
    for name in expected.keys() - {"into.weight", "out.weight"}:
        assert torch.equal(found[name], expected[name]), name


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    """Large checkpoints are saved in parts, which an index names."""
    config = saved(network("gpt2"), tmp_path)
    expected = language_body(config).state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({name: tensors[name] for name in inside}, tmp_path / file)
    where = {name: file for file, inside in parts.items() for name in inside}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    found = language_body(config).state_dict()
    for name in expected.keys() - {"into.weight", "out.weight"}:
        assert torch.equal(found[name], expected[name]), name


def test_the_layers_of_a_real_minilm_are_read() -> None:
    """Six layers, 384 wide, of which the preset takes the first; its norms are not neutral."""
    config = load_run_config("lm").model
    assert isinstance(config, LanguageModelConfig)
    body = language_body(config)
    assert len(body.layers) == config.num_blocks
    assert body.into.weight.shape == (384, config.dim)
    assert body.num_heads == 12
    assert not torch.allclose(body.state_dict()["layers.0.feed_norm.weight"], torch.ones(384))


def test_a_learned_run_is_read_without_its_checkpoint(tmp_path: Path) -> None:
    """A bundle is exported where the run is, which need not be where the weights were."""
    dataset, _ = builders.cyclic_dataset(tmp_path)
    weights = tmp_path / "weights"
    saved(network("gpt2"), weights)
    config = builders.tiny_config(
        "model.family=lm", f"model.weights={weights}", "model.copy=false", "model.time_gaps=true"
    )
    train(read_inputs(dataset, config), config, tmp_path / "run")
    for file in weights.iterdir():
        file.unlink()
    loaded = load_run(tmp_path / "run")
    learned = load_state(tmp_path / "run" / BEST_FILE).model["body.positions.weight"]
    assert torch.equal(loaded.model.state_dict()["body.positions.weight"], learned)
    with pytest.raises(TrainingError, match=r"model\.weights"):
        SequenceModel(config.model, ItemFacts.unknown(12))


def test_time_gaps_bias_each_of_the_checkpoints_heads(tmp_path: Path) -> None:
    """The bias starts at nothing, so that the body starts as the checkpoint left it."""
    config = replace(saved(network("bert"), tmp_path), time_gaps=True)
    model = SequenceModel(config, ItemFacts.unknown(5))
    assert model.gap_bias is not None
    assert model.gap_bias.table.weight.shape[1] == 3
    assert model.gap_bias.table.weight.abs().sum().item() == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": 4}, r"model\.num_blocks = 4: .* has 3 layers; ask for as many or fewer"),
        ({"window_len": 21}, r"model\.window_len = 21: .* knows 20 positions; choose a shorter"),
        ({"weights": "/nowhere/at/all"}, r"model\.weights: '/nowhere/at/all' is no folder; name"),
        ({"weights": "package:no-such"}, r"model\.weights: 'package:no-such': no package"),
    ],
)
def test_what_a_checkpoint_has_not_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The setting, the value and the way out."""
    config = saved(network("bert"), tmp_path)
    with pytest.raises(TrainingError, match=message):
        language_body(replace(config, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "vit"}, r"holds a network of the type 'vit'; a body is made of bert, "),
        ({"model_type": ["bert"]}, r"of the type \['bert'\]"),
        ({"hidden_act": "softplus"}, r"the activation 'softplus' is not read, gelu, "),
        ({"num_attention_heads": 5}, "12 wide with 5 heads are no network"),
        ({"num_attention_heads": "3"}, "num_attention_heads = '3' must be a int"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not read, 'absolute' is"),
        ({"intermediate_size": 24}, "not of the sizes that its config.json states: .*feed_"),
        ({"num_hidden_layers": 4}, r"has no encoder\.layer\.3\..*; get the checkpoint anew"),
    ],
)
def test_a_checkpoint_that_cannot_be_a_body_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Another kind of network, or one whose files contradict each other."""
    config = saved(network("bert"), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    with pytest.raises(TrainingError, match=rf"model\.weights.*{message}"):
        language_body(config)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_named(file: str, tmp_path: Path) -> None:
    """A download that broke off."""
    config = saved(network("bert"), tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=rf"model\.weights: .*{file} cannot be read"):
        language_body(config)


def test_a_family_without_weights_is_refused_before_anything_is_read() -> None:
    """The settings say it."""
    with pytest.raises(TrainingError, match=r"model\.family = 'lm' needs model\.weights: a folder"):
        load_run_config("base", None, ["model.family=lm"])
