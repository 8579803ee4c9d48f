"""The synthetic catalogue: what its items are called and say, and which of them lie together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 20_260
CLUSTER_SIZE = 250
NUM_CATEGORIES = 20
MAX_PRICE = 100


@dataclass(frozen=True, slots=True)
class Spec:
    """What a bundle is to be."""

    window_len: int
    num_items: int


def item_id(index: int) -> str:
    """Return the id of the item at an index from 1."""
    return f"i{index:07d}"


def category(index: int) -> str:
    """Return the category of an item; each has one in NUM_CATEGORIES items."""
    return f"category-{index % NUM_CATEGORIES}"


def clusters(num_items: int) -> NDArray[np.int64]:
    """Return item indices by cluster, (clusters, CLUSTER_SIZE); what does not fill one is left."""
    order = np.random.default_rng(SEED).permutation(num_items) + 1
    full = num_items // CLUSTER_SIZE
    return order[: full * CLUSTER_SIZE].reshape(full, CLUSTER_SIZE)
