"""Loading: read, verify, check against the golden scores, warm up; or refuse with the reason."""

from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.allowed import AllBut, Only
from service.bundle_items import encoded, read_items
from service.contract import bundle as contract
from service.contract.bundle import Manifest
from service.contract.errors import BundleMismatch, ContractError
from service.contract.exposures import Source
from service.contract.features import Arrays, Float32s, Int64s, RequestPoint, Window, encode_windows
from service.contract.vocabulary import MAX_DICT_IDS, Vocabulary, vocabulary_of
from service.errors import BundleRefused
from service.explaining_files import ExplainingFiles, read_explaining_files
from service.fallback import Pick, Popularity, RankedList
from service.item_columns import ItemColumns
from service.item_index import read_item_index
from service.item_rows import ItemRows
from service.ranker import Ranker, Wanted, open_encoder
from service.retrieval import HashIndex
from service.text_encoder import TextEncoder, read_text_encoder
from service.titles import Titles
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

    `titles` are by item index; `type_indices` is by event type code. `withheld`
    are the items that may not be shown, whatever is asked, ascending. `text_encoder` is None of a
    bundle that reads no texts; `explaining` is for explanations alone.
    """

    path: Path
    manifest: Manifest
    ranker: Ranker
    item_matrix: Float32s
    vocabulary: Vocabulary
    titles: Titles
    columns: ItemColumns
    hash_index: HashIndex
    type_indices: Int64s
    popularity: Popularity
    withheld: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    text_encoder: TextEncoder | None = None
    explaining: ExplainingFiles = field(default_factory=ExplainingFiles)

    @property
    def num_trained(self) -> int:
        """Return how many items the encoder knows; those behind came after the bundle."""
        return self.manifest.num_items

    def source_of(self, pick: Pick) -> Source:
        """Return where a pick comes from: what the model scores without its own history is new."""
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
    items = read_items(bundle / contract.ITEMS_FILE, manifest.num_items)
    # A tuple answers soonest, where it costs little.
    are_few = manifest.num_items <= MAX_DICT_IDS
    return LoadedBundle(
        path=bundle,
        manifest=manifest,
        ranker=Ranker(session, ItemRows(item_matrix), manifest.features, index),
        item_matrix=item_matrix,
        vocabulary=vocabulary_of(items.ids, items.crcs),
        titles=Titles(tuple(items.titles) if are_few else items.titles),
        columns=items.columns,
        hash_index=HashIndex.of(items.hashes),
        type_indices=type_index_of_code(Vocabulary(manifest.event_types)),
        popularity=_read_popularity(bundle / contract.POPULARITY_FILE, manifest),
        text_encoder=read_text_encoder(bundle, manifest, num_threads=num_threads),
        explaining=read_explaining_files(bundle, manifest, num_threads=num_threads),
    )


def _read_item_matrix(path: Path, manifest: Manifest) -> Float32s:
    # `np.load` leaves a file open that turns out to be something else.
    matrix: Float32s = np.lib.format.open_memmap(path, mode="r")
    expected = (manifest.num_items + 1, manifest.features.dim)
    if matrix.shape != expected or matrix.dtype != np.float32:
        raise BundleMismatch(
            f"{path}: is {matrix.dtype} {matrix.shape}, the manifest says float32 {expected}"
        )
    if not np.isfinite(matrix[0]).all():
        raise _not_finite(path)
    # Of other rows the golden scores tell: they are products with each of them.
    return matrix


def _not_finite(path: Path) -> BundleMismatch:
    return BundleMismatch(f"{path}: holds numbers that are not finite")


def _read_popularity(path: Path, manifest: Manifest) -> Popularity:
    names = ["scope", "key", "item_index", "weight"]
    with pq.ParquetFile(path) as file:
        table = file.read(columns=names)
    missing = set(names) - set(table.column_names)
    if missing:
        raise BundleMismatch(f"{path}: has no column {', '.join(sorted(missing))}")
    scope_names, scopes = encoded(pa.concat_arrays(table["scope"].chunks))
    place_of = {name: place for place, name in enumerate(scope_names)}
    keys = table["key"].to_numpy()
    indices = table["item_index"].to_numpy().astype(np.int64)
    weights = table["weight"].to_numpy().astype(np.float32)
    if len(indices) and (indices.min() < 1 or indices.max() > manifest.num_items):
        raise BundleMismatch(f"{path}: an item_index is not between 1 and {manifest.num_items}")
    overall = scopes == place_of.get(OVERALL_SCOPE)
    of_hours = scopes == place_of.get(HOUR_SCOPE)
    by_hour: dict[int, RankedList] = {}
    for hour in range(24):
        rows = of_hours & (keys == hour)
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
    # In place: of a million items each copy is 32 MB.
    found -= expected
    difference = float(np.abs(found, out=found).max())
    if not np.isfinite(difference) and not np.isfinite(loaded.item_matrix).all():
        raise _not_finite(bundle / contract.ITEM_MATRIX_FILE)
    # Written so that NaN fails too.
    if not difference <= contract.GOLDEN_TOLERANCE:
        raise BundleMismatch(
            f"{path}: scores here differ by {difference:.2e} from the expected ones, "
            f"allowed is {contract.GOLDEN_TOLERANCE:.0e}"
        )
    _check_cut(path, loaded, arrays, expected)


def _check_cut(path: Path, loaded: LoadedBundle, arrays: Arrays, expected: Float32s) -> None:
    """Raise BundleMismatch unless a window without its padding scores the same: it is served so."""
    counts = (arrays["items"] > 0).sum(axis=1)
    for row in np.flatnonzero((counts > 0) & (counts < arrays["items"].shape[1]))[:1].tolist():
        cut = {
            name: column[row : row + 1, -counts[row] :]
            if column.ndim > 1
            else column[row : row + 1]
            for name, column in arrays.items()
        }
        difference = float(np.abs(loaded.ranker.score_batch(cut)[0] - expected[row]).max())
        if not difference <= contract.GOLDEN_TOLERANCE:
            raise BundleMismatch(
                f"{path}: without its padding a window scores {difference:.2e} apart; padding on "
                "the left must change nothing, see docs/bundle.md"
            )


def _warm_up(loaded: LoadedBundle) -> None:
    """Rank as requests will, so that the first of them does not pay for allocations."""
    window_len = loaded.manifest.features.window_len
    everything = AllBut(np.zeros(0, np.int64), loaded.manifest.num_items)
    wanted = [Wanted(everything, WARM_UP_K), Wanted(Only(np.ones(1, np.int64)), WARM_UP_K)]
    arrays = encode_windows([Window.empty()] * 2, [RequestPoint()] * 2, window_len)
    for _ in range(NUM_WARM_UP_CALLS):
        loaded.ranker.best(list(zip(loaded.ranker.encode(arrays), wanted, strict=True)))
