"""Reading `items.parquet`: from Arrow to arrays, without a Python object for each item."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.contract import bundle as contract
from service.contract.errors import BundleMismatch
from service.contract.features import Int64s
from service.contract.items import parse_attributes
from service.contract.opening import parse_opening_hours
from service.contract.texts import PackedTexts
from service.contract.vocabulary import id_crc, item_hash
from service.item_columns import (
    ATTRIBUTES,
    CATEGORIES,
    RELEASED_AT,
    Float64s,
    ItemColumns,
    NumberColumn,
    Term,
    TermColumn,
    by_place,
)

INDEX = "item_index"
# So many hashes, spread over all, are worked out again: a bundle made wrong has them all wrong.
NUM_CHECKED = 100
# What many items have in common: read as its distinct texts, where the file keeps it so.
REPEATING = ("attributes", "opening_hours")


@dataclass(frozen=True, slots=True)
class BundleItems:
    """What a bundle says of its items, the first of which has the index 1.

    `hashes` and `crcs` are (num_items,), the `item_hash` and the `id_crc` of each id; a bundle
    before 1.3 does not say the latter.
    """

    ids: PackedTexts
    titles: PackedTexts
    hashes: NDArray[np.uint64]
    crcs: NDArray[np.uint32] | None
    columns: ItemColumns


def read_items(path: Path, num_items: int) -> BundleItems:
    """Read the items; columns that 1.0 had not may be missing. Raises BundleMismatch."""
    with pq.ParquetFile(path, read_dictionary=_repeating_in(path)) as file:
        table = _Table(file)
        index = table.column(INDEX)
        if not np.array_equal(_numbers(index), np.arange(1, num_items + 1)):
            raise BundleMismatch(f"{path}: {INDEX} is not 1 to {num_items} in order")
        ids = _texts(table.column("item_id"))
        titles = _texts(table.column("title"))
        hashes = _hashes(path, table, ids)
        items = BundleItems(
            ids, titles, hashes, _crcs(path, table, ids), _columns(table, num_items)
        )
    # What columns were decoded in, which Arrow would keep for the next file.
    pa.default_memory_pool().release_unused()
    return items


def _repeating_in(path: Path) -> list[str]:
    """Return which columns a file has of those that repeat and are texts."""
    schema = pq.read_schema(path)
    return [
        name for name in REPEATING if name in schema.names and _is_text(schema.field(name).type)
    ]


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


class _Table:
    """A file's columns, each read when it is asked for, so that one is in memory at a time."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self._names = frozenset(file.schema_arrow.names)

    def column(self, name: str) -> Any:
        """Return a column as one array; one that 1.0 had not and is not here is None."""
        if name not in self._names and name not in (INDEX, *contract.ITEM_COLUMNS_OF_1_0):
            return None
        chunks = self._file.read(columns=[name])[name].chunks
        return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _numbers(array: Any) -> NDArray[Any]:
    numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def _texts(array: Any) -> PackedTexts:
    """Return a column of texts on the memory that Arrow read it into."""
    if array.type != pa.string():
        # Of other writers: longer offsets, or a column in which all is null.
        array = array.cast(pa.string())
    _, offsets, data = array.buffers()
    first = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    is_null = _numbers(array.is_null()) if array.null_count else None
    return PackedTexts(data if data is not None else b"", first, is_null)


def _hashes(path: Path, table: _Table, ids: PackedTexts) -> NDArray[np.uint64]:
    column = table.column(contract.HASH_COLUMN)
    if column is None:
        texts = (str(piece, "utf-8") for piece in ids.pieces())
        return np.fromiter(map(item_hash, texts), np.uint64, len(ids))
    hashes: NDArray[np.uint64] = _numbers(column).astype(np.uint64, copy=False)
    _check_some(path, contract.HASH_COLUMN, ids, hashes, item_hash)
    return hashes


def _crcs(path: Path, table: _Table, ids: PackedTexts) -> NDArray[np.uint32] | None:
    column = table.column(contract.CRC_COLUMN)
    if column is None:
        return None
    crcs: NDArray[np.uint32] = _numbers(column).astype(np.uint32, copy=False)
    _check_some(path, contract.CRC_COLUMN, ids, crcs, id_crc)
    return crcs


def _check_some(
    path: Path, name: str, ids: PackedTexts, stated: NDArray[Any], of_id: Callable[[str], int]
) -> None:
    """Raise BundleMismatch unless a hundred of the numbers stated are those of their ids."""
    for at in range(0, len(ids), max(1, len(ids) // NUM_CHECKED)):
        if of_id(str(ids.utf8(at), "utf-8")) != stated[at]:
            raise BundleMismatch(f"{path}: {name} is not that of {ids[at]!r}")


def _columns(table: _Table, num_items: int) -> ItemColumns:
    terms, numbers = _attributes(table.column("attributes"))
    categories = _categories(table.column("categories"))
    if categories is not None:
        terms = {CATEGORIES: categories, **terms}
    released = table.column("released_at_ms")
    if released is not None and released.null_count < num_items:
        known = _places(released) + 1
        numbers[RELEASED_AT] = NumberColumn(known, _numbers(released.drop_null()).astype(float))
    hours, hours_of = _opening_hours(table.column("opening_hours"), num_items)
    return ItemColumns(
        num_items=num_items,
        terms=terms,
        numbers=numbers,
        lats=_coordinates(table.column("lat")),
        lons=_coordinates(table.column("lon")),
        hours=hours,
        hours_of=hours_of,
    )


def _places(array: Any) -> Int64s:
    """Return the places of an array, from 0, that are not null."""
    return np.flatnonzero(_numbers(array.is_valid())).astype(np.int64)


def _coordinates(array: Any) -> Float64s:
    # Null becomes NaN on the way.
    return np.concatenate([[np.nan], _numbers(array).astype(np.float64)])


def encoded(array: Any) -> tuple[list[str], Int64s]:
    """Return the distinct texts of an array without nulls, and the place of each of its texts."""
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    return encoded.dictionary.to_pylist(), _numbers(encoded.indices).astype(np.int64)


def _categories(array: Any) -> TermColumn | None:
    if array.type != pa.list_(pa.string()):
        array = array.cast(pa.list_(pa.string()))
    flat = array.flatten()
    counts = np.diff(_numbers(array.offsets))
    # What a null list has beneath it is no part of the flat one.
    counts[_numbers(array.is_null())] = 0
    items = np.repeat(np.arange(1, len(array) + 1), counts)[_places(flat)]
    if not len(items):
        return None
    names, places = encoded(flat.drop_null())
    return TermColumn.of(names, places, items)


def _opening_hours(array: Any, num_items: int) -> tuple[tuple[str, ...], Int64s]:
    """Return the distinct opening hours, "" first, and each item's place among them."""
    hours_of = np.zeros(num_items + 1, np.int64)
    if array is None or array.null_count == num_items:
        return ("",), hours_of
    names, places = encoded(array.drop_null())
    numbered = {"": 0}
    for text in names:
        if text:
            # Refused here rather than at the first request that asks who is open.
            parse_opening_hours(text)
        numbered.setdefault(text, len(numbered))
    hours_of[_places(array) + 1] = np.array([numbered[text] for text in names])[places]
    return tuple(numbered), hours_of


def _attributes(array: Any) -> tuple[dict[str, TermColumn], dict[str, NumberColumn]]:
    """Return the columns of attributes, each distinct JSON text being parsed once."""
    if array is None or array.null_count == len(array):
        return {}, {}
    documents, places = encoded(array.drop_null())
    owners = _Owners(places, _places(array) + 1, len(documents))
    terms: defaultdict[str, _Said] = defaultdict(_Said)
    numbers: defaultdict[str, _Said] = defaultdict(_Said)
    for place, text in enumerate(documents):
        for name, value in parse_attributes(text).items():
            if isinstance(value, float):
                numbers[ATTRIBUTES + name].add(place, value)
                continue
            for term in dict.fromkeys(value if isinstance(value, tuple) else (value,)):
                terms[ATTRIBUTES + name].add(place, term)
    return (
        {key: _term_column(said, owners) for key, said in terms.items()},
        {key: _number_column(said, owners) for key, said in numbers.items()},
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What distinct documents say under one name: parallel lists of documents and values."""

    documents: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, document: int, value: object) -> None:
        """Note that a document says a value."""
        self.documents.append(document)
        self.values.append(value)


class _Owners:
    """Which items have which document: item `items[i]` has the document `places[i]`."""

    def __init__(self, places: Int64s, items: Int64s, num_documents: int) -> None:
        self._items = items[by_place(places, num_documents)]
        self._counts = np.bincount(places, minlength=num_documents)
        self._starts = np.cumsum(self._counts) - self._counts

    def spread(self, documents: list[int]) -> tuple[Int64s, Int64s]:
        """Return the items of these documents one after another, and whose of them each is.

        The second are places in `documents`, which may name one several times.
        """
        named = np.array(documents, np.int64)
        counts = self._counts[named]
        whose = np.repeat(np.arange(len(named)), counts)
        before = np.cumsum(counts) - counts
        items = self._items[np.arange(len(whose)) + (self._starts[named] - before)[whose]]
        return items, whose


def _term_column(said: _Said, owners: _Owners) -> TermColumn:
    place_of: dict[Term, int] = {}
    places = np.array([place_of.setdefault(term, len(place_of)) for term in said.values], np.int64)
    items, whose = owners.spread(said.documents)
    return TermColumn.of(tuple(place_of), places[whose], items)


def _number_column(said: _Said, owners: _Owners) -> NumberColumn:
    items, whose = owners.spread(said.documents)
    order = np.argsort(items)
    return NumberColumn(items[order], np.array(said.values, np.float64)[whose][order])
