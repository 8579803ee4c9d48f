from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.bundle_loader import load_bundle
from service.contract import bundle as contract
from service.contract.features import Arrays, Float32s
from service.contract.vocabulary import item_hash
from service.errors import BundleRefused
from service.ranker import Ranker
from tests.builders import ITEM_ROWS, POPULAR, WINDOW_LEN, make_bundle, manifest


def test_a_valid_bundle_is_loaded_with_its_items_in_order(bundle_path: Path) -> None:
    """The index of an item is its row of the matrix, its title's place, and its hash's."""
    loaded = load_bundle(bundle_path)
    assert list(loaded.vocabulary) == list(ITEM_ROWS)
    assert (loaded.titles[0], loaded.titles[1]) == (None, "Title of action-1")
    hashes = np.array([item_hash("action-1")], np.uint64)
    assert loaded.hash_index.indices(hashes).tolist() == [1]
    assert [loaded.vocabulary.id(i) for i in loaded.popularity.overall.indices] == list(POPULAR)


def test_the_item_matrix_is_mapped_and_not_copied(bundle_path: Path) -> None:
    """Workers on one machine then share its memory."""
    assert isinstance(load_bundle(bundle_path).item_matrix, np.memmap)


def test_current_names_the_bundle_to_load(tmp_path: Path) -> None:
    """An upgrade is a new directory beside the old one and one changed file."""
    make_bundle(tmp_path / "0123456789abcdef")
    (tmp_path / contract.CURRENT_FILE).write_text("0123456789abcdef\n")
    assert load_bundle(tmp_path).path == tmp_path / "0123456789abcdef"


def test_no_bundle_at_all_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    """The first thing that goes wrong for a newcomer."""
    with pytest.raises(BundleRefused, match="training export"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", contract.BUNDLE_FILES)
def test_one_flipped_byte_is_refused(tmp_path: Path, name: str) -> None:
    """A damaged file must not give recommendations that are quietly wrong."""
    folder = make_bundle(tmp_path)
    damaged = bytearray((folder / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / name).write_bytes(damaged)
    with pytest.raises(BundleRefused, match=rf"{name}: SHA-256"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "version",
    [
        {"major": contract.SCHEMA_MAJOR, "minor": contract.SCHEMA_MINOR + 1},
        {"major": contract.SCHEMA_MAJOR + 1, "minor": 0},
    ],
)
def test_a_bundle_of_a_newer_schema_is_refused(tmp_path: Path, version: dict[str, int]) -> None:
    """What it means is known to a later build only."""
    folder = make_bundle(tmp_path, schema_version=version)
    with pytest.raises(BundleRefused, match="upgrade the service"):
        load_bundle(folder)


def test_a_machine_that_computes_other_scores_refuses_the_bundle(tmp_path: Path) -> None:
    """The golden scores differ by ten tolerances, as they would with a broken kernel."""
    folder = make_bundle(tmp_path, golden_error=10 * contract.GOLDEN_TOLERANCE)
    with pytest.raises(BundleRefused, match="differ by"):
        load_bundle(folder)


def test_an_encoder_that_padding_influences_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are served without their padding, and would score otherwise than in training."""
    score_batch = Ranker.score_batch

    def by_length(ranker: Ranker, arrays: Arrays) -> Float32s:
        is_cut = arrays["items"].shape[1] < WINDOW_LEN
        return score_batch(ranker, arrays) + np.float32(is_cut)

    folder = make_bundle(tmp_path)
    monkeypatch.setattr(Ranker, "score_batch", by_length)
    with pytest.raises(BundleRefused, match="without its padding"):
        load_bundle(folder)


def test_a_copy_bonus_is_part_of_the_golden_scores(tmp_path: Path) -> None:
    """A bundle with both outputs passes its own check."""
    loaded = load_bundle(make_bundle(tmp_path, copy_weight=0.5))
    assert contract.COPY_OUTPUT in loaded.manifest.features.outputs


def spoil_matrix(folder: Path) -> None:
    """Drop the last row."""
    path = folder / contract.ITEM_MATRIX_FILE
    np.save(path, np.load(path)[:-1])


def spoil_numbers(folder: Path) -> None:
    """Leave a number that is none."""
    path = folder / contract.ITEM_MATRIX_FILE
    matrix = np.load(path)
    matrix[1, 1] = np.nan
    np.save(path, matrix)


def spoil_items(folder: Path) -> None:
    """Turn the order of the items around."""
    path = folder / contract.ITEMS_FILE
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(len(table))))), path)


def spoil_encoder(folder: Path) -> None:
    """Leave no graph."""
    (folder / contract.ENCODER_FILE).write_bytes(b"no graph")


def rename_input(folder: Path) -> None:
    """Let the graph take an input that the manifest does not name."""
    path = folder / contract.ENCODER_FILE
    model = onnx.load(path)
    model.graph.input[1].name = "time"
    for node in model.graph.node:
        names = ["time" if name == "request_time_ms" else name for name in node.input]
        node.input[:] = names
    onnx.save_model(model, str(path))


def spoil_golden(folder: Path) -> None:
    """Leave an archive without the expected scores."""
    np.savez(folder / contract.GOLDEN_FILE, items=np.zeros((1, 4), np.int64))


def spoil_popularity(folder: Path) -> None:
    """Leave a table without its columns."""
    pq.write_table(pq.read_table(folder / contract.ITEMS_FILE), folder / contract.POPULARITY_FILE)


def say(folder: Path, name: str, text: str) -> None:
    """Let every item say a text under a column's name."""
    path = folder / contract.ITEMS_FILE
    table = pq.read_table(path)
    column = pa.array([text] * len(table), pa.string())
    pq.write_table(table.drop_columns([name]).append_column(name, column), path)


def number_all_alike(folder: Path, name: str, kind: pa.DataType) -> None:
    """Leave one number for every item."""
    path = folder / contract.ITEMS_FILE
    table = pq.read_table(path)
    column = pa.array([7] * len(table), kind)
    pq.write_table(table.drop_columns([name]).append_column(name, column), path)


def spoil_hashes(folder: Path) -> None:
    """Leave the hash of nobody."""
    number_all_alike(folder, contract.HASH_COLUMN, pa.uint64())


def spoil_crcs(folder: Path) -> None:
    """Leave the checksum of nobody."""
    number_all_alike(folder, contract.CRC_COLUMN, pa.uint32())


def spoil_hours(folder: Path) -> None:
    """Leave opening hours that nobody can read."""
    say(folder, "opening_hours", "sometimes")


def spoil_attributes(folder: Path) -> None:
    """Leave attributes inside attributes."""
    say(folder, "attributes", '{"size": {"cm": 5}}')


def drop_titles(folder: Path) -> None:
    """Leave out a column that every schema has."""
    path = folder / contract.ITEMS_FILE
    pq.write_table(pq.read_table(path).drop_columns(["title"]), path)


def test_a_bundle_of_schema_one_zero_says_less_of_its_items(tmp_path: Path) -> None:
    """Attributes, hours and release came with 1.1; what is not there is unknown."""
    later = ["attributes", "opening_hours", "released_at_ms"]
    later += [contract.HASH_COLUMN, contract.CRC_COLUMN]

    def drop(folder: Path) -> None:
        path = folder / contract.ITEMS_FILE
        pq.write_table(pq.read_table(path).drop_columns(later), path)

    version = {"major": 1, "minor": 0}
    loaded = load_bundle(make_bundle(tmp_path, change_files=drop, schema_version=version))
    assert loaded.columns.hours == ("",)
    assert set(loaded.columns.terms) == {"categories"}
    hashes = np.array([item_hash("drama-1")], np.uint64)
    assert loaded.hash_index.indices(hashes).tolist() == [loaded.vocabulary.index("drama-1")]


@pytest.mark.parametrize(
    ("change_files", "reason"),
    [
        (drop_titles, "title"),
        (spoil_hashes, "item_hash is not that of 'action-1'"),
        (spoil_crcs, "id_crc is not that of 'action-1'"),
        (spoil_hours, "opening_hours: 'sometimes' must be opening hours"),
        (spoil_attributes, r"attributes\.size: .* must be a text, a number"),
        (spoil_matrix, "the manifest says float32"),
        (spoil_numbers, "not finite"),
        (spoil_items, "in order"),
        (spoil_encoder, "ONNX Runtime refuses it"),
        (rename_input, "the manifest says items, request_time_ms"),
        (spoil_golden, "holds no expected_scores"),
        (spoil_popularity, "scope"),
    ],
)
def test_files_that_do_not_fit_the_manifest_are_refused(
    tmp_path: Path, change_files: Callable[[Path], None], reason: str
) -> None:
    """Their hashes are right, as after a faulty export, so only a look inside finds it."""
    folder = make_bundle(tmp_path, change_files=change_files)
    with pytest.raises(BundleRefused, match=reason):
        load_bundle(folder)


def test_event_types_that_the_bundle_lacks_have_index_0(tmp_path: Path) -> None:
    """The tiny bundle knows `view` and `purchase`, the first and the sixth type of the API."""
    loaded = load_bundle(make_bundle(tmp_path))
    assert manifest()["event_types"] == ["view", "purchase"]
    assert loaded.type_indices.tolist() == [0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"something else"])
@pytest.mark.parametrize("name", contract.BUNDLE_FILES)
def test_a_file_of_another_kind_is_refused_although_its_hash_is_right(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """Such a bundle was made wrong, and a service that only tries it must go on."""
    folder = make_bundle(tmp_path, change_files=lambda path: write(path / name, content))
    with pytest.raises(BundleRefused):
        load_bundle(folder)


def write(path: Path, content: bytes) -> None:
    """Put something else in a file's place."""
    path.write_bytes(content)
