"""The public Amazon files of 2014, 2018 and 2023: ratings as csv, reviews and products as json."""

import ast
import json
import re
from collections.abc import Container, Iterator
from functools import reduce
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from training.config import TrainingError
from training.importers.amazon_text import item_row
from training.importers.files import first_lines, open_text, read_delimited, readable

RatingColumns = Literal["auto", "user-item", "item-user"]
_ORDERS = {
    "user-item": ("user_id", "item_id", "value", "time"),
    "item-user": ("item_id", "user_id", "value", "time"),
}
_ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
_LINES_LOOKED_AT = 1000
# The 2023 edition has other names; reviews of variants of a product share its `parent_asin`.
_NAMES = {
    "user_id": ("reviewerID", "user_id"),
    "item_id": ("parent_asin", "asin"),
    "value": ("overall", "rating"),
    "time": ("unixReviewTime", "timestamp"),
}
_TYPES = {
    "user_id": pa.string(),
    "item_id": pa.string(),
    "value": pa.float64(),
    "time": pa.int64(),
}
# A json reader's block has to hold a whole line; reviews are long.
_BLOCK_BYTES = 1 << 24


def read_ratings(path: Path, columns: RatingColumns) -> tuple[pa.Table, int]:
    """Read a csv of ratings; returns user_id, item_id, value, time as text, and bad lines."""
    lines = first_lines(path, _LINES_LOOKED_AT)
    header = lines[0].split(",") if lines else []
    if not {"rating", "overall"}.isdisjoint(header):
        names = _named_columns(path, header)
        table, num_bad = read_delimited(path, dict.fromkeys(names, pa.string()))
        return table.rename_columns(names), num_bad
    order = _ORDERS[columns if columns != "auto" else _order_of(path, lines)]
    return read_delimited(path, dict.fromkeys(order, pa.string()), names=order)


def _named_columns(path: Path, header: list[str]) -> dict[str, str]:
    """Return our name of each column to take; raises TrainingError if one has none."""
    chosen = {}
    for key, options in _NAMES.items():
        present = [name for name in options if name in header]
        if not present:
            raise TrainingError(
                f"{path}: no column {' or '.join(options)}; there are {', '.join(header)}; "
                "import it as `events`, which takes any column names"
            )
        chosen[present[0]] = key
    return chosen


def _order_of(path: Path, lines: list[str]) -> str:
    """Return the order of 2014 or 2018, by which column holds product ids (ASINs or ISBNs)."""
    rows = [line.split(",") for line in lines]
    first, second = (
        sum(len(row) > place and _ASIN.fullmatch(row[place]) is not None for row in rows)
        for place in (0, 1)
    )
    if first == second:
        raise TrainingError(
            f"{path}: neither of the first two columns is the one with product ids; say which "
            "with --rating-columns user-item (2014) or item-user (2018)"
        )
    return "item-user" if first > second else "user-item"


def read_reviews(path: Path) -> pa.Table:
    """Read reviews, one json object a line; returns user_id, item_id, value and time."""
    schema = pa.schema([(name, _TYPES[key]) for key, names in _NAMES.items() for name in names])
    with readable(path):
        table = arrow_json.read_json(
            path,
            arrow_json.ReadOptions(block_size=_BLOCK_BYTES),
            arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    columns = {
        key: reduce(pc.coalesce, [table[name] for name in names]) for key, names in _NAMES.items()
    }
    return pa.table(columns)


def products_beside(log: Path) -> Path | None:
    """Return the file of products that belongs to a log: `meta_<its name>`, or the only one."""
    found = sorted(log.parent.glob("meta_*.json*"))
    stem = log.name.split(".")[0].removeprefix("reviews_").removeprefix("ratings_")
    wanted = {f"meta_{stem}", f"meta_{stem.removesuffix('_5')}"}
    named = [path for path in found if path.name.split(".")[0] in wanted]
    return (named or found)[0] if named or len(found) == 1 else None


def read_products(path: Path, wanted: Container[str]) -> Iterator[dict[str, object]]:
    """Yield the products in `wanted` as columns of ITEM_SCHEMA."""
    with readable(path), open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            product = _product(path, number, line)
            item_id = product.get("parent_asin") or product.get("asin")
            if item_id in wanted:
                yield item_row(
                    item_id,
                    title=product.get("title"),
                    description=product.get("description"),
                    brand=product.get("brand") or product.get("store"),
                    categories=product.get("categories") or product.get("category"),
                )


def _product(path: Path, number: int, line: str) -> dict[str, object]:
    # The lines of 2014 are Python literals, which differ from json in their quotes.
    for read in (json.loads, ast.literal_eval):
        try:
            product = read(line)
        except (ValueError, SyntaxError):
            continue
        if isinstance(product, dict):
            return product
    raise TrainingError(f"{path}: line {number} is no json object; get the file again")
