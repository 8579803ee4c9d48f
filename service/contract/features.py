"""The only feature code of the project: a window of events becomes the encoder's arrays.

Bucketing, gaps, hours and distances are taken inside the ONNX graph from these raw arrays, so that
training and serving cannot drift apart.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.contract.errors import ContractError

Int64s: TypeAlias = NDArray[np.int64]
Float32s: TypeAlias = NDArray[np.float32]
# Encoder arrays by name, int64 and float32 as WINDOW_INPUTS and REQUEST_INPUTS say.
Arrays: TypeAlias = dict[str, NDArray[Any]]

# Name, dtype and rank of every array that an encoder may take; a manifest names those it does.
WINDOW_INPUTS: dict[str, str] = {
    "items": "int64",
    "event_types": "int64",
    "timestamps_ms": "int64",
    "tz_offsets_min": "int64",
    "values": "float32",
    "durations_s": "float32",
    "lats": "float32",
    "lons": "float32",
}
REQUEST_INPUTS: dict[str, str] = {
    "request_time_ms": "int64",
    "request_tz_offset_min": "int64",
    "request_lat": "float32",
    "request_lon": "float32",
}
UNKNOWN_TIME_MS = 0
TIMES = "timestamps_ms"


@dataclass(frozen=True, slots=True)
class Window:
    """The events that the model sees, oldest first: parallel arrays, each (num_events,).

    `items` and `event_types` are vocabulary indices from 1; values, durations and coordinates
    are NaN where unknown; offsets are minutes from UTC, 0 where unknown.
    """

    items: Int64s
    event_types: Int64s
    timestamps_ms: Int64s
    tz_offsets_min: Int64s
    values: Float32s
    durations_s: Float32s
    lats: Float32s
    lons: Float32s

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def empty(cls) -> "Window":
        """Return the window of a user without events."""
        return cls(**{name: np.zeros(0, dtype) for name, dtype in WINDOW_INPUTS.items()})

    def select(self, chosen: slice | NDArray[np.bool_]) -> "Window":
        """Return the window of the chosen events."""
        return Window(**{name: getattr(self, name)[chosen] for name in WINDOW_INPUTS})


@dataclass(frozen=True, slots=True)
class Past:
    """A user's events before any vocabulary: parallel columns, oldest first.

    `event_types` are codes, places in EVENT_TYPES from 1; values, durations and coordinates are NaN
    and offsets 0 where unknown.
    """

    item_ids: tuple[str, ...]
    event_types: Int64s
    timestamps_ms: Int64s
    tz_offsets_min: Int64s
    values: Float32s
    durations_s: Float32s
    lats: Float32s
    lons: Float32s

    def __len__(self) -> int:
        return len(self.item_ids)


# The columns that a past and a window share.
NUMBER_COLUMNS = tuple(name for name in WINDOW_INPUTS if name != "items")


@dataclass(frozen=True, slots=True)
class RequestPoint:
    """When and where a recommendation is wanted; unknown time is 0, unknown place NaN."""

    time_ms: int = UNKNOWN_TIME_MS
    tz_offset_min: int = 0
    lat: float = float("nan")
    lon: float = float("nan")


def encode_window(window: Window, request: RequestPoint, window_len: int) -> Arrays:
    """Turn one window into the encoder's input arrays, padded on the left.

    Returns every array of WINDOW_INPUTS as (window_len,) and of REQUEST_INPUTS as (), with the
    dtypes stated there. Of longer windows the last `window_len` events are kept. Padding is 0, in
    values, durations and coordinates NaN. Raises ContractError if events are out of time order or
    an array's length differs.
    Source: padding side as in SASRec (Kang & McAuley, 2018), section III-A.
    """
    return {
        name: column[0] for name, column in encode_windows([window], [request], window_len).items()
    }


def encode_windows(
    windows: Sequence[Window],
    requests: Sequence[RequestPoint],
    window_len: int,
    names: Container[str] = WINDOW_INPUTS,
) -> Arrays:
    """Encode a batch: arrays of WINDOW_INPUTS as (batch, window_len), of REQUEST_INPUTS (batch,).

    Of the window's arrays only those in `names`, and the times, are made. See `encode_window` for
    the padding and the errors.
    """
    lengths = np.array([min(len(window), window_len) for window in windows], np.int64)
    firsts = window_len - lengths
    for window in windows:
        _check_columns(window)
    # The times are made in any case: what is out of order is wrong for every encoder.
    arrays = {
        name: _padded([getattr(window, name) for window in windows], dtype, firsts, window_len)
        for name, dtype in WINDOW_INPUTS.items()
        if name in names or name == TIMES
    }
    real = np.arange(window_len) >= firsts[:, None]
    _check_order(arrays[TIMES], real)
    return arrays | encode_requests(requests)


def _padded(
    columns: Sequence[NDArray[Any]], dtype: str, firsts: Int64s, width: int
) -> NDArray[Any]:
    """Return columns as rows, (columns, width); row i begins with padding up to `firsts[i]`."""
    filled = np.full((len(columns), width), np.nan if dtype == "float32" else 0, dtype)
    for row, (column, first) in enumerate(zip(columns, firsts.tolist(), strict=True)):
        if first < width:
            filled[row, first:] = column[first - width :]
    return filled


def _check_order(times: Int64s, real: NDArray[np.bool_]) -> None:
    """Raise ContractError if the times of real events, both (windows, window_len), go back."""
    if bool(np.any((times[:, 1:] < times[:, :-1]) & real[:, :-1])):
        raise ContractError("window: events are out of time order")


def encode_spans(events: Window, firsts: Int64s, lasts: Int64s, window_len: int) -> Arrays:
    """Encode windows that are spans [first, last) of one long table of events.

    Returns the arrays of WINDOW_INPUTS, (spans, window_len); of longer spans the last `window_len`
    events are kept. Raises ContractError if the events of a span are out of time order.
    """
    places = lasts[:, None] + np.arange(-window_len, 0)  # (spans, window_len)
    real = places >= firsts[:, None]
    places = np.where(real, places, 0)
    arrays: Arrays = {}
    for name, dtype in WINDOW_INPUTS.items():
        padding = np.array(np.nan if dtype == "float32" else 0, dtype)
        column = getattr(events, name)
        filled = np.where(real, column[places], padding) if len(column) else padding
        arrays[name] = np.broadcast_to(filled, real.shape).astype(dtype)
    _check_order(arrays[TIMES], real)
    return arrays


def encode_requests(requests: Sequence[RequestPoint]) -> Arrays:
    """Return the arrays of REQUEST_INPUTS, (requests,)."""
    points = {
        "request_time_ms": [r.time_ms for r in requests],
        "request_tz_offset_min": [r.tz_offset_min for r in requests],
        "request_lat": [r.lat for r in requests],
        "request_lon": [r.lon for r in requests],
    }
    return {name: np.array(column, REQUEST_INPUTS[name]) for name, column in points.items()}


def _check_columns(window: Window) -> None:
    for name in WINDOW_INPUTS:
        if len(getattr(window, name)) != len(window):
            raise ContractError(f"window: {name} has another length than items")
