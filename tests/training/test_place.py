"""Place in the network: distances on the globe, buckets, and features that know nearness."""

import math

import pytest
import torch

from training.model.place import (
    EARTH_RADIUS_KM,
    FEATURES_PER_SCALE,
    NUM_DISTANCE_BUCKETS,
    PlaceFeatures,
    distance_bucket,
    haversine_km,
)

NAN = float("nan")


def distance(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Distance in km of two places in degrees, as the network computes it."""
    (lat, lon), (other_lat, other_lon) = first, second
    return haversine_km(*(torch.tensor(x) for x in (lat, lon, other_lat, other_lon))).item()


def test_a_degree_of_latitude_is_the_same_everywhere() -> None:
    """Radius x pi / 180 = 111.195 km."""
    degree = EARTH_RADIUS_KM * math.pi / 180
    assert distance((0, 10), (1, 10)) == pytest.approx(degree, rel=1e-4)
    assert distance((60, 10), (61, 10)) == pytest.approx(degree, rel=1e-4)


def test_a_degree_of_longitude_shrinks_with_the_cosine_of_the_latitude() -> None:
    """At 60 degrees it is half of what it is at the equator: the cosine that others forget."""
    equator = distance((0, 10), (0, 11))
    assert distance((60, 10), (60, 11)) == pytest.approx(equator / 2, rel=1e-3)


def test_the_date_line_is_no_wall() -> None:
    """179.5 E and 179.5 W are one degree apart."""
    assert distance((0, 179.5), (0, -179.5)) == pytest.approx(distance((0, 0), (0, 1)), rel=1e-3)


def test_distance_buckets_are_ordered_bounded_and_leave_0_to_the_unknown() -> None:
    """From the same spot to the other side of the Earth."""
    kilometres = torch.tensor([NAN, 0.0, 0.1, 1.0, 10.0, 500.0, 20_015.0])
    buckets = distance_bucket(kilometres).tolist()
    assert buckets[:2] == [0, 1]
    assert buckets == sorted(buckets)
    assert len(set(buckets)) == len(buckets)
    assert buckets[-1] <= NUM_DISTANCE_BUCKETS - 1


def test_place_features_are_nearer_for_nearer_places_at_every_scale() -> None:
    """The inner product approximates exp(-d² / 2 scale²): near 1 at 0, falling with distance."""
    lats = torch.tensor([40.0, 40.0 + 4 / 111.2, 41.0])
    features = PlaceFeatures()(lats, torch.full((3,), -74.0))
    at_4_km = slice(2 * FEATURES_PER_SCALE, 3 * FEATURES_PER_SCALE)
    here, four, far = (row[at_4_km] for row in features)
    assert (here @ here).item() == pytest.approx(1.0, abs=0.35)
    assert (here @ here).item() > (here @ four).item() > (here @ far).item()


def test_an_unknown_place_has_no_features() -> None:
    """Nothing is added for it, rather than the Gulf of Guinea."""
    assert PlaceFeatures()(torch.tensor([NAN]), torch.tensor([NAN])).abs().sum().item() == 0.0
