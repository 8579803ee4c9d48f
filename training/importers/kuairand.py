"""KuaiRand: every row is a video that was shown; a click is an outcome, a skip is a negative."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from training.config import TrainingError
from training.data import EVENTS_FILE, ITEMS_FILE
from training.importers.files import read_delimited, read_parquet
from training.importers.raw_log import RawLog, item_table, raw_frame

KUAIRAND_NOTICE = (
    "KuaiRand: CC BY-SA 4.0. Acknowledge C. Gao et al., KuaiRand: An Unbiased Sequential "
    "Recommendation Dataset with Randomly Exposed Videos, CIKM 2022."
)
LOG_PATTERNS = ("log_standard_*.csv*", "log_random_*.csv*")
FEATURES_PATTERN = "video_features_basic_*.csv*"
# The log's `hourmin` is China's local time, which has no daylight saving.
CHINA_OFFSET_MIN = 480
_NUMBERS = ("time_ms", "is_click", "play_time_ms", "duration_ms")


def import_kuairand(path: Path) -> RawLog:
    """Read the public csv files (a log, or their folder, or the one above) or a parquet copy.

    Raises TrainingError when none is there. All logs of a folder are parts of one.
    """
    folder = path / "data" if (path / "data").is_dir() else path
    files = sorted(folder.iterdir()) if folder.is_dir() else [path]
    named = {file.name: file for file in files if file.is_file()}
    if EVENTS_FILE in named:
        return _parquet_copy(named[EVENTS_FILE])
    logs = [named[name] for pattern in LOG_PATTERNS for name in fnmatch.filter(named, pattern)]
    if not logs:
        wanted = ", ".join((EVENTS_FILE, *LOG_PATTERNS))
        raise TrainingError(f"{path}: no KuaiRand log; give the folder that holds {wanted}")
    return _public(logs)


def _parquet_copy(path: Path) -> RawLog:
    log = read_parquet(path, ("user_id", "item_id", *_NUMBERS), _NUMBERS)
    items = read_parquet(path.with_name(ITEMS_FILE), ("item_id", "tag"))
    return _kuairand(log, _videos(items["item_id"], items["tag"]))


def _public(logs: list[Path]) -> RawLog:
    types = dict.fromkeys(("user_id", "video_id"), pa.string())
    types |= dict.fromkeys(_NUMBERS, pa.float64())
    parts = [read_delimited(path, types) for path in logs]
    log = pa.concat_tables([table for table, _ in parts]).rename_columns({"video_id": "item_id"})
    features = sorted(logs[0].parent.glob(FEATURES_PATTERN))
    described = item_table([])
    if features:
        table, _ = read_delimited(features[0], dict.fromkeys(("video_id", "tag"), pa.string()))
        # The largest edition describes 32 million videos, most of which its log never shows.
        shown = table.filter(pc.is_in(table["video_id"], value_set=pc.unique(log["item_id"])))
        described = _videos(shown["video_id"], shown["tag"])
    return _kuairand(log, described, sum(num_bad for _, num_bad in parts))


def _kuairand(log: pa.Table, items: pa.Table, num_bad: int = 0) -> RawLog:
    dropped = {"bad_row": num_bad} if num_bad else {}
    events = raw_frame(_impressions(log))
    return RawLog("kuairand", events, items, licence_notice=KUAIRAND_NOTICE, dropped=dropped)


def _impressions(log: pa.Table) -> Mapping[str, pa.ChunkedArray]:
    """Return the log's columns as an event's: `value` is the watched share, 2 when seen twice."""
    played, length = log["play_time_ms"], log["duration_ms"]
    known_length = pc.if_else(pc.greater(length, 0), length, None)
    clicked = pc.fill_null(pc.equal(log["is_click"], 1), False)
    return {
        "user_id": log["user_id"],
        "item_id": log["item_id"],
        "time": log["time_ms"],
        "event_type": pc.if_else(clicked, "click", "view"),
        "tz_offset_min": pa.chunked_array([pa.repeat(CHINA_OFFSET_MIN, log.num_rows)]),
        "value": pc.divide(played, known_length),
        "duration_s": pc.divide(played, 1000.0),
    }


def _videos(item_ids: pa.ChunkedArray, tags: pa.ChunkedArray) -> pa.Table:
    pairs = zip(item_ids.to_pylist(), tags.to_pylist(), strict=True)
    return item_table(
        {"item_id": str(item_id), "categories": [t.strip() for t in (tag or "").split(",") if t]}
        for item_id, tag in pairs
    )
