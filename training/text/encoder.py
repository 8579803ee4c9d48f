"""The text encoder: a tokenizer and a transformer, pooled to one vector a text.

Bidirectional networks (BERT and its kin) are pooled by the mean of a text's tokens, causal ones
(GPT and its kin), whose last token alone has read all, by the last. Texts are padded on the right,
where a causal network's padding is seen by nobody. Tokens come from `tokenizer.json` by the
`tokenizers` library and nothing else, as in the service: one text has one sequence of tokens
wherever it is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from tokenizers import Tokenizer
from tokenizers.processors import Sequence as ProcessorSequence
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from training.config import TextConfig, TrainingError
from training.text.weights import TOKENIZER_FILE, find_weights

Pooling = Literal["mean", "first", "last"]
READ_KINDS = "networks of text are read: BERT-like (masked) and GPT-like (causal) ones"


class Tokens(NamedTuple):
    """Texts as tokens, padded on the right: both (texts, tokens) int64, the mask 1 where real."""

    input_ids: Tensor
    attention_mask: Tensor


class TextEncoder(nn.Module):
    """Texts to vectors, (texts, dim).

    `body` takes `input_ids` and `attention_mask` and gives `last_hidden_state`, (texts, tokens,
    dim); a tuning policy may put another around or in its place. `tokenizer` cuts after
    `max_tokens` and pads to the longest.
    """

    def __init__(
        self, body: nn.Module, tokenizer: Tokenizer, *, pooling: Pooling, max_tokens: int, dim: int
    ) -> None:
        super().__init__()
        self.body = body
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.dim = dim

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of texts, at least one of each; on the CPU."""
        encodings = self.tokenizer.encode_batch(list(texts))
        shape = (len(encodings), len(encodings[0].ids) if encodings else 0)
        ids = torch.tensor([entry.ids for entry in encodings], dtype=torch.int64)
        mask = torch.tensor([entry.attention_mask for entry in encodings], dtype=torch.int64)
        return Tokens(ids.reshape(shape), mask.reshape(shape))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the texts' vectors, (texts, dim)."""
        read = self.body(input_ids=input_ids, attention_mask=attention_mask)
        return pool(read.last_hidden_state, attention_mask, self.pooling)


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector a text, (texts, dim), of (texts, tokens, dim) padded on the right."""
    if pooling == "first":
        return hidden[:, 0]
    counts = mask.sum(1, keepdim=True)  # (texts, 1)
    if pooling == "last":
        last = (counts - 1).clamp(min=0).unsqueeze(2).expand(-1, 1, hidden.shape[2])
        return hidden.gather(1, last)[:, 0]
    real = mask.unsqueeze(2).to(hidden.dtype)
    return (hidden * real).sum(1) / counts.clamp(min=1).to(hidden.dtype)


def load_text_encoder(config: TextConfig) -> TextEncoder:
    """Return the encoder that `text.weights` names, in evaluation mode.

    Raises TrainingError for what is no checkpoint of a text network, for broken files, and for
    more tokens than the network has positions.
    """
    folder = find_weights(config.weights)
    described = _read_config(folder, config.weights)
    is_causal = _is_causal(described, config.weights)
    _check_positions(described, config)
    tokenizer = _read_tokenizer(folder, config, described)
    body = _read_body(folder, config.weights, described)
    pooling: Pooling = "last" if is_causal else "mean"
    encoder = TextEncoder(
        body,
        tokenizer,
        pooling=pooling if config.pooling == "auto" else config.pooling,
        max_tokens=config.max_tokens,
        dim=described.hidden_size,
    ).eval()
    _try_out(encoder, config)
    return encoder


def _read_config(folder: Path, source: str) -> Any:
    try:
        # Code from a checkpoint is never run.
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as exc:
        raise TrainingError(
            f"text.weights: {source!r}: config.json cannot be read ({_first_line(exc)}); "
            f"{READ_KINDS} that the installed transformers knows"
        ) from exc


def _is_causal(described: Any, source: str) -> bool:
    """Return whether tokens see only those before them; refuses what is no text network."""
    kind = described.model_type
    is_text = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if described.is_encoder_decoder:
        raise TrainingError(
            f"text.weights: {source!r} is of kind {kind!r}, an encoder and a decoder; {READ_KINDS}"
        )
    if not is_text or hasattr(described, "vision_config") or hasattr(described, "audio_config"):
        raise TrainingError(
            f"text.weights: {source!r} is of kind {kind!r}, which is no text network; {READ_KINDS}"
        )
    is_decoder = bool(getattr(described, "is_decoder", False))
    return is_decoder or kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _check_positions(described: Any, config: TextConfig) -> None:
    limit = getattr(described, "max_position_embeddings", None)
    if limit is not None and 0 < limit < config.max_tokens:
        raise TrainingError(
            f"text.max_tokens: {config.max_tokens} is more than the {limit} positions of "
            f"{config.weights!r}; set text.max_tokens={limit} or less"
        )


def _read_tokenizer(folder: Path, config: TextConfig, described: Any) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as exc:  # the library raises nothing more exact
        raise TrainingError(
            f"text.weights: {config.weights!r}: {TOKENIZER_FILE} cannot be read "
            f"({_first_line(exc)}); copy it again from where the checkpoint is from"
        ) from exc
    if tokenizer.get_vocab_size() > described.vocab_size:
        raise TrainingError(
            f"text.weights: {config.weights!r}: {TOKENIZER_FILE} has "
            f"{tokenizer.get_vocab_size()} tokens, the network {described.vocab_size}; "
            "they are not of one checkpoint"
        )
    tokenizer.enable_truncation(config.max_tokens)
    if not tokenizer.encode("").ids:
        _start_texts(tokenizer, described)
    pad_id = _one(described.pad_token_id) or 0
    tokenizer.enable_padding(
        direction="right", pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id) or ""
    )
    return tokenizer


def _start_texts(tokenizer: Tokenizer, described: Any) -> None:
    """Put the network's start token before each text, as documents begin in its training.

    GPT-2's tokenizer makes no token of an empty text, and there would be nothing to pool.
    """
    ids = (_one(described.bos_token_id), _one(described.eos_token_id), 0)
    start_id = next(id_ for id_ in ids if id_ is not None)
    start = tokenizer.id_to_token(start_id)
    template = TemplateProcessing(
        single=f"{start}:0 $A:0", pair=f"{start}:0 $A:0 $B:0", special_tokens=[(start, start_id)]
    )
    before = tokenizer.post_processor
    tokenizer.post_processor = template if before is None else ProcessorSequence([before, template])


def _one(token_id: int | list[int] | None) -> int | None:
    """Return a config's token, the first if it has several; None for none, which may be -1."""
    first = token_id[0] if isinstance(token_id, list) else token_id
    return None if first is None or first < 0 else first


def _read_body(folder: Path, source: str, described: Any) -> nn.Module:
    # Nothing is generated, so nothing is kept for a next token.
    described.use_cache = False
    try:
        with _quiet():
            body, report = AutoModel.from_pretrained(
                folder,
                config=described,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
    # A torn file is told by as many errors as there are formats.
    except Exception as exc:
        raise TrainingError(
            f"text.weights: {source!r}: the weights cannot be read ({_first_line(exc)}); "
            "copy them again from where the checkpoint is from"
        ) from exc
    # Of a pooler nothing is used, and checkpoints of masked language models have none.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise TrainingError(
            f"text.weights: {source!r}: the weights lack {len(missing)} tables that config.json "
            f"asks for, as {missing[0]!r}; they are not of one checkpoint"
        )
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return body  # type: ignore[no-any-return]  # transformers is not followed by mypy


def _try_out(encoder: TextEncoder, config: TextConfig) -> None:
    """Read one longest text, so that a network that cannot do so is refused before training."""
    tokens = torch.zeros((1, config.max_tokens), dtype=torch.int64)
    try:
        with torch.inference_mode():
            found = encoder(tokens, torch.ones_like(tokens))
    except (IndexError, RuntimeError, TypeError, ValueError, AttributeError) as exc:
        raise TrainingError(
            f"text.weights: {config.weights!r} reads no text of {config.max_tokens} tokens "
            f"({_first_line(exc)}); {READ_KINDS}, and a smaller text.max_tokens may do"
        ) from exc
    if found.shape != (1, encoder.dim) or not bool(found.isfinite().all()):
        raise TrainingError(
            f"text.weights: {config.weights!r} gives vectors of shape {tuple(found.shape)}, "
            f"wanted are finite ones of {encoder.dim}; the checkpoint is broken"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from drawing progress and tables of keys, which are judged here."""
    level, draws = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if draws:
            transformers_logging.enable_progress_bar()


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0][:200] or type(exc).__name__
