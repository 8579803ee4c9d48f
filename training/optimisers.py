"""Optimisers, their schedule, and which parameters learn at all."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from training.config import OptimConfig, PretrainConfig
from training.model.sequence_model import SequenceModel

# A parameter group's rate over the schedule's.
RATE_SCALE = "rate_scale"


def make_optimizer(
    model: nn.Module,
    config: OptimConfig,
    text_reader: nn.Module | None = None,
    text_rate: float = 0.0,
) -> Optimizer:
    """Build the configured optimiser, fused, with weight decay on matrices only.

    `text_reader`, a language model inside the model, learns at `text_rate` where the rest learns at
    the configured rate: each group's RATE_SCALE times the schedule is its rate.

    Biases, norms and lookup tables are spared: decaying a table's row on every step would shrink
    what is rare, however often it is right.
    """
    tables = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    readers = set() if text_reader is None else {id(weight) for weight in text_reader.parameters()}
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        matrix = parameter.ndim > 1 and id(parameter) not in tables
        found.setdefault((matrix, id(parameter) in readers), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if is_decayed else 0.0,
            RATE_SCALE: text_rate / config.learning_rate if reads and config.learning_rate else 1.0,
        }
        for (is_decayed, reads), parameters in sorted(found.items(), reverse=True)
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
    if everything and model.items.texts is not None:
        model.items.texts.set_learning()
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
