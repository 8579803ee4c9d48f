"""The bundle: an immutable directory that training writes and the service serves.

`manifest.json` describes it; every other file is named there with its hash. A bundle that does not
match its manifest, or whose schema this build does not know, is refused and never patched.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contract.errors import BundleMismatch
from service.contract.features import REQUEST_INPUTS, WINDOW_INPUTS

# A reader takes its own major version and no newer minor one: a minor version may add fields,
# a major one may change what is there.
SCHEMA_MAJOR = 1
SCHEMA_MINOR = 5

MANIFEST_FILE = "manifest.json"
ENCODER_FILE = "encoder.onnx"
# Where the graph keeps its large tables, if it has any: since 1.2.
ENCODER_TABLES_FILE = "encoder_tables.bin"
ITEM_MATRIX_FILE = "item_matrix.npy"
ITEMS_FILE = "items.parquet"
POPULARITY_FILE = "popularity.parquet"
GOLDEN_FILE = "golden.npz"
# Of large catalogues only.
ITEM_INDEX_FILE = "item_index.faiss"
# Of bundles whose items have texts, since 1.4: texts in, rows of the item matrix out; what it reads
# them by; and the vectors of TextSpec.golden_texts.
TEXT_ENCODER_FILE = "text_encoder.onnx"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_TEXTS_FILE = "golden_texts.npy"
TEXT_FILES = (TEXT_ENCODER_FILE, TOKENIZER_FILE, GOLDEN_TEXTS_FILE)
# Since 1.5, for explanations: what an item's text and its place are of its row of the item matrix,
# float16 and shaped like it, where rows are sums that have such parts; and the encoder's attention.
TEXT_ROWS_FILE = "text_rows.npy"
PLACE_ROWS_FILE = "place_rows.npy"
ATTENTION_FILE = "attention.onnx"
EXPLAINING_FILES = (TEXT_ROWS_FILE, PLACE_ROWS_FILE, ATTENTION_FILE)
EXPLAINING_MINOR = 5
CURRENT_FILE = "CURRENT"
UNNAMED_VERSION = "0" * 16
BUNDLE_FILES = (ENCODER_FILE, ITEM_MATRIX_FILE, ITEMS_FILE, POPULARITY_FILE, GOLDEN_FILE)
# Those and what a bundle may have besides.
ALL_FILES = (
    *BUNDLE_FILES,
    ENCODER_TABLES_FILE,
    ITEM_INDEX_FILE,
    *TEXT_FILES,
    *EXPLAINING_FILES,
)

# What `items.parquet` says of an item besides its index; `attributes` is a JSON object.
ITEM_COLUMNS_OF_1_0 = ("item_id", "title", "categories", "lat", "lon")
ITEM_COLUMNS = (*ITEM_COLUMNS_OF_1_0, "attributes", "opening_hours", "released_at_ms")
# Since 1.2: the `item_hash` of each id, uint64, which take .7 s to work out for a million.
HASH_COLUMN = "item_hash"
# Since 1.3: the `id_crc` of each id, uint32, which take a fifth of a second for a million.
CRC_COLUMN = "id_crc"

# The encoder's outputs: the query vector (batch, dim), and per history position the bonus that
# the item there gets when it is scored again (batch, window_len), 0 for models without repeats.
QUERY_OUTPUT = "query"
COPY_OUTPUT = "copy_weights"
# Since 1.3, from encoders that can tell: until when, (batch,) int64 ms, the same window asked at a
# later time and the same offset gives the same outputs.
UNTIL_OUTPUT = "same_until_ms"
# The attention graph's output of the encoder's inputs: how much each event, as a query, looks at
# each, (batch, layers, heads, window_len, window_len) float32.
ATTENTION_OUTPUT = "attention"
# Golden inputs carry the encoder's own names; the expected scores stand beside them.
GOLDEN_SCORES = "expected_scores"
GOLDEN_TOLERANCE = 1e-4
# The text encoder's inputs, (texts, tokens) int64, and its output, (texts, dim) float32: what each
# text's item would have as its row of the item matrix, were nothing known of it but the text.
TEXT_INPUTS = ("input_ids", "attention_mask")
TEXT_OUTPUT = "vectors"
# The least cosine of a golden text's vector here and where the bundle was made: of int8 products
# the last bits differ between processors.
GOLDEN_TEXT_COSINE = 0.99


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SchemaVersion(_Strict):
    """The version of the bundle format."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class FeatureSpec(_Strict):
    """What the encoder takes and gives: `encode_window` arrays in, (batch, dim) vectors out.

    `knows_offsets` says whether the training log had local offsets; if not, its hours were UTC and
    requests must be encoded so too.
    """

    window_len: int = Field(ge=1, le=10_000)
    dim: int = Field(ge=1, le=65_536)
    inputs: tuple[str, ...] = Field(min_length=1)
    outputs: tuple[str, ...] = Field(min_length=1)
    uses_request_time: bool
    knows_offsets: bool


class MetricReport(_Strict):
    """Measured quality with the protocol that makes it comparable."""

    protocol: str
    split: str
    split_sha256: str
    request_time: Literal["known", "unknown"]
    seen_items: Literal["removed", "kept"]
    results: dict[str, dict[str, float]]


class ItemIndexSpec(_Strict):
    """The index of nearest items: what it was made of, how it is asked, and how well it finds.

    `num_probes` of `num_cells` cells are read for a list of 10. `recall_at_10` is the share of the
    exact 10 best that were found, over the query vectors of `num_queries` windows of the log.
    """

    matrix_sha256: str
    num_cells: int = Field(ge=1)
    num_probes: int = Field(ge=1)
    recall_at_10: float = Field(ge=0, le=1)
    num_queries: int = Field(ge=1)


class TextSpec(_Strict):
    """The text encoder: what it reads, and how near it is to the one that was trained.

    A text is cut after `max_tokens` tokens, those at its edges included. `min_cosine` is the least
    cosine of a vector that it gives and the trained encoder's, over some of the bundle's items.
    """

    max_tokens: int = Field(ge=3, le=8_192)
    is_quantised: bool
    min_cosine: float = Field(ge=-1, le=1.001)
    golden_texts: tuple[str, ...] = Field(min_length=1)


class Manifest(_Strict):
    """The description of one bundle.

    `num_items` excludes padding; the item matrix is (num_items + 1, dim), row 0 unused.
    `exclude_seen` is what a request gets that does not say: `all` where users do not come back
    to items, `none` where they do. `created_at` is RFC 3339 in UTC. `item_index` describes
    ITEM_INDEX_FILE, if there is one (since 1.2), `text` TEXT_FILES (since 1.4).
    """

    schema_version: SchemaVersion
    bundle_version: str = Field(pattern=r"^[0-9a-f]{16}$")
    name: str
    created_at: str
    model_family: str
    model_config_used: dict[str, Any]
    num_items: int = Field(ge=1)
    event_types: tuple[str, ...] = Field(min_length=1)
    features: FeatureSpec
    exclude_seen: Literal["all", "none"]
    repeat_share: float = Field(ge=0, le=1)
    onnx_opset: int
    parity_max_abs: float
    data_sha256: str
    files: dict[str, str]
    metrics: tuple[MetricReport, ...]
    library_versions: dict[str, str]
    licence_notice: str = ""
    item_index: ItemIndexSpec | None = None
    text: TextSpec | None = None


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_version(manifest: Manifest) -> str:
    """Return the version that a manifest must state, 16 hexadecimal characters.

    It covers every file's hash and every field but the version itself and the time of creation,
    so equal content has an equal version and a changed field is found out.
    """
    document = manifest.model_dump(mode="json", exclude={"bundle_version", "created_at"})
    for name in ("item_index", "text"):
        if document[name] is None:
            # As if the field were not there: the versions of older bundles were made without it.
            del document[name]
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve_bundle(path: Path) -> Path:
    """Return the bundle at a path: the directory itself, or the one its CURRENT file names.

    Raises BundleMismatch when there is neither.
    """
    if (path / MANIFEST_FILE).is_file():
        return path
    pointer = path / CURRENT_FILE
    if not pointer.is_file():
        raise BundleMismatch(
            f"{path}: neither {MANIFEST_FILE} nor {CURRENT_FILE} is there; "
            "make a bundle with `python -m training export --run RUN --out " + str(path) + "`"
        )
    named = pointer.read_text(encoding="utf-8").strip()
    if not named or Path(named).name != named or not (path / named / MANIFEST_FILE).is_file():
        raise BundleMismatch(f"{pointer}: names {named!r}, which is no bundle beside it")
    return path / named


def read_manifest(bundle: Path) -> Manifest:
    """Read and check a manifest; raises BundleMismatch with the reason."""
    path = bundle / MANIFEST_FILE
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise BundleMismatch(f"{path}: cannot be read as JSON: {exc}") from exc
    _check_schema(path, document)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleMismatch(f"{path}: {where}: {first['msg']}") from exc
    _check_features(path, manifest.features)
    return manifest


def verify_files(bundle: Path, manifest: Manifest) -> None:
    """Raise BundleMismatch unless every file is there with the hash that the manifest states."""
    needed = {*BUNDLE_FILES, *([ITEM_INDEX_FILE] if manifest.item_index else ())}
    needed.update(TEXT_FILES if manifest.text else ())
    if (bundle / ENCODER_TABLES_FILE).exists():
        # The graph may read it, so it must not be there unchecked.
        needed.add(ENCODER_TABLES_FILE)
    missing = sorted(needed - set(manifest.files))
    if missing:
        raise BundleMismatch(f"{bundle}: the manifest names no hash of {', '.join(missing)}")
    for name, expected in sorted(manifest.files.items()):
        path = bundle / name
        if not path.is_file():
            raise BundleMismatch(f"{path}: missing")
        found = file_sha256(path)
        if found != expected:
            raise BundleMismatch(
                f"{path}: SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; "
                "the file was changed or damaged after the export"
            )
    if content_version(manifest) != manifest.bundle_version:
        raise BundleMismatch(
            f"{bundle / MANIFEST_FILE}: bundle_version is {manifest.bundle_version}, its content "
            f"says {content_version(manifest)}; the manifest was changed after the export"
        )


def _check_schema(path: Path, document: object) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    try:
        found = SchemaVersion.model_validate(version)
    except ValidationError as exc:
        raise BundleMismatch(f"{path}: schema_version is missing or malformed") from exc
    if found.major != SCHEMA_MAJOR or found.minor > SCHEMA_MINOR:
        raise BundleMismatch(
            f"{path}: schema version {found}, this build reads {SCHEMA_MAJOR}.0 to "
            f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}; upgrade the service or export the bundle again"
        )


def _check_features(path: Path, features: FeatureSpec) -> None:
    unknown = sorted(set(features.inputs) - set(WINDOW_INPUTS) - set(REQUEST_INPUTS))
    if unknown:
        raise BundleMismatch(f"{path}: the encoder wants unknown inputs {', '.join(unknown)}")
    if QUERY_OUTPUT not in features.outputs:
        raise BundleMismatch(f"{path}: the encoder gives no {QUERY_OUTPUT!r}")
