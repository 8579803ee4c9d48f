"""Where in a body its layers and projections are, whatever kind of network it is.

A body is what transformers' AutoModel gives for a text network: it has its layers in one list, its
sizes in `config`, and calls its attention through transformers' interface.
"""

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from training.config import TrainingError


def config_of(body: nn.Module) -> Any:
    """Return the body's configuration; its fields differ from kind to kind, so it has no type."""
    return body.config


def layers_of(body: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the name and module of each layer, lowest first; raises TrainingError without any."""
    config = config_of(body)
    for name, module in body.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return [(f"{name}.{index}", layer) for index, layer in enumerate(module)]
    raise TrainingError(f"text.weights: no list of layers in a network of type {config.model_type}")


def attentions_of(body: nn.Module) -> list[nn.Module]:
    """Return what calls the attention in each layer; raises TrainingError where that is not known.

    transformers asks of these modules that they say whether they are causal, and of no others.
    """
    found = [
        module
        for _, layer in layers_of(body)
        for module in layer.modules()
        if hasattr(module, "is_causal")
    ]
    if len(found) != len(layers_of(body)) or not getattr(
        body, "_supports_attention_backend", False
    ):
        kind = config_of(body).model_type
        raise TrainingError(f"text.policy: a network of type {kind} takes no prefix; try lora")
    return found


def feed_forward_end(layer: nn.Module, dim: int) -> str:
    """Return the name of the projection that ends a layer's feed-forward: the last onto `dim`."""
    ends: list[str] = [name for name, module in layer.named_modules() if _width(module) == dim]
    if not ends:
        raise TrainingError(f"text.policy: no feed-forward in a {type(layer).__name__}; try lora")
    return ends[-1]


def _width(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return int(module.nf) if isinstance(module, Conv1D) else None
