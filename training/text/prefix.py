"""Prefix tuning: learned keys and values before each layer's own (Li & Liang, 2021).

peft passes its prefixes as the cache of earlier tokens. An encoder reads no earlier tokens: there
the cache moves all texts on by `num_prefix` positions, is deprecated by the name peft gives it, and
stands in the way of an export. So the prefix is put where keys meet queries, through transformers'
interface for attention: positions stay as they were, the outputs are those of the tokens alone.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training.text.layers import attentions_of, config_of

PREFIX_ATTENTION = "sojourn_prefix"
# That of the weights of BERT and GPT-2 at their start.
START_STD = 0.02


def add_prefixes(body: nn.Module, num_prefix: int) -> None:
    """Give each layer's attention a parameter `prefix` (2, heads, num_prefix, head_dim), in place.

    Its two halves are keys and values. Raises TrainingError where a body takes no prefix.
    """
    config = config_of(body)
    attentions = attentions_of(body)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for attention in attentions:
        like = next(attention.parameters())
        start = torch.randn(2, heads, num_prefix, head_dim, device=like.device, dtype=like.dtype)
        attention.register_parameter("prefix", nn.Parameter(START_STD * start))
    AttentionInterface.register(PREFIX_ATTENTION, prefix_attention)
    AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)
    body.set_attn_implementation(PREFIX_ATTENTION)  # type: ignore[operator]  # of PreTrainedModel


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to the module's prefix and the tokens; all three are (batch, heads, tokens, head_dim).

    `attention_mask` (batch, 1, tokens, tokens) says what is seen, or is added; a prefix always is
    seen. Without one all tokens are seen, or those before where the module is causal.
    """
    prefix_key, prefix_value = module.get_parameter("prefix").to(key.dtype)
    num_prefix = prefix_key.shape[1]
    # Not len(key): an export would fix the number of texts.
    batch = key.shape[0]
    if attention_mask is None and module.is_causal:
        attention_mask = _causal_mask(query.shape[2], query.device)
    if attention_mask is not None:
        seen = 1.0 if attention_mask.dtype == torch.bool else 0.0
        ahead = attention_mask.new_full((*attention_mask.shape[:-1], num_prefix), seen)
        attention_mask = torch.cat([ahead, attention_mask], dim=-1)
    attended: tuple[Tensor, None] = sdpa_attention_forward(
        module,
        query,
        torch.cat([prefix_key.expand(batch, -1, -1, -1), key], dim=2),
        torch.cat([prefix_value.expand(batch, -1, -1, -1), value], dim=2),
        attention_mask,
        **kwargs,
    )
    return attended


def _causal_mask(num_tokens: int, device: torch.device) -> Tensor:
    """Return what each token sees, (1, 1, num_tokens, num_tokens) bool."""
    position = torch.arange(num_tokens, device=device)
    return (position[:, None] >= position[None, :])[None, None]
