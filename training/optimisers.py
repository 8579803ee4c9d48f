"""Optimisers, their schedule, and which parameters learn at all."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from training.config import OptimConfig, PretrainConfig
from training.model.sequence_model import SequenceModel


def make_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """Build the configured optimiser, fused, with weight decay on matrices only.

    Biases, norms and lookup tables are spared: decaying a table's row on every step would shrink
    what is rare, however often it is right.
    """
    tables = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in model.parameters():
        matrix = parameter.ndim > 1 and id(parameter) not in tables
        (decayed if matrix else spared).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, fused=True
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    betas = (config.beta1, config.beta2)
    return kind(groups, lr=config.learning_rate, betas=betas, fused=True)


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Return the rate of a step, counted from 1, of a run of at most `num_steps`.

    >>> learning_rate(OptimConfig(learning_rate=1.0, warmup_steps=4), 2, 100)
    0.5
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    past = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, past))) / 2
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * cosine)


def freeze(model: SequenceModel, config: PretrainConfig, epoch: int) -> int:
    """Let only those parameters learn that the policy names at an epoch; returns how many do.

    Heads, the output norm and what conditions the query always learn. `head-only` stops there;
    `last-n` adds the last layers of the body, `gradual` one more every `stage_epochs` epochs and
    the item vectors when all layers learn (Howard & Ruder, 2018, section 3.3).
    """
    layers = list(model.body.layers)  # type: ignore[arg-type]  # a ModuleList
    count = len(layers)
    if config.freeze == "head-only":
        count = 0
    elif config.freeze == "last-n":
        count = config.unfrozen_layers
    elif config.freeze == "gradual":
        count = (epoch - 1) // config.stage_epochs
    everything = config.freeze == "none" or (config.freeze == "gradual" and count > len(layers))
    model.requires_grad_(everything)
    parts: list[nn.Module | None] = [
        model.heads, model.request_time, model.request_place, model.copy_head,
        *(part for name, part in model.body.named_children() if name != "layers"),
        *layers[max(0, len(layers) - count) :],
    ]  # fmt: skip
    for part in parts:
        if part is not None:
            part.requires_grad_(True)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
