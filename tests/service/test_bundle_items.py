"""Columns read by Arrow are those of the items, one by one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.bundle_items import read_items
from service.contract.events import ItemId
from service.contract.items import Item, attributes_json
from service.contract.vocabulary import item_hash
from service.filters import matching
from service.item_columns import ItemColumns
from tests.service.test_item_columns import NOON, conditions, items
from training.data import ITEM_SCHEMA


def write(path: Path, rows: list[Item], *, row_group_size: int = 3) -> None:
    """Write items as an export does, but for what nobody reads here."""
    table = pa.table(
        {
            "item_id": [f"i{at}" for at in range(len(rows))],
            "title": [item.title for item in rows],
            "text": [None for _ in rows],
            "categories": [list(item.categories) or None for item in rows],
            "lat": [item.lat for item in rows],
            "lon": [item.lon for item in rows],
            "attributes": [attributes_json(item.attributes) for item in rows],
            "opening_hours": [item.opening_hours for item in rows],
            "released_at_ms": [item.released_at_ms for item in rows],
        },
        schema=ITEM_SCHEMA,
    )
    index = pa.array(range(1, len(rows) + 1), pa.int32())
    pq.write_table(table.add_column(0, "item_index", index), path, row_group_size=row_group_size)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(items, min_size=1, max_size=8))
def test_columns_of_a_file_are_those_of_its_items(tmp_path: Path, rows: list[Item]) -> None:
    """Filters and single items see the same, whichever way the columns were made."""
    path = tmp_path / "items.parquet"
    write(path, rows)
    found, expected = read_items(path, len(rows)).columns, ItemColumns.of(rows)
    for condition in conditions:
        mask = matching(condition, expected, NOON)
        assert matching(condition, found, NOON).tolist() == mask.tolist(), condition
    for index in range(1, len(rows) + 1):
        # Equal, NaN to NaN: the strategy draws a latitude without a longitude.
        np.testing.assert_equal(found.facts(index), expected.facts(index))
    for text in "abc":
        column = expected.terms.get("categories")
        if column is not None:
            of_text = column.items_of(text).tolist()
            assert found.terms["categories"].items_of(text).tolist() == of_text
    np.testing.assert_array_equal(found.lats, expected.lats)


def test_titles_and_ids_come_back_in_order(tmp_path: Path) -> None:
    """Across row groups; a missing title is none, and an empty one is empty."""
    titles = ["A", None, "", "Ä", "B"]
    path = tmp_path / "items.parquet"
    write(path, [Item(item_id=ItemId("x"), title=title) for title in titles], row_group_size=2)
    found = read_items(path, len(titles))
    assert [*found.titles] == titles
    assert [*found.ids] == ["i0", "i1", "i2", "i3", "i4"]
    assert found.hashes.tolist() == [item_hash(f"i{at}") for at in range(5)]


def test_other_writers_types_are_read_alike(tmp_path: Path) -> None:
    """Some write long texts, and a column in which nothing is known has no type."""
    path = tmp_path / "items.parquet"
    write(path, [Item(item_id=ItemId("x"), title=title) for title in ("A", None)])
    table = pq.read_table(path)
    for name, kind in {"title": pa.large_string(), "item_id": pa.large_string()}.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    for name in ("categories", "attributes", "opening_hours", "lat"):
        table = table.set_column(table.schema.get_field_index(name), name, pa.nulls(2))
    pq.write_table(table, path)
    found = read_items(path, 2)
    assert ([*found.ids], [*found.titles]) == (["i0", "i1"], ["A", None])
    assert found.columns.facts(1)["categories"] == ()
    assert np.isnan(found.columns.lats).all()
