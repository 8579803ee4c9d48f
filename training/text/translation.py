"""Back-translation: a text into another language and back, by two Marian models of the user's.

Sennrich et al. (2016) translate to have more training data; the way there and back says the same in
other words. Marian checkpoints are those of the OPUS-MT project, as transformers reads them.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, MarianMTModel

from training.config import TextConfig, TrainingError

# A translation of a title is not much longer than the title; of an untrained model it never ends.
MAX_NEW_TOKENS = 128
BATCH = 32


class Translator(Protocol):
    """Texts of one language in, of another out."""

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the translation of each text."""
        ...


class MarianTranslator:
    """A Marian model from a folder; translates greedily, so equal texts become equal texts."""

    def __init__(self, model: MarianMTModel, tokenizer: Any) -> None:
        self._model: Any = model.requires_grad_(False).train(False)
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, source: str, setting: str) -> "MarianTranslator":
        """Read the checkpoint of a folder; raises TrainingError with its setting and the fix."""
        where, folder = f"text.{setting} = {source!r}", Path(source)
        if not source or not (folder / "config.json").is_file():
            raise TrainingError(f"{where}: no folder with a Marian checkpoint (no config.json)")
        if (folder / "source.spm").is_file() and not find_spec("sentencepiece"):
            raise TrainingError(
                f"{where}: its tokenizer needs sentencepiece: pip install sentencepiece"
            )
        try:
            kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
            if kind != "marian":
                raise TrainingError(f"{where}: a network of type {kind}, not a Marian translator")
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = MarianMTModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as exc:
            first_line = str(exc).partition("\n")[0]
            raise TrainingError(f"{where}: not a whole Marian checkpoint: {first_line}") from exc
        return cls(model, tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the translation of each text."""
        translated: list[str] = []
        for first in range(0, len(texts), BATCH):
            translated += self._translate(texts[first : first + BATCH])
        return translated

    @torch.no_grad()
    def _translate(self, texts: Sequence[str]) -> list[str]:
        longest = self._model.config.max_position_embeddings
        tokens = self._tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=longest
        )
        made = self._model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            num_beams=1,
            do_sample=False,
            max_new_tokens=min(MAX_NEW_TOKENS, longest - 1),
        )
        texts_back: list[str] = self._tokenizer.batch_decode(made, skip_special_tokens=True)
        return texts_back


class BackTranslation:
    """Puts in place of each text, with probability `share`, what it is after there and back.

    A text is translated when it is first drawn, and then known. One whose translation is empty
    stays.
    """

    def __init__(self, forward: Translator, back: Translator, share: float) -> None:
        self._forward = forward
        self._back = back
        self._share = share
        self._known: dict[str, str] = {}

    @classmethod
    def load(cls, config: TextConfig) -> "BackTranslation":
        """Read the run's two models; raises TrainingError where one is missing or no Marian."""
        forward = MarianTranslator.load(config.translate_forward, "translate_forward")
        back = MarianTranslator.load(config.translate_back, "translate_back")
        return cls(forward, back, config.translate_share)

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return the texts, some of them in other words."""
        drawn = rng.random(len(texts)) < self._share
        chosen = [text for text, draw in zip(texts, drawn, strict=True) if draw and text.strip()]
        fresh = [text for text in dict.fromkeys(chosen) if text not in self._known]
        if fresh:
            there_and_back = self._back(self._forward(fresh))
            for text, again in zip(fresh, there_and_back, strict=True):
                self._known[text] = again.strip() or text
        return [
            self._known.get(text, text) if draw else text
            for text, draw in zip(texts, drawn, strict=True)
        ]
