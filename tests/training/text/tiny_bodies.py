"""Tiny bodies of random weights, as transformers' AutoModel gives them."""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

DIM, HEADS, LAYERS, WIDE, VOCABULARY, POSITIONS = 8, 2, 3, 16, 20, 12


def bert() -> nn.Module:
    """Return a tiny BERT of random weights, always the same."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        intermediate_size=WIDE,
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
    )
    body: nn.Module = BertModel(config).train(False)
    return body


def gpt2() -> nn.Module:
    """Return a tiny GPT-2 of random weights, always the same."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=DIM,
        n_head=HEADS,
        n_layer=LAYERS,
        n_inner=WIDE,
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
    )
    body: nn.Module = GPT2Model(config).train(False)
    return body


class LastHidden(nn.Module):
    """A body as the export asks for it: tensors in, one tensor out."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (texts, tokens, dim)."""
        hidden: Tensor = self.body(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return hidden
