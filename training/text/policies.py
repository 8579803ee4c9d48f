"""Fine-tuning policies: what of a language model's body learns by the run's loss.

Either some of its own parameters do (`frozen`, `head`, `last-n`, `full`), or few that are put into
it: low-rank updates (LoRA, Hu et al., 2022; AdaLoRA, Zhang et al., 2023) by peft, prefixes and
adapters by our own modules. All but the prefix start as the pre-trained network, to the bit.
"""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from training.config import TextConfig, TextPolicy, TrainingError
from training.text.bottleneck import add_adapters
from training.text.layers import layers_of
from training.text.low_rank import LowRank, add_adalora, add_lora
from training.text.prefix import add_prefixes

# A head for other tasks: no text vector comes from it, so it would learn nothing.
UNUSED = "pooler."


class Tuner:
    """A body and what of it learns; `body` is called as before, its class is as before.

    `learning` are the names of the parameters that learn.
    """

    def __init__(self, body: nn.Module, learning: frozenset[str], added: LowRank | None) -> None:
        self.body = body
        self.learning = learning
        self._added = added

    def set_learning(self) -> int:
        """Let those parameters learn and no others of the body; return how many numbers they are.

        Below the lowest of them nothing needs a gradient, so nothing is kept for one.
        """
        count = 0
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad = name in self.learning
            count += parameter.numel() if name in self.learning else 0
        return count

    def extra_loss(self) -> Tensor | None:
        """Return what the policy adds to the loss, (), or None: AdaLoRA's orthogonality."""
        return None if self._added is None else self._added.extra_loss()

    def after_step(self, step: int) -> None:
        """Do what the policy does after step `step`, from 1: AdaLoRA's ranks.

        Call it after the optimiser's step, while the gradients are still there.
        """
        if self._added is not None:
            self._added.after_step(step)

    def merged(self) -> nn.Module:
        """Return a body for the export: low-rank updates added to its weights, in a copy.

        Prefixes and adapters do not merge: with them it is the body itself.
        """
        return self.body if self._added is None else copy.deepcopy(self._added).merge()


def make_tuner(body: nn.Module, config: TextConfig, num_steps: int) -> Tuner:
    """Make a body learn by the run's policy for `num_steps` steps; the body is changed in place.

    Torch's own generator draws what is new. Raises TrainingError that names `text.policy` or
    `text.last_layers` where the body cannot do it.
    """
    own = {id(parameter) for parameter in body.parameters()}
    added = _ADD[config.policy](body, config, num_steps) if config.policy in _ADD else None
    tuner = Tuner(body, frozenset(_learning(body, config, own)), added)
    tuner.set_learning()
    return tuner


def _learning(body: nn.Module, config: TextConfig, own: set[int]) -> list[str]:
    """Return the names of what learns; `own` are the ids of what the body came with."""
    names = [name for name, _ in body.named_parameters()]
    if config.policy in ("frozen", "head"):
        return []
    if config.policy == "full":
        return [name for name in names if not name.startswith(UNUSED)]
    if config.policy == "last-n":
        last = tuple(f"{name}." for name in _last_layers(body, config.last_layers))
        return [name for name in names if name.startswith(last)]
    # AdaLoRA's count of ranks is a parameter that does not learn.
    added = ((name, id(parameter)) for name, parameter in body.named_parameters())
    return [name for name, key in added if key not in own and ".ranknum." not in name]


def _last_layers(body: nn.Module, count: int) -> list[str]:
    names = [name for name, _ in layers_of(body)]
    if count > len(names):
        raise TrainingError(f"text.last_layers: {count}, the network has {len(names)} layers")
    return names[-count:]


def _prefix(body: nn.Module, config: TextConfig, _num_steps: int) -> None:
    add_prefixes(body, config.num_prefix)


def _adapter(body: nn.Module, config: TextConfig, _num_steps: int) -> None:
    add_adapters(body, config.adapter_dim)


_Add = Callable[[nn.Module, TextConfig, int], LowRank | None]
_ADD: dict[TextPolicy, _Add] = {
    "lora": lambda body, config, _: add_lora(body, config.rank),
    "adalora": lambda body, config, num_steps: add_adalora(body, config.rank, num_steps),
    "prefix": _prefix,
    "adapter": _adapter,
}
