"""What is known of items beside their identity: categories, coordinates, place cells, text."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h3
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.contract.items import item_text

# Cells of resolution 8 are hexagons of 0.74 km² and 0.46 km edges: a few blocks of a city.
CELL_RESOLUTION = 8


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """Facts by item index, row 0 being padding.

    `lats` and `lons` are (num_items + 1,) float32, NaN where unknown; `cells` is (num_items + 1,)
    int64, places in `num_cells` H3 cells from 1, 0 where unknown. `categories` lists the category
    indices of all items one after another, from 1; item i has
    `categories[category_starts[i] : category_starts[i + 1]]`. `texts` is each item's title, text
    and category names, "" where none is known.
    """

    num_items: int
    lats: NDArray[np.float32]
    lons: NDArray[np.float32]
    cells: NDArray[np.int64]
    num_cells: int
    categories: NDArray[np.int64]
    category_starts: NDArray[np.int64]
    num_categories: int
    texts: tuple[str, ...]

    @classmethod
    def unknown(cls, num_items: int) -> "ItemFacts":
        """Return the facts of items of which only the identity is known."""
        nothing = np.full(num_items + 1, np.nan, np.float32)
        zeros = np.zeros(num_items + 1, np.int64)
        starts = np.zeros(num_items + 2, np.int64)
        return cls(
            num_items, nothing, nothing, zeros, 0, zeros[:0], starts, 0, ("",) * (num_items + 1)
        )


def item_facts(items: pa.Table, item_ids: tuple[str, ...]) -> ItemFacts:
    """Return the facts of items in the order of `item_ids`; `items` has the columns ITEM_SCHEMA."""
    rows = {row["item_id"]: row for row in items.to_pylist()}
    ordered = [rows.get(item_id, {}) for item_id in item_ids]
    cells = [_cell(row.get("lat"), row.get("lon")) for row in ordered]
    lists = [row.get("categories") or [] for row in ordered]
    category_of = _numbered(name for names in lists for name in names)
    cell_of = _numbered(cell for cell in cells if cell)
    counts = np.array([0, 0, *(len(names) for names in lists)], np.int64)
    return ItemFacts(
        num_items=len(item_ids),
        lats=_column(ordered, "lat"),
        lons=_column(ordered, "lon"),
        cells=np.array([0, *(cell_of.get(cell, 0) for cell in cells)], np.int64),
        num_cells=len(cell_of),
        categories=np.array([category_of[name] for names in lists for name in names], np.int64),
        category_starts=np.cumsum(counts),
        num_categories=len(category_of),
        texts=("", *(_text(row) for row in ordered)),
    )


def _text(row: dict[str, Any]) -> str:
    return item_text(row.get("title"), row.get("text"), row.get("categories") or ())


def _cell(lat: float | None, lon: float | None) -> str:
    if lat is None or lon is None:
        return ""
    cell: str = h3.latlng_to_cell(lat, lon, CELL_RESOLUTION)
    return cell


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(sorted(set(names)), start=1)}


def _column(rows: list[dict[str, float | None]], name: str) -> NDArray[np.float32]:
    known = [row.get(name) for row in rows]
    filled = [np.nan, *(np.nan if value is None else value for value in known)]
    return np.array(filled, np.float32)
