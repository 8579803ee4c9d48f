"""Which rate a step has, what decays, and which parameters a policy lets learn."""

import pytest

from tests.training import builders
from training.config import OptimConfig, PretrainConfig
from training.items import ItemFacts
from training.model.sequence_model import SequenceModel
from training.optimisers import freeze, learning_rate, make_optimizer

OPTIM = OptimConfig(learning_rate=1.0, warmup_steps=10, schedule="cosine", final_rate=0.1)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(5, 0.5), (10, 1.0), (60, 0.55), (110, 0.1), (500, 0.1)],
)
def test_the_rate_rises_and_then_falls_as_a_cosine(step: int, rate: float) -> None:
    """Half way down it is the mean of both ends: (1 + 0.1) / 2; it never goes below the end."""
    assert learning_rate(OPTIM, step, 110) == pytest.approx(rate)


def test_a_constant_rate_stays() -> None:
    """The schedule is a choice."""
    assert learning_rate(OptimConfig(learning_rate=0.3, warmup_steps=0), 900, 10) == 0.3


def tiny() -> SequenceModel:
    """A model with two blocks."""
    return SequenceModel(builders.tiny_config().model, ItemFacts.unknown(5))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_only_matrices_decay(name: str) -> None:
    """An item table, a norm or a bias that decays forgets what is rare."""
    model = tiny()
    config = OptimConfig(name=name, weight_decay=0.1)  # type: ignore[arg-type]  # parametrised
    decayed, spared = make_optimizer(model, config).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    spared_ids = {id(p) for p in spared["params"]}
    assert id(model.items.identity.weight) in spared_ids
    assert all(p.ndim == 2 for p in decayed["params"])
    both = len(decayed["params"]) + len(spared["params"])
    assert both == len(list(model.parameters()))


def learning(model: SequenceModel) -> set[str]:
    """The parts that learn: items, the blocks by number, heads."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    blocks = {name.split(".")[2] for name in names if name.startswith("body.layers.")}
    parts = {name.split(".")[0] for name in names} & {"items", "heads"}
    return parts | blocks


@pytest.mark.parametrize(
    ("policy", "epoch", "expected"),
    [
        ("none", 1, {"items", "heads", "0", "1"}),
        ("head-only", 9, {"heads"}),
        ("last-n", 1, {"heads", "1"}),
        ("gradual", 1, {"heads"}),
        ("gradual", 3, {"heads", "1"}),
        ("gradual", 5, {"heads", "0", "1"}),
        ("gradual", 7, {"items", "heads", "0", "1"}),
    ],
)
def test_a_freeze_policy_lets_learn_what_it_names(
    policy: str, epoch: int, expected: set[str]
) -> None:
    """Two blocks; gradual thaws one every two epochs, last of all the items."""
    model = tiny()
    config = PretrainConfig(freeze=policy, stage_epochs=2)  # type: ignore[arg-type]  # parametrised
    freeze(model, config, epoch)
    assert learning(model) == expected
