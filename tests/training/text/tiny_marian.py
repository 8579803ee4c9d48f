"""A Marian checkpoint that translates six words, taught in a moment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"
STEPS = 60


def save_translator(folder: Path, source: Sequence[str], target: Sequence[str]) -> None:
    """Teach a model that each source word is the target word in its place; it is of one word."""
    words = dict.fromkeys([END, UNKNOWN, PAD, *source, *target])
    tokenizer = _tokenizer(list(words))
    model = _model(len(words))
    _teach(model, tokenizer(list(source)).input_ids, tokenizer(list(target)).input_ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(words: list[str]) -> Any:
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, UNKNOWN))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, words.index(END))]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=plain, eos_token=END, unk_token=UNKNOWN, pad_token=PAD)


def _model(num_words: int) -> Any:
    torch.manual_seed(0)
    return MarianMTModel(
        MarianConfig(
            vocab_size=num_words,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=16,
            dropout=0.0,
            init_std=0.3,
            pad_token_id=2,
            eos_token_id=0,
            decoder_start_token_id=2,
            forced_eos_token_id=0,
        )
    )


def _teach(model: Any, source: list[list[int]], target: list[list[int]]) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(input_ids=torch.tensor(source), labels=torch.tensor(target)).loss
        loss.backward()
        optimizer.step()
