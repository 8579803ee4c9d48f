"""Loading: read, verify, check against the golden scores, warm up; or refuse with the reason."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.allowed import AllBut, Only
from service.contract import bundle as contract
from service.contract.bundle import Manifest
from service.contract.errors import BundleMismatch, ContractError
from service.contract.events import ItemId
from service.contract.exposures import Source
from service.contract.features import Float32s, Int64s, RequestPoint, Window, encode_windows
from service.contract.items import Item, parse_attributes
from service.contract.opening import parse_opening_hours
from service.contract.vocabulary import Vocabulary, item_hash
from service.errors import BundleRefused
from service.fallback import Pick, Popularity, RankedList
from service.item_columns import ItemColumns
from service.item_index import read_item_index
from service.item_rows import ItemRows
from service.ranker import Ranker, Wanted, open_encoder
from service.retrieval import HashIndex
from service.windows import type_index_of_code

OVERALL_SCOPE = "overall"
HOUR_SCOPE = "hour"
NUM_WARM_UP_CALLS = 3
WARM_UP_K = 10
# What readers raise at files that have the right hash and hold something else all the same; a
# process that tries a bundle beside the one that serves must survive each of them.
UNREADABLE = (
    ContractError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    BadZipFile,
    pa.ArrowException,
)


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A bundle that passed its own check and is ready to serve.

    `titles` is by item index, element 0 unused; `type_indices` is by event type code. `withheld`
    are the items that may not be shown, whatever is asked, ascending.
    """

    path: Path
    manifest: Manifest
    ranker: Ranker
    item_matrix: Float32s
    vocabulary: Vocabulary
    titles: tuple[str | None, ...]
    columns: ItemColumns
    hash_index: HashIndex
    type_indices: Int64s
    popularity: Popularity
    withheld: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def num_trained(self) -> int:
        """Return how many items the encoder knows; those behind came after the bundle."""
        return self.manifest.num_items

    def source_of(self, pick: Pick) -> Source:
        """Return where a pick comes from: what the model scored by its categories alone is new."""
        by_model = pick.source == "model"
        return "new" if by_model and pick.index > self.num_trained else pick.source


def load_bundle(path: Path, *, num_threads: int = 1) -> LoadedBundle:
    """Return the bundle at a path, checked and warm; raises BundleRefused with the reason."""
    try:
        bundle = contract.resolve_bundle(path)
        manifest = contract.read_manifest(bundle)
        contract.verify_files(bundle, manifest)
        loaded = _load(bundle, manifest, num_threads)
        _check_golden(bundle, loaded)
        _warm_up(loaded)
    except UNREADABLE as exc:
        raise BundleRefused(str(exc)) from exc
    return loaded


def _load(bundle: Path, manifest: Manifest, num_threads: int) -> LoadedBundle:
    session = open_encoder(
        bundle / contract.ENCODER_FILE, manifest.features, num_threads=num_threads
    )
    item_matrix = _read_item_matrix(bundle / contract.ITEM_MATRIX_FILE, manifest)
    index = read_item_index(bundle, manifest)
    items = _read_items(bundle / contract.ITEMS_FILE, manifest)
    vocabulary = Vocabulary(item.item_id for item in items)
    item_hashes = np.fromiter((item_hash(text) for text in vocabulary), np.uint64, len(vocabulary))
    return LoadedBundle(
        path=bundle,
        manifest=manifest,
        ranker=Ranker(session, ItemRows(item_matrix), manifest.features, index),
        item_matrix=item_matrix,
        vocabulary=vocabulary,
        titles=(None, *(item.title for item in items)),
        columns=ItemColumns.of(items),
        hash_index=HashIndex(item_hashes),
        type_indices=type_index_of_code(Vocabulary(manifest.event_types)),
        popularity=_read_popularity(bundle / contract.POPULARITY_FILE, manifest),
    )


def _read_item_matrix(path: Path, manifest: Manifest) -> Float32s:
    # `np.load` leaves a file open that turns out to be something else.
    matrix: Float32s = np.lib.format.open_memmap(path, mode="r")
    expected = (manifest.num_items + 1, manifest.features.dim)
    if matrix.shape != expected or matrix.dtype != np.float32:
        raise BundleMismatch(
            f"{path}: is {matrix.dtype} {matrix.shape}, the manifest says float32 {expected}"
        )
    if not np.isfinite(matrix).all():
        raise BundleMismatch(f"{path}: holds numbers that are not finite")
    return matrix


def _read_items(path: Path, manifest: Manifest) -> list[Item]:
    """Return the items in the order of their index; columns that 1.0 had not may be missing."""
    table = pq.read_table(path)
    if not np.array_equal(table["item_index"].to_numpy(), np.arange(1, manifest.num_items + 1)):
        raise BundleMismatch(f"{path}: item_index is not 1 to {manifest.num_items} in order")
    needed = {*contract.ITEM_COLUMNS_OF_1_0, *table.column_names}
    columns = {
        name: table[name].to_pylist() if name in needed else [None] * manifest.num_items
        for name in contract.ITEM_COLUMNS
    }
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [_item(row) for row in rows]


def _item(row: dict[str, Any]) -> Item:
    if row["opening_hours"]:
        # Refused here rather than at the first request that asks who is open.
        parse_opening_hours(row["opening_hours"])
    return Item(
        item_id=ItemId(row["item_id"]),
        title=row["title"],
        categories=tuple(row["categories"] or ()),
        attributes=parse_attributes(row["attributes"]),
        lat=row["lat"],
        lon=row["lon"],
        opening_hours=row["opening_hours"],
        released_at_ms=row["released_at_ms"],
    )


def _read_popularity(path: Path, manifest: Manifest) -> Popularity:
    table = pq.read_table(path, columns=["scope", "key", "item_index", "weight"])
    scopes = np.array(table["scope"].to_pylist(), dtype=np.str_)
    keys = table["key"].to_numpy()
    indices = table["item_index"].to_numpy().astype(np.int64)
    weights = table["weight"].to_numpy().astype(np.float32)
    if len(indices) and (indices.min() < 1 or indices.max() > manifest.num_items):
        raise BundleMismatch(f"{path}: an item_index is not between 1 and {manifest.num_items}")
    overall = scopes == OVERALL_SCOPE
    by_hour: dict[int, RankedList] = {}
    for hour in range(24):
        rows = (scopes == HOUR_SCOPE) & (keys == hour)
        by_hour[hour] = RankedList(indices[rows], weights[rows])
    return Popularity(RankedList(indices[overall], weights[overall]), by_hour)


def _check_golden(bundle: Path, loaded: LoadedBundle) -> None:
    """Raise BundleMismatch unless this machine computes the scores that training wrote down."""
    path = bundle / contract.GOLDEN_FILE
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as golden:
        missing = {*loaded.manifest.features.inputs, contract.GOLDEN_SCORES} - set(golden.files)
        if missing:
            raise BundleMismatch(f"{path}: holds no {', '.join(sorted(missing))}")
        arrays = {name: golden[name] for name in golden.files if name != contract.GOLDEN_SCORES}
        expected = golden[contract.GOLDEN_SCORES]
    # The copy bonus is gathered by item, whether or not the encoder takes the items.
    arrays.setdefault("items", np.zeros((len(expected), 1), np.int64))
    found = loaded.ranker.score_batch(arrays)
    if found.shape != expected.shape:
        raise BundleMismatch(f"{path}: expects scores {expected.shape}, they are {found.shape}")
    difference = float(np.abs(found - expected).max())
    # Written so that NaN fails too.
    if not difference <= contract.GOLDEN_TOLERANCE:
        raise BundleMismatch(
            f"{path}: scores here differ by {difference:.2e} from the expected ones, "
            f"allowed is {contract.GOLDEN_TOLERANCE:.0e}"
        )


def _warm_up(loaded: LoadedBundle) -> None:
    """Rank as requests will, so that the first of them does not pay for allocations."""
    window_len = loaded.manifest.features.window_len
    everything = AllBut(np.zeros(0, np.int64), loaded.manifest.num_items)
    wanted = [Wanted(everything, WARM_UP_K), Wanted(Only(np.ones(1, np.int64)), WARM_UP_K)]
    arrays = encode_windows([Window.empty()] * 2, [RequestPoint()] * 2, window_len)
    for _ in range(NUM_WARM_UP_CALLS):
        loaded.ranker.rank(arrays, wanted)
