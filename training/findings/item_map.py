"""Items as the model sees them: a flat map of their vectors, and who is near whom."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.features import Float32s
from training.model.sequence_model import SequenceModel

MOST_POINTS = 1_500
# Principal components of more items than these are those of a sample.
MOST_FITTED = 20_000
NUM_CATEGORIES = 7
NUM_KNOWN = 6
NUM_NEIGHBOURS = 5
SEED = 0
OTHER = "other"


@dataclass(frozen=True, slots=True)
class ItemNames:
    """What people call items, by item index: a title, else category and id, and a category.

    Row 0, padding, is "" in both; the category is the item's first, "" where none is known.
    """

    titles: tuple[str, ...]
    categories: tuple[str, ...]


def item_names(rows: Sequence[dict[str, Any]], item_ids: Sequence[str]) -> ItemNames:
    """Return the names of items in the order of `item_ids` from rows of the dataset's items."""
    known = {row["item_id"]: row for row in rows}
    ordered = [known.get(item_id, {}) for item_id in item_ids]
    firsts = [next(iter(row.get("categories") or ()), "") for row in ordered]
    titles = [
        row.get("title") or f"{first} {item_id}".strip()
        for row, first, item_id in zip(ordered, firsts, item_ids, strict=True)
    ]
    return ItemNames(("", *titles), ("", *firsts))


def unit_vectors(model: SequenceModel) -> Float32s:
    """Return the item vectors that all heads start from, of length 1, (num_items + 1, dim)."""
    with torch.inference_mode():
        vectors: Float32s = torch.nn.functional.normalize(model.items(), dim=-1).cpu().numpy()
    return vectors


def neighbours(vectors: Float32s, counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the items nearest by cosine to each of the items with the most events.

    `vectors` are unit vectors (num_items + 1, dim), `counts` the events of each, (num_items + 1,).
    """
    chosen = most_events(counts, NUM_KNOWN)
    cosines = vectors[chosen] @ vectors.T
    cosines[:, 0] = -np.inf
    cosines[np.arange(len(chosen)), chosen] = -np.inf
    near = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NUM_NEIGHBOURS, len(counts) - 2)]
    return [
        {"item": int(item), "near": found.tolist()}
        for item, found in zip(chosen, near, strict=True)
    ]


def item_map(vectors: Float32s, counts: NDArray[np.int64], names: ItemNames) -> dict[str, Any]:
    """Return places of the items with the most events on the first two principal components.

    `points` are [x, y, group, title], those with the most events first; `groups` are the commonest
    categories, or where no item has one, terciles of the number of events. `kept` is the share of
    all items' variance on each of the two components.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415 - a second to load, for this alone

    fitted = np.arange(1, len(vectors))
    if len(fitted) > MOST_FITTED:
        rng = np.random.default_rng(SEED)
        fitted = np.sort(rng.choice(fitted, MOST_FITTED, replace=False))
    components = min(2, len(fitted), vectors.shape[1])
    pca = PCA(components, svd_solver="full").fit(vectors[fitted].astype(np.float64))
    drawn = most_events(counts, MOST_POINTS)
    places = pca.transform(vectors[drawn].astype(np.float64))
    places = np.pad(places, ((0, 0), (0, 2 - components)))
    groups, group_of = _groups(drawn, counts, names)
    return {
        "num_items": len(vectors) - 1,
        "kept": [float(share) for share in np.nan_to_num(pca.explained_variance_ratio_)],
        "groups": groups,
        "by": "category" if any(names.categories) else "number of events",
        "points": [
            [round(float(x), 4), round(float(y), 4), group, names.titles[item]]
            for (x, y), group, item in zip(places, group_of, drawn.tolist(), strict=True)
        ],
    }


def _groups(
    drawn: NDArray[np.int64], counts: NDArray[np.int64], names: ItemNames
) -> tuple[list[str], list[int]]:
    """Return the groups' names and the group of each drawn item."""
    if not any(names.categories):
        bounds = np.quantile(counts[drawn], [1 / 3, 2 / 3])
        places = 2 - np.searchsorted(bounds, counts[drawn], side="left")
        return ["most events", "fewer", "fewest"], places.tolist()
    groups = common_categories([names.categories[item] for item in drawn], NUM_CATEGORIES)
    place_of = {name: place for place, name in enumerate(groups)}
    found = [place_of.get(names.categories[item], len(groups)) for item in drawn]
    return [*groups, OTHER], found


def common_categories(categories: Sequence[str], most: int) -> list[str]:
    """Return the commonest categories, at most so many; ties by name.

    >>> common_categories(["Bar", "", "Gym", "Bar"], 1)
    ['Bar']
    """
    counted = Counter(name for name in categories if name)
    return sorted(counted, key=lambda name: (-counted[name], name))[:most]


def most_events(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the items with the most events, from the most; ties by index."""
    order = np.argsort(-counts[1:], kind="stable")[:most] + 1
    return order.astype(np.int64)
