"""The way in: an item's vector from all that is known of it, an event's from all it says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from service.contract.events import EVENT_TYPES
from training.items import ItemFacts
from training.model.batch import Batch
from training.model.place import NUM_PLACE_FEATURES, PlaceFeatures
from training.model_config import ModelConfig

if TYPE_CHECKING:
    from training.text.items import ItemTexts

# Item vectors are normalised on the way out, so a step turns a short one further: from 0.02 the
# validation NDCG@10 after 8 epochs was 0.130, from dim**-0.5 it was 0.035 (docs/experiments.md).
ITEM_INIT_STD = 0.02
NUM_DURATION_BUCKETS = 32
# Log2 of the longest dwell told apart, in seconds: 2**15 s are nine hours.
MAX_LOG2_DURATION = 15.0
MAX_VALUE = 100.0


class ItemTable(nn.Module):
    """Item vectors: identity, plus the mean of the categories', the place cell's and the place's.

    Every part is a sum in one space, so that an item is one row however much is known of it.
    """

    item_cells: Tensor
    item_categories: Tensor
    item_category_starts: Tensor
    item_lats: Tensor
    item_lons: Tensor
    item_place_features: Tensor

    def __init__(self, config: ModelConfig, facts: ItemFacts) -> None:
        super().__init__()
        self.identity = nn.Embedding(facts.num_items + 1, config.dim, padding_idx=0)
        nn.init.normal_(self.identity.weight, std=ITEM_INIT_STD)
        with torch.no_grad():
            self.identity.weight[0].zero_()
        # What texts add, if a run reads them: the network knows no language model.
        self.texts: ItemTexts | None = None
        self.categories: nn.Module | None = None
        if config.categories and facts.num_categories:
            self.categories = nn.EmbeddingBag(facts.num_categories + 1, config.dim, mode="mean")
            nn.init.normal_(self.categories.weight, std=ITEM_INIT_STD)
            self.register_buffer("item_categories", torch.from_numpy(facts.categories))
            self.register_buffer(
                "item_category_starts", torch.from_numpy(facts.category_starts[:-1])
            )
        self.cells: nn.Embedding | None = None
        if config.places:
            self.cells = nn.Embedding(facts.num_cells + 1, config.dim, padding_idx=0)
            nn.init.normal_(self.cells.weight, std=ITEM_INIT_STD)
            self.place = nn.Linear(NUM_PLACE_FEATURES, config.dim, bias=False)
            nn.init.normal_(self.place.weight, std=ITEM_INIT_STD)
            self.register_buffer("item_cells", torch.from_numpy(facts.cells))
            self.register_buffer("item_lats", torch.from_numpy(facts.lats))
            self.register_buffer("item_lons", torch.from_numpy(facts.lons))
            features = PlaceFeatures()(self.item_lats, self.item_lons)
            self.register_buffer("item_place_features", features)

    def forward(self) -> Tensor:
        """Return the vectors of all items, (num_items + 1, dim), row 0 all zero."""
        table: Tensor = self.identity.weight
        if self.texts is not None:
            table = self.texts.with_identity(table) + self.texts()
        if self.categories is not None:
            table = table + self.categories(self.item_categories, self.item_category_starts)
        if self.cells is not None:
            table = table + self.cells(self.item_cells) + self.place(self.item_place_features)
        if table is self.identity.weight:
            return table
        real = torch.arange(len(table), device=table.device) > 0
        return table * real[:, None].to(table.dtype)


class RequestPlace(nn.Module):
    """What the query knows of place: the features of where the last event's item is.

    The request's own place is not read: in a log it is the target's, which is the answer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(NUM_PLACE_FEATURES, dim, bias=False)
        nn.init.normal_(self.project.weight, std=ITEM_INIT_STD)

    def forward(self, query: Tensor, features: Tensor) -> Tensor:
        """Add the place features of each query's event to queries (batch, queries, dim)."""
        result: Tensor = query + self.project(features)
        return result


class EventInput(nn.Module):
    """An event's vector: its item's, its place in the window, its type, dwell and rating."""

    def __init__(self, config: ModelConfig, dropout: float, extra_positions: int = 0) -> None:
        super().__init__()
        self.scale = math.sqrt(config.dim)
        self.window_len = config.window_len + extra_positions
        self.positions: nn.Embedding | None = None
        if getattr(config, "positions", "absolute") == "absolute":
            self.positions = nn.Embedding(self.window_len, config.dim)
            nn.init.normal_(self.positions.weight, std=0.02)
        self.types = _small_table(len(EVENT_TYPES) + 1, config.dim) if config.event_types else None
        self.durations = (
            _small_table(NUM_DURATION_BUCKETS, config.dim) if config.durations else None
        )
        self.values = nn.Linear(3, config.dim, bias=False) if config.values else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        """Return inputs (batch, window, dim) of item vectors (batch, window, dim)."""
        window = vectors.shape[1]
        x = vectors * self.scale
        if self.positions is not None:
            places = torch.arange(window, device=vectors.device) + (self.window_len - window)
            x = x + self.positions(places)
        if self.types is not None:
            x = x + self.types(batch.event_types)
        if self.durations is not None:
            x = x + self.durations(duration_bucket(batch.durations_s))
        if self.values is not None:
            x = x + self.values(value_features(batch.values))
        dropped: Tensor = self.dropout(x)
        return dropped


def duration_bucket(durations_s: Tensor) -> Tensor:
    """Return the log bucket of dwell times in seconds, int64 from 1; 0 is unknown (NaN)."""
    scaled = torch.log2(torch.nan_to_num(durations_s).clamp(min=0) + 1.0)
    buckets = (scaled * ((NUM_DURATION_BUCKETS - 2) / MAX_LOG2_DURATION)).to(torch.int64) + 1
    buckets = buckets.clamp(max=NUM_DURATION_BUCKETS - 1)
    return torch.where(torch.isnan(durations_s), torch.zeros_like(buckets), buckets)


def value_features(values: Tensor) -> Tensor:
    """Return (..., 3) features of ratings: known, the value and its signed logarithm."""
    filled = torch.nan_to_num(values).clamp(-MAX_VALUE, MAX_VALUE)
    known = torch.isnan(values).logical_not().to(filled.dtype)
    return torch.stack([known, filled, torch.sign(filled) * torch.log1p(filled.abs())], dim=-1)


def _small_table(rows: int, dim: int) -> nn.Embedding:
    table = nn.Embedding(rows, dim, padding_idx=0)
    nn.init.normal_(table.weight, std=0.02)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
