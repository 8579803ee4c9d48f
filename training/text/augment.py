"""Augmentation of texts: other words for the same item, drawn anew each time a text is read.

Back-translation (Sennrich et al., 2016), synonyms in place of words and words left out (both as in
EDA: Wei & Zou, 2019), in this order. A text that has a word keeps one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from training.config import TextConfig
from training.text.synonyms import SynonymTable, WordNet, as_written
from training.text.translation import BackTranslation

# Letters only: a number, a size or a part's name has no synonym.
WORD = re.compile(r"[^\W\d_]+")


class TextAugmenter(Protocol):
    """Texts in, as many texts out; the same generator gives the same texts."""

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return each text, changed or not, in the order given."""
        ...


class Synonyms(Protocol):
    """Where other words for a word come from."""

    def of(self, word: str) -> tuple[str, ...]:
        """Return the synonyms of a word in small letters, in small letters; () where unknown."""
        ...


class WordDropout:
    """Leaves out each word with probability `share`, but never all of a text's."""

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return the texts without some of their words; single spaces are between the others."""
        return [self._without(text, rng) for text in texts]

    def _without(self, text: str, rng: np.random.Generator) -> str:
        words = text.split()
        if not words:
            return text
        kept = rng.random(len(words)) >= self._share
        kept[rng.integers(len(words))] |= not kept.any()
        return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)


class SynonymSubstitution:
    """Puts a synonym in place of each word with probability `share`, where it has any."""

    def __init__(self, synonyms: Synonyms, share: float) -> None:
        self._synonyms = synonyms
        self._share = share

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return the texts with other words; all that is between the words stays."""
        return [WORD.sub(lambda found: self._other(found[0], rng), text) for text in texts]

    def _other(self, word: str, rng: np.random.Generator) -> str:
        if rng.random() >= self._share:
            return word
        known = self._synonyms.of(word.lower())
        return as_written(known[rng.integers(len(known))], word) if known else word


class InTurn:
    """Several augmenters, each of what the one before it gave."""

    def __init__(self, augmenters: Sequence[TextAugmenter]) -> None:
        self._augmenters = augmenters

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return the texts after all of them."""
        changed = list(texts)
        for augmenter in self._augmenters:
            changed = augmenter(changed, rng)
        return changed


def make_augmenter(
    config: TextConfig, vocabulary: Mapping[str, int], embeddings: Tensor
) -> TextAugmenter | None:
    """Return what the run's settings ask for, or None where they ask for nothing.

    `vocabulary` has the tokenizer's tokens (`get_vocab()`), `embeddings` (tokens, dim) the
    pre-trained network's vectors of them. Raises TrainingError where WordNet or a translation model
    is missing.
    """
    augmenters: list[TextAugmenter] = []
    if config.translate_share > 0:
        augmenters.append(BackTranslation.load(config))
    if config.synonym_share > 0:
        from_wordnet = config.synonyms == "wordnet"
        known = WordNet.load() if from_wordnet else SynonymTable.of_model(vocabulary, embeddings)
        augmenters.append(SynonymSubstitution(known, config.synonym_share))
    if config.word_dropout > 0:
        augmenters.append(WordDropout(config.word_dropout))
    return InTurn(augmenters) if augmenters else None
