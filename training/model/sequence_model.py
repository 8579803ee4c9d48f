"""The model: windows in, query vectors and item vectors out; score = query · item + copy.

Every family is a body between the same way in and the same way out, so all of them learn by the
same losses, export to the same graph and are served unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.items import ItemFacts
from training.model.attention import attention_mask
from training.model.batch import Batch
from training.model.copy_head import CopyHead, SeenBias
from training.model.heads import make_heads
from training.model.inputs import EventInput, ItemTable, RequestPlace
from training.model.language import LanguageBody
from training.model.place import DistanceBias, event_places
from training.model.registry import make_body
from training.model.time import GapBias, RequestTime, asking_times, last_times
from training.model.transformer import masked_logit
from training.model_config import (
    Bert4RecConfig,
    ModelConfig,
    RecurrentConfig,
    Task,
)


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What one pass gives.

    `hidden` is (batch, queries, dim), `table` the item vectors (num_items + 1, dim) before any
    head, `copy` the weights over the window (batch, queries, window) or None, `users` what each
    value head's task says of the user's own past, (batch, queries).
    """

    hidden: Tensor
    table: Tensor
    copy: Tensor | None
    users: Mapping[Task, Tensor]


class SequenceModel(nn.Module):
    """One model of any family over items of which `facts` tells what is known.

    `learned` is the state that is loaded next, if there is one: see `make_body`.
    """

    def __init__(
        self, config: ModelConfig, facts: ItemFacts, learned: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.bidirectional = isinstance(config, Bert4RecConfig)
        self.items = ItemTable(config, facts)
        self.input = EventInput(
            config,
            getattr(config, "emb_dropout", config.dropout),
            extra_positions=int(self.bidirectional),
        )
        self.mask_vector = nn.Parameter(torch.randn(config.dim) * 0.02)
        self.body = make_body(config, learned and _of_body(learned))
        self.heads = nn.ModuleDict(make_heads(config, facts.num_items))
        self._add_time_and_place(config)

    def _add_time_and_place(self, config: ModelConfig) -> None:
        gaps = getattr(config, "time_gaps", False)
        self.gap_bias = (
            GapBias(self._num_heads(), config.window_len, masked_logit(config)) if gaps else None
        )
        distances = getattr(config, "distances", False) and config.places
        self.distance_bias = DistanceBias(self._num_heads()) if distances else None
        known = config.request_time == "known"
        self.request_time = RequestTime(config.dim) if known else None
        self.request_place = RequestPlace(config.dim) if config.places else None
        self.copy_head: CopyHead | SeenBias | None = None
        if config.copy:
            heads = config.copy_heads
            self.copy_head = CopyHead(config, time_gaps=gaps or known) if heads else SeenBias()

    def _num_heads(self) -> int:
        """Return the heads of attention, which a language model brings along."""
        owner = self.body if isinstance(self.body, LanguageBody) else self.config
        num_heads: int = owner.num_heads  # type: ignore[union-attr]  # of a family with biases
        return num_heads

    def forward(self, batch: Batch, num_queries: int, *, both_ways: bool = False) -> ModelOutput:
        """Encode the last `num_queries` positions; `both_ways` lets events see later ones.

        Serving and evaluation need one query; the last block then computes that position only.
        """
        table = self.items()  # (num_items + 1, dim)
        return self.read(batch, table, table[batch.items], num_queries, both_ways=both_ways)

    def read(
        self,
        batch: Batch,
        table: Tensor,
        vectors: Tensor,
        num_queries: int,
        *,
        both_ways: bool = False,
    ) -> ModelOutput:
        """Encode windows whose item vectors, (batch, window, dim), are given.

        Both ways, an event's place stays out: it would tell a masked event's item.
        """
        if self.bidirectional and not both_ways:
            batch, vectors = self.with_mask_appended(batch, vectors)
            both_ways = True
        real = batch.items != 0
        mask = self._mask(batch, real, causal=not both_ways)
        hidden = self.body(self.input(vectors, batch), mask, real, num_queries)
        if self.request_place is not None and not both_ways:
            places = self.items.item_place_features[batch.items[:, -num_queries:]]
            hidden = self.request_place(hidden, places)
        if self.request_time is not None:
            last = last_times(batch, both_ways=both_ways)[:, -num_queries:]
            hidden = self.request_time(hidden, batch, last)
        copy = None
        if self.copy_head is not None and not both_ways:
            copy = self.copy_head(hidden, vectors, batch)
        users: dict[Task, Tensor] = {
            task: self.heads[task].rates.of_users(batch, num_queries)  # type: ignore[union-attr,operator]  # a value head's
            for task in self.config.tasks
            if task != "next-item"
        }
        return ModelOutput(hidden, table, copy, users)

    def mask_of(self, batch: Batch) -> Tensor:
        """Return what causal attention adds to its logits, (heads or 1, batch, window, window)."""
        return self._mask(batch, batch.items != 0, causal=True)

    def query(
        self, output: ModelOutput, task: Task | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return the query vectors (batch, queries, out_dim) of a task, or of the served one.

        With `rows`, a mask of (batch, queries), those of the chosen alone, (rows, out_dim).
        """
        task = task or self.config.tasks[0]
        parts = [output.hidden, *([output.users[task]] if task in output.users else [])]
        if rows is not None:
            parts = [part[rows] for part in parts]
        query: Tensor = self.heads[task].query(*parts)  # type: ignore[operator]  # a head's method
        return query

    def item_vectors(self, task: Task | None = None, table: Tensor | None = None) -> Tensor:
        """Return the item vectors (num_items + 1, out_dim) of a task, row 0 all zero."""
        head = self.heads[task or self.config.tasks[0]]
        vectors: Tensor = head.items(self.items() if table is None else table)  # type: ignore[operator]  # a head's method
        return vectors

    def encode(self, batch: Batch, num_queries: int) -> Tensor:
        """Return the served task's query vectors (batch, num_queries, out_dim)."""
        return self.query(self(batch, num_queries))

    def with_mask_appended(
        self, batch: Batch, vectors: Tensor, asked: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Batch, Tensor]:
        """Return the window with a masked event after the newest, asked when the request is.

        The mask's item is the newest one's only in name, to say that the position is real. `asked`
        are the times and offsets of the requests, (batch, window), where the batch's are others.
        """
        times, offsets = asked or (batch.query_times_ms, batch.query_tz_offsets_min)
        last = times[:, -1:]
        own = torch.where(last > 0, last, batch.timestamps_ms[:, -1:])
        masked = self.mask_vector.expand(vectors.shape[0], 1, -1)
        ones = torch.ones_like(batch.items[:, :1])
        unknown = torch.full_like(batch.values[:, :1], torch.nan)
        longer = Batch(
            items=torch.cat([batch.items, ones], dim=1),
            event_types=torch.cat([batch.event_types, 0 * ones], dim=1),
            timestamps_ms=torch.cat([batch.timestamps_ms, own], dim=1),
            tz_offsets_min=torch.cat([batch.tz_offsets_min, 0 * ones], dim=1),
            values=torch.cat([batch.values, unknown], dim=1),
            durations_s=torch.cat([batch.durations_s, unknown], dim=1),
            lats=torch.cat([batch.lats, unknown], dim=1),
            lons=torch.cat([batch.lons, unknown], dim=1),
            query_times_ms=torch.cat([batch.query_times_ms, last], dim=1),
            query_tz_offsets_min=torch.cat([batch.query_tz_offsets_min, offsets[:, -1:]], dim=1),
        )
        return longer, torch.cat([vectors, masked], dim=1)

    def _mask(self, batch: Batch, real: Tensor, *, causal: bool) -> Tensor:
        """Return the additive mask and biases (heads or 1, batch, window, window)."""
        if isinstance(self.config, RecurrentConfig):
            return torch.zeros((), device=real.device)
        if self.gap_bias is not None:
            times = asking_times(batch, self.request_time is not None and causal)
            mask: Tensor = self.gap_bias(times, batch.timestamps_ms, real, causal=causal)
        else:
            mask = attention_mask(real, causal=causal, masked=masked_logit(self.config))
        if self.distance_bias is not None and causal:
            lats, lons = event_places(batch, self.items.item_lats, self.items.item_lons)
            mask = mask + self.distance_bias(lats, lons)
        return mask


def _of_body(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the body's part of a model's state, by the body's own names."""
    start = "body."
    return {
        name.removeprefix(start): weight for name, weight in state.items() if name.startswith(start)
    }
