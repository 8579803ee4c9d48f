"""What a network reads: windows of events as tensors, and for each position its query's time."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of windows, all (batch, window) and left-padded with 0, in floats with NaN.

    `query_times_ms` and `query_tz_offsets_min` say for each position when its target happened, or
    when the request is made; 0 is unknown.
    """

    items: Tensor
    event_types: Tensor
    timestamps_ms: Tensor
    tz_offsets_min: Tensor
    values: Tensor
    durations_s: Tensor
    lats: Tensor
    lons: Tensor
    query_times_ms: Tensor
    query_tz_offsets_min: Tensor

    def select(self, rows: Tensor | slice) -> "Batch":
        """Return the batch of the chosen windows."""
        return Batch(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(self)})

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(**{entry.name: getattr(self, entry.name).to(device) for entry in fields(self)})

    def hidden_at(self, masked: Tensor) -> "Batch":
        """Return the windows without what the masked events, (batch, window), say of themselves.

        Their items stay, to mark them as real: the caller hides those by their vectors.
        """
        return replace(
            self,
            event_types=self.event_types.masked_fill(masked, 0),
            values=self.values.masked_fill(masked, torch.nan),
            durations_s=self.durations_s.masked_fill(masked, torch.nan),
            lats=self.lats.masked_fill(masked, torch.nan),
            lons=self.lons.masked_fill(masked, torch.nan),
        )

    def take(self, places: Tensor, real: Tensor) -> "Batch":
        """Return windows whose position j holds the event at `places[:, j]`, padding if not `real`.

        Both are (batch, window); the way to crop and to reorder windows without a loop.
        """
        columns = {}
        for entry in fields(self):
            column: Tensor = getattr(self, entry.name)
            padding = torch.nan if column.is_floating_point() else 0
            columns[entry.name] = column.gather(1, places).masked_fill(~real, padding)
        return Batch(**columns)


def serving_batch(arrays: Mapping[str, Tensor]) -> Batch:
    """Build the batch of a request; torch operations only, so it is part of the exported graph.

    `arrays` has any of the contract's window inputs, (batch, window), and request inputs, (batch,);
    what a model does not read may be absent. Position i was asked at the time of event i + 1, the
    last one at the time of the request.
    """
    items = arrays["items"]
    zeros = torch.zeros_like(items)
    unknown = torch.full_like(items, torch.nan, dtype=torch.float32)
    times = arrays.get("timestamps_ms", zeros)
    no_request = zeros[:, :1]
    asked = arrays["request_time_ms"][:, None] if "request_time_ms" in arrays else no_request
    offset = (
        arrays["request_tz_offset_min"][:, None]
        if "request_tz_offset_min" in arrays
        else no_request
    )
    return Batch(
        items=items,
        event_types=arrays.get("event_types", zeros),
        timestamps_ms=times,
        tz_offsets_min=arrays.get("tz_offsets_min", zeros),
        values=arrays.get("values", unknown),
        durations_s=arrays.get("durations_s", unknown),
        lats=arrays.get("lats", unknown),
        lons=arrays.get("lons", unknown),
        query_times_ms=torch.cat([times[:, 1:], asked], dim=1),
        query_tz_offsets_min=offset.expand_as(items),
    )
