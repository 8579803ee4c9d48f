"""Windows that any arithmetic must read alike: no gap and no distance at the edge of a bucket.

float32 logarithms of two libraries differ in their last digits, so a pair just at an edge may fall
to either side of it, and all attention behind it differs. Without such pairs it can be compared to
rounding.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.features import Arrays
from training.model.place import (
    DISTANCE_UNIT_KM,
    MAX_LOG2_DISTANCE,
    NUM_DISTANCE_BUCKETS,
    haversine_km,
)
from training.model.time import (
    BUCKETS_PER_NAT,
    FIRST_BUCKET,
    MS_PER_HOUR,
    MS_PER_SECOND,
    NEAR_EDGE,
)

Float64s = NDArray[np.float64]
# float32 coordinates are 0.3 m apart, of buckets that are 20 m wide at the least.
NEAR_DISTANCE_EDGE = 0.02


def off_edges(arrays: Arrays) -> Arrays:
    """Return encoded windows whose pairs are all inside their buckets.

    Events and requests at an edge come later by hours, and so does all that follows; the place of
    an event at an edge becomes unknown.
    """
    moved = {name: values.copy() for name, values in arrays.items()}
    for row, items in enumerate(arrays["items"]):
        real = np.flatnonzero(items > 0)
        times = moved["timestamps_ms"][row]
        for place, at in enumerate(real):
            if place:
                times[at] += times[real[place - 1]] - arrays["timestamps_ms"][row, real[place - 1]]
            times[at] = _off_edge(times[at], times[real[:place]])
        if len(real) and moved["request_time_ms"][row] > 0:
            asked = moved["request_time_ms"][row] + times[-1] - arrays["timestamps_ms"][row, -1]
            moved["request_time_ms"][row] = _off_edge(asked, times[real])
        _hide_places(moved["lats"][row], moved["lons"][row])
    return moved


def _off_edge(time_ms: np.int64, earlier_ms: NDArray[np.int64]) -> np.int64:
    while near_gap_edge(time_ms - earlier_ms).any():
        time_ms = time_ms + np.int64(MS_PER_HOUR)
    return time_ms


def near_gap_edge(gaps_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether gaps of 0 or more are so near to an edge that rounding may decide."""
    longer = np.maximum(gaps_ms + MS_PER_SECOND, MS_PER_SECOND).astype(np.float64)
    place = np.log(longer) * BUCKETS_PER_NAT - FIRST_BUCKET
    near = np.abs(place - np.round(place)) < NEAR_EDGE * BUCKETS_PER_NAT
    # No gap at all is in the first bucket whatever rounding says: below its edge there is none.
    return np.asarray(near & (longer > MS_PER_SECOND), np.bool_)


def near_distance_edge(distances_km: Float64s) -> NDArray[np.bool_]:
    """Return the same of distances."""
    scaled = np.log2(distances_km / DISTANCE_UNIT_KM + 1)
    place = scaled * ((NUM_DISTANCE_BUCKETS - 2) / MAX_LOG2_DISTANCE)
    near = np.abs(place - np.round(place)) < NEAR_DISTANCE_EDGE
    return np.asarray(near & (distances_km > 0), np.bool_)


def _hide_places(lats: NDArray[np.float32], lons: NDArray[np.float32]) -> None:
    """Make the places unknown, in place, that are at an edge from one that is kept."""
    for at in np.flatnonzero(~np.isnan(lats)):
        kept = np.flatnonzero(~np.isnan(lats[:at]))
        places = (lats[at], lons[at], lats[kept], lons[kept])
        distances = haversine_km(*(torch.as_tensor(each, dtype=torch.float64) for each in places))
        if near_distance_edge(distances.numpy()).any():
            lats[at] = lons[at] = np.nan
