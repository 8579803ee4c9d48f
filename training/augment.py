"""Augmentation: two views of one window that should mean the same user.

Four ways of CL4SRec and CoSeRec (Xie et al., 2022; Liu et al., 2021), one drawn for each window:
crop to a run of events, mask some, reorder a run, substitute some by similar items. All work on
whole batches of left-padded windows, (batch, window), without a loop over windows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.baselines import LastItemCooccurrence
from training.config import PretrainConfig, SubstituteSource, TrainingError
from training.data import EventTable
from training.model.batch import Batch

NUM_SUBSTITUTES = 8
# Items whose similarities to all others are held at once.
TEXT_BLOCK = 1024
WORD = re.compile(r"\w+")
CROP, MASK, REORDER, SUBSTITUTE = range(4)


@dataclass(frozen=True, slots=True)
class View:
    """A changed window; `masked` (batch, window) says whose items are hidden."""

    batch: Batch
    masked: Tensor


class Augmenter:
    """Draws views; `substitutes` is (num_items + 1, n) int64, an item's own index where few."""

    def __init__(self, config: PretrainConfig, substitutes: Tensor) -> None:
        self._config = config
        self._substitutes = substitutes

    def view(self, batch: Batch) -> View:
        """Return one view of every window, from torch's own generator."""
        where = batch.items.device
        way = torch.randint(4, (len(batch.items), 1), device=where)
        changed = self._crop(batch, way == CROP)
        changed = self._reorder(changed, way == REORDER)
        changed = self._substitute(changed, way == SUBSTITUTE)
        real = changed.items > 0
        masked = real & (way == MASK) & (_uniform(real) < self._config.mask_share)
        return View(changed, masked)

    def _crop(self, batch: Batch, rows: Tensor) -> Batch:
        """Keep a run of `crop_share` of the events, moved to the right end."""
        window = batch.items.shape[1]
        lengths = (batch.items > 0).sum(dim=1, keepdim=True)  # (batch, 1)
        kept = (lengths * self._config.crop_share).ceil().to(torch.int64).clamp(min=1)
        dropped = (_uniform(lengths) * (lengths - kept + 1)).to(torch.int64)
        kept = torch.where(rows, kept, lengths)
        dropped = torch.where(rows, dropped, 0)
        places = torch.arange(window, device=batch.items.device)[None].expand_as(batch.items)
        return batch.take((places - dropped).clamp(min=0), places >= window - kept)

    def _reorder(self, batch: Batch, rows: Tensor) -> Batch:
        """Shuffle the items of a run of `reorder_share` of the events; times stay in order."""
        window = batch.items.shape[1]
        lengths = (batch.items > 0).sum(dim=1, keepdim=True)
        run = (lengths * self._config.reorder_share).ceil().to(torch.int64)
        start = window - lengths + (_uniform(lengths) * (lengths - run + 1)).to(torch.int64)
        places = torch.arange(window, device=batch.items.device)[None].expand_as(batch.items)
        inside = rows & (places >= start) & (places < start + run)
        # Sorting by place, with random keys inside the run, permutes the run and nothing else.
        keys = torch.where(inside, start + _uniform(places) * run, places.to(torch.float32))
        return replace(batch, items=batch.items.gather(1, keys.argsort(dim=1, stable=True)))

    def _substitute(self, batch: Batch, rows: Tensor) -> Batch:
        real = batch.items > 0
        chosen = rows & real & (_uniform(real) < self._config.substitute_share)
        substitutes = self._substitutes.to(batch.items.device)
        picks = torch.randint(substitutes.shape[1], real.shape, device=batch.items.device)
        similar = substitutes[batch.items, picks]
        return replace(batch, items=torch.where(chosen, similar, batch.items))


def _uniform(like: Tensor) -> Tensor:
    """Return uniform draws in [0, 1) of the shape of a tensor, on its device."""
    return torch.rand(like.shape, device=like.device)


def make_substitutes(
    source: SubstituteSource, events: EventTable, train: NDArray[np.bool_], texts: Sequence[str]
) -> Tensor:
    """Return each item's substitutes, (num_items + 1, n): by one source, or by both side by side.

    Raises TrainingError when texts are wanted and no item has one.
    """
    found = []
    if source in ("cooccurrence", "both"):
        found.append(cooccurrence_substitutes(events, train))
    if source in ("text", "both"):
        found.append(text_substitutes(texts))
    return torch.cat(found, dim=1)


def text_substitutes(texts: Sequence[str]) -> Tensor:
    """Return each item's most similar items by the words of `texts`, (num_items + 1, n).

    Similarity is the cosine of TF-IDF vectors (Salton & Buckley, 1988). An item that shares no
    word with another stands for itself, as does one without text.
    """
    if not any(WORD.search(text) for text in texts):
        raise TrainingError(
            "pretrain.substitutes = 'text': no item has a title, text or category; give items "
            "to the import, or set pretrain.substitutes = 'cooccurrence'"
        )
    # Every command would wait a second for this import, which few runs need.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=WORD.pattern).fit_transform(texts)
    table = np.repeat(np.arange(len(texts))[:, None], NUM_SUBSTITUTES, axis=1)
    for first in range(0, len(texts), TEXT_BLOCK):
        similar = (vectors[first : first + TEXT_BLOCK] @ vectors.T).toarray()
        rows = np.arange(len(similar))
        similar[rows, first + rows] = 0
        best = np.argsort(-similar, axis=1, kind="stable")[:, :NUM_SUBSTITUTES]
        shares_words = np.take_along_axis(similar, best, axis=1) > 0
        own = table[first + rows, : best.shape[1]]
        table[first + rows, : best.shape[1]] = np.where(shares_words, best, own)
    return torch.from_numpy(table)


def cooccurrence_substitutes(events: EventTable, train: NDArray[np.bool_]) -> Tensor:
    """Return each item's most co-occurring items of the training events, (num_items + 1, n)."""
    followers = LastItemCooccurrence(events, train).followers
    own = np.arange(events.num_items + 1)[:, None]
    table = np.repeat(own, NUM_SUBSTITUTES, axis=1)
    for item, (others, counts) in followers.items():
        best = others[np.argsort(-counts, kind="stable")[:NUM_SUBSTITUTES]]
        table[item, : len(best)] = best
    return torch.from_numpy(table)
