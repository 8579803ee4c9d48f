"""Synonyms of a word: neighbours among a language model's own word vectors, or WordNet's."""

import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.config import TrainingError

# Below this cosine words go together rather than mean the same: MiniLM has large and small at 0.58,
# blue and red at 0.55, left and right at 0.50, and movie and film at 0.72.
LEAST_COSINE = 0.6
MOST_SYNONYMS = 5
# Shorter ones are mostly the starts of longer words.
LEAST_LETTERS = 3
# How byte-level and SentencePiece tokenizers mark the start of a word.
WORD_STARTS = ("Ġ", "▁")
# Shared letters below which two words are not one in two forms.
LEAST_STEM = 3


class SynonymTable:
    """The nearest words by cosine; `vectors` (words, dim), one row for each of `words`.

    Another form of the word itself (print, printing) is no synonym. Found when asked for, and kept.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: NDArray[np.float32],
        least_cosine: float = LEAST_COSINE,
        most: int = MOST_SYNONYMS,
    ) -> None:
        self._words = list(words)
        self._rows = {word: row for row, word in enumerate(self._words)}
        centred = vectors - vectors.mean(axis=0)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        self._unit = centred / np.maximum(norms, np.finfo(np.float32).tiny)
        self._least_cosine = least_cosine
        self._most = most
        self._known: dict[str, tuple[str, ...]] = {}

    @classmethod
    def of_model(cls, vocabulary: Mapping[str, int], embeddings: Tensor) -> "SynonymTable":
        """Return the table of a vocabulary's whole words; `embeddings` (tokens, dim)."""
        whole = whole_words(vocabulary)
        vectors = embeddings.detach().cpu().float().numpy()
        return cls(list(whole), vectors[list(whole.values())])

    def of(self, word: str) -> tuple[str, ...]:
        """Return the synonyms of a word, nearest first; () where it is unknown or has none."""
        if word not in self._known:
            self._known[word] = self._find(word)
        return self._known[word]

    def _find(self, word: str) -> tuple[str, ...]:
        row = self._rows.get(word)
        if row is None:
            return ()
        cosines = self._unit @ self._unit[row]  # (words,)
        near = np.flatnonzero(cosines >= self._least_cosine)
        near = near[np.argsort(-cosines[near], kind="stable")]
        others = (self._words[index] for index in near if index != row)
        return tuple(other for other in others if not same_stem(word, other))[: self._most]


class WordNet:
    """The lemmas of a word's synsets in WordNet (Miller, 1995), in nltk's order.

    `synsets` gives a word's synsets, as nltk's corpus reader does.
    """

    def __init__(self, synsets: Callable[[str], Sequence[Any]]) -> None:
        self._synsets = synsets

    @classmethod
    def load(cls) -> "WordNet":
        """Return WordNet; raises TrainingError that says what to install."""
        try:
            reader = importlib.import_module("nltk.corpus").wordnet
            reader.ensure_loaded()
        except ImportError as exc:
            raise TrainingError("text.synonyms = 'wordnet' needs nltk: pip install nltk") from exc
        except LookupError as exc:
            raise TrainingError(
                "text.synonyms = 'wordnet' needs its corpus: python -m nltk.downloader wordnet"
            ) from exc
        return cls(reader.synsets)

    def of(self, word: str) -> tuple[str, ...]:
        """Return the synonyms of a word; () where it is unknown or has none."""
        names = (name for synset in self._synsets(word) for name in synset.lemma_names())
        plain = (name.replace("_", " ").lower() for name in names)
        return tuple(dict.fromkeys(name for name in plain if name != word))


def whole_words(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Return the tokens that are words, in small letters, with their ids; in the ids' order.

    With a WordPiece tokenizer those that go on from no other (`##`), with the others those that
    start a word. A word that is written in several ways has the id of the small letters.
    """
    marked = sum(token.startswith(WORD_STARTS) for token in vocabulary) > len(vocabulary) // 4
    found: dict[str, int] = {}
    for token, index in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        word = token[1:] if marked and token.startswith(WORD_STARTS) else token
        is_start = not marked or word != token
        if is_start and len(word) >= LEAST_LETTERS and word.isalpha():
            small = word.lower()
            if word == small or small not in found:
                found[small] = index
    return found


def same_stem(word: str, other: str) -> bool:
    """Say whether two words differ in their endings only: nearly all of the shorter is in both."""
    same = (a == b for a, b in zip(word, other, strict=False))
    shared = sum(itertools.takewhile(bool, same))
    return shared >= max(min(len(word), len(other)) - 2, LEAST_STEM)


def as_written(word: str, like: str) -> str:
    """Return a word in the letters of another: SMALL, Capital or ALL; mixed ones stay small."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word.capitalize() if like[:1].isupper() else word
