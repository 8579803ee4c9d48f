"""Where attention looks: the weights of every layer and head, recomputed beside the model.

The model itself keeps no weights: its fused kernel never has them. They are taken from the
inputs of each attention, so that no path of the model changes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.attention import Attention, last_positions, split_heads
from training.model.batch import Batch
from training.model.language import LanguageAttention
from training.model.sequence_model import SequenceModel
from training.model.transformer import POINTWISE_MASKED, HstuBlock


def attention_weights(model: SequenceModel, batch: Batch) -> list[Tensor]:
    """Return each layer's weights of windows, (heads, batch, length, length), the first first.

    A row is a position's, and its weights add up to 1. The length is the batch's, and one more
    where the model appends the event that is asked about. Empty for a family without attention.
    """
    found: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(READERS[type(module)](module, *inputs))

    readable = [module for module in model.body.modules() if type(module) in READERS]
    handles = [module.register_forward_pre_hook(note) for module in readable]
    try:
        with torch.inference_mode():
            model(batch, batch.items.shape[1] + int(model.bidirectional))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _language_weights(
    module: LanguageAttention, queries: Tensor, keys: Tensor, mask: Tensor
) -> Tensor:
    """Return the weights of a language model's attention, which has biases and no rotation."""
    query = split_heads(module.query(queries), module.num_heads)
    key = split_heads(module.key_value(keys).chunk(2, dim=-1)[0], module.num_heads)
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask
    return torch.softmax(logits, dim=-1)


def _pointwise_weights(module: HstuBlock, x: Tensor, mask: Tensor) -> Tensor:
    """Return HSTU's weights, which can be negative, as shares of their row's absolute sum."""
    keys = module.norm(x)
    queries = last_positions(keys, mask.shape[2])
    query = functional.silu(module.gate_query(queries)).chunk(2, dim=-1)[1]
    key = functional.silu(module.key_value(keys)).chunk(2, dim=-1)[0]
    query, key = (split_heads(part, module.num_heads) for part in (query, key))
    if module.rotary is not None:
        query, key = module.rotary(query, x.shape[1]), module.rotary(key, x.shape[1])
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask
    visible = (mask > POINTWISE_MASKED / 2).to(x.dtype)
    weights = (functional.silu(logits) * visible).abs()
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


READERS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    Attention: Attention.weights,
    LanguageAttention: _language_weights,
    HstuBlock: _pointwise_weights,
}
