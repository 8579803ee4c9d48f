"""Place inside the network: distances in log buckets, and coordinates as smooth features.

Coordinates are WGS 84 degrees. `event_places` takes an event's own, else its item's.
"""

import math

import torch
from torch import Tensor, nn

from training.model.batch import Batch
from training.model.lookup import BIAS_GAIN, pair_lookup

EARTH_RADIUS_KM = 6371.0088
NUM_DISTANCE_BUCKETS = 32
# Log2 of the longest distance told apart, in units of 50 m: half way round the Earth.
MAX_LOG2_DISTANCE = 18.7
DISTANCE_UNIT_KM = 0.05
# Bandwidths of the kernels that inner products of place features come to.
SCALES_KM = (0.3, 1.0, 4.0, 16.0)
FEATURES_PER_SCALE = 32
NUM_PLACE_FEATURES = len(SCALES_KM) * FEATURES_PER_SCALE


def haversine_km(lat: Tensor, lon: Tensor, other_lat: Tensor, other_lon: Tensor) -> Tensor:
    """Return the great-circle distance of places in degrees; broadcasts, NaN where unknown."""
    phi, other_phi = torch.deg2rad(lat), torch.deg2rad(other_lat)
    north = torch.sin((phi - other_phi) / 2)
    east = torch.sin(torch.deg2rad(lon - other_lon) / 2)
    chord = north * north + torch.cos(phi) * torch.cos(other_phi) * east * east
    return 2 * EARTH_RADIUS_KM * torch.asin(torch.sqrt(chord.clamp(0.0, 1.0)))


def distance_bucket(distance_km: Tensor) -> Tensor:
    """Return the log bucket of distances, int64 from 1; 0 is unknown (NaN)."""
    scaled = torch.log2(torch.nan_to_num(distance_km) / DISTANCE_UNIT_KM + 1.0)
    buckets = (scaled * ((NUM_DISTANCE_BUCKETS - 2) / MAX_LOG2_DISTANCE)).to(torch.int64) + 1
    buckets = buckets.clamp(max=NUM_DISTANCE_BUCKETS - 1)
    return torch.where(torch.isnan(distance_km), torch.zeros_like(buckets), buckets)


class DistanceBias(nn.Module):
    """The per-head attention bias of the distance between the place of a query and each event."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(NUM_DISTANCE_BUCKETS, num_heads)
        nn.init.zeros_(self.table.weight)

    def forward(self, lats: Tensor, lons: Tensor) -> Tensor:
        """Return the bias (heads, batch, window, window) of places (batch, window)."""
        distance = haversine_km(
            lats[:, :, None], lons[:, :, None], lats[:, None, :], lons[:, None, :]
        )
        return pair_lookup(self.table.weight * BIAS_GAIN, distance_bucket(distance))


class PlaceFeatures(nn.Module):
    """Random Fourier features of places (Rahimi & Recht, 2007), fixed, at several bandwidths.

    The inner product of two places' features of one scale approximates exp(-d² / 2 scale²) of
    their chord d, so a linear map of them can express nearness at any mixture of scales. Angles
    reach 10⁵ radians, which float32 cannot hold, and float64 in the exported graph came out 10⁻⁴
    apart: so features are taken once for every item, when the model is built.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        scales = torch.tensor(SCALES_KM).repeat_interleave(FEATURES_PER_SCALE)
        drawn = torch.randn(3, NUM_PLACE_FEATURES, generator=generator, dtype=torch.float64)
        self.register_buffer("frequencies", drawn * EARTH_RADIUS_KM / scales)
        phases = torch.rand(NUM_PLACE_FEATURES, generator=generator, dtype=torch.float64)
        self.register_buffer("phases", phases * 2 * math.pi)

    def forward(self, lats: Tensor, lons: Tensor) -> Tensor:
        """Return features (..., NUM_PLACE_FEATURES) of places (...), all 0 where unknown."""
        known = torch.isnan(lats + lons).logical_not()[..., None]
        phi = torch.nan_to_num(lats).to(torch.float64) * (math.pi / 180)
        theta = torch.nan_to_num(lons).to(torch.float64) * (math.pi / 180)
        level = torch.cos(phi)
        point = torch.stack(
            [level * torch.cos(theta), level * torch.sin(theta), torch.sin(phi)], dim=-1
        )
        angles = point @ self.frequencies + self.phases
        features: Tensor = torch.cos(angles).to(torch.float32) * math.sqrt(2.0 / FEATURES_PER_SCALE)
        return features * known.to(features.dtype)


def event_places(batch: Batch, item_lats: Tensor, item_lons: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each event was, (batch, window) latitudes and longitudes, NaN if unknown."""
    unknown = torch.isnan(batch.lats + batch.lons)
    lats = torch.where(unknown, item_lats[batch.items], batch.lats)
    lons = torch.where(unknown, item_lons[batch.items], batch.lons)
    return lats, lons
