"""Low-rank updates of the attention's projections, by peft: LoRA and AdaLoRA.

peft's classes around a whole model are left out: its tuners change the body in place, and the body
stays what it was to everything that calls or saves it.
"""

from typing import Any, Protocol

import torch
from peft import AdaLoraConfig, AdaLoraModel, LoraConfig, LoraModel
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from training.text.layers import config_of

ADAPTER = "default"
# The part of a body with AdaLoRA that has its allocation.
ALLOCATION = "rank_allocation"
# An update counts `ALPHA` times: twice the rank as LoRA's alpha, whatever the rank.
ALPHA = 2
# AdaLoRA as in its paper: from 1.5 times the rank on average, all of it for the first tenth of the
# steps, the last three tenths at the final ranks; the weight of the orthogonality is its gamma.
START_RANK = 1.5
WARM_UP, SETTLED = 0.1, 0.3
ORTHOGONALITY = 0.1
NUM_ALLOCATIONS = 100
# Kinds that peft's own table of attention projections leaves out.
MORE_TARGETS = {"distilbert": ["q_lin", "v_lin"]}


class LowRank(Protocol):
    """What was put into a body; see `training.text.policies.Tuner` for the three."""

    def extra_loss(self) -> Tensor | None:
        """Return what is added to the loss, () or None."""
        ...

    def after_step(self, step: int) -> None:
        """Do what is to be done after a step."""
        ...

    def merge(self) -> nn.Module:
        """Add the updates to the body's weights, in place, and return it without them."""
        ...


class Lora:
    """LoRA: W + 2 BA with B and A of a low rank, B zero at the start."""

    def __init__(self, tuner: LoraModel) -> None:
        self._tuner = tuner

    def extra_loss(self) -> None:
        """LoRA adds nothing to the loss."""

    def after_step(self, step: int) -> None:
        """LoRA does nothing between steps."""

    def merge(self) -> nn.Module:
        """Add the updates to the body's weights, in place, and return it without them."""
        body: nn.Module = self._tuner.merge_and_unload()
        return body


class AdaLora:
    """AdaLoRA: W + P Λ Q, whose least important of all Λ are cut to zero over the steps.

    Importance is the running mean of |weight × gradient| times that of its change.
    """

    def __init__(self, tuner: AdaLoraModel) -> None:
        # peft tells few types of what it keeps and gives.
        self._tuner: Any = tuner
        self._allocation = Allocation(tuner)
        tuner.model.add_module(ALLOCATION, self._allocation)

    def extra_loss(self) -> Tensor:
        """Return γ × the mean over all P and Q of ||PᵀP − I|| and ||QQᵀ − I||, section 3.1."""
        norms = [
            _from_orthogonal(parameter if ".lora_A." in name else parameter.T)
            for name, parameter in self._tuner.model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        return ORTHOGONALITY * torch.stack(norms).mean()

    def after_step(self, step: int) -> None:
        """Judge the entries by the step's gradients and cut those that the budget leaves out."""
        for name, parameter in self._tuner.model.named_parameters():
            # A step that read no text: its gradients are zero.
            if ".lora_" in name and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._allocation.restore(self._tuner)
        self._tuner.update_and_allocate(step)
        self._allocation.keep(self._tuner)

    def merge(self) -> nn.Module:
        """Add the updates to the body's weights, in place, and return it without them."""
        body: nn.Module = self._tuner.merge_and_unload()
        delattr(body, ALLOCATION)
        return body


class Allocation(nn.Module):
    """What AdaLoRA knows of its entries, as buffers: a run that goes on from a checkpoint needs it.

    peft keeps it in dictionaries by the parameters' names, which no checkpoint has.
    """

    def __init__(self, tuner: AdaLoraModel) -> None:
        super().__init__()
        self._names: list[str] = []
        for name, parameter in tuner.model.named_parameters():
            if ".lora_" in name:
                index = len(self._names)
                self._names.append(name)
                self.register_buffer(f"importance{index}", torch.zeros_like(parameter))
                self.register_buffer(f"uncertainty{index}", torch.zeros_like(parameter))
                self.register_buffer(f"kept{index}", torch.ones(len(parameter), dtype=torch.bool))

    def restore(self, tuner: Any) -> None:
        """Tell peft's allocator what is known."""
        allocator, pattern = tuner.rankallocator, {}
        for index, name in enumerate(self._names):
            # Overwritten before it is read, but its absence makes peft start anew.
            allocator.ipt[name] = self.get_buffer(f"importance{index}")
            allocator.exp_avg_ipt[name] = self.get_buffer(f"importance{index}")
            allocator.exp_avg_unc[name] = self.get_buffer(f"uncertainty{index}")
            if ".lora_E." in name:
                pattern[name] = self.get_buffer(f"kept{index}").tolist()
        tuner.peft_config[ADAPTER].rank_pattern = pattern

    def keep(self, tuner: Any) -> None:
        """Take over what peft's allocator knows now; after the last cut that is only the cut."""
        allocator, pattern = tuner.rankallocator, tuner.peft_config[ADAPTER].rank_pattern
        for index, name in enumerate(self._names):
            importance = self.get_buffer(f"importance{index}")
            uncertainty = self.get_buffer(f"uncertainty{index}")
            importance.copy_(allocator.exp_avg_ipt.get(name, torch.zeros_like(importance)))
            uncertainty.copy_(allocator.exp_avg_unc.get(name, torch.zeros_like(uncertainty)))
            if name in pattern:
                kept = self.get_buffer(f"kept{index}")
                kept.copy_(torch.tensor(pattern[name]))


def add_lora(body: nn.Module, rank: int) -> Lora:
    """Put LoRA into a body, in place."""
    config = LoraConfig(r=rank, lora_alpha=ALPHA * rank, **_targets(body))
    return Lora(LoraModel(body, config, ADAPTER))


def add_adalora(body: nn.Module, rank: int, num_steps: int) -> AdaLora:
    """Put AdaLoRA into a body, in place; after the steps its ranks are `rank` on average."""
    start_rank = max(int(START_RANK * rank), rank + 1)
    config = AdaLoraConfig(
        init_r=start_rank,
        target_r=rank,
        lora_alpha=ALPHA * start_rank,
        tinit=int(WARM_UP * num_steps),
        tfinal=int(SETTLED * num_steps),
        deltaT=max(num_steps // NUM_ALLOCATIONS, 1),
        # The last cut is made by what an earlier step has shown, so there are two.
        total_step=max(num_steps, 2),
        **_targets(body),
    )
    return AdaLora(AdaLoraModel(body, config, ADAPTER))


def _targets(body: nn.Module) -> dict[str, Any]:
    kind = config_of(body).model_type
    known = {**TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, **MORE_TARGETS}
    return {
        "target_modules": known.get(kind, "all-linear"),
        # GPT-2's projections keep their weights the other way round.
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in body.modules()),
    }


def _from_orthogonal(rows: Tensor) -> Tensor:
    """Return ||M Mᵀ − I|| (Frobenius) for rows (rank, dim)."""
    gram = rows @ rows.T
    norm: Tensor = torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device))
    return norm
