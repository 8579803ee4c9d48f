"""Check-ins: a normalised copy, Foursquare TSMC2014, and SNAP's Gowalla and Brightkite."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from training.data import EVENTS_FILE, ITEMS_FILE
from training.importers.files import find_log, read_delimited, read_parquet
from training.importers.raw_log import RawLog, item_table, place, raw_frame

FOURSQUARE_NOTICE = (
    "Foursquare check-ins: for research use. Acknowledge D. Yang, D. Zhang, V. W. Zheng and Z. Yu, "
    "Modeling User Activity Preference by Leveraging User Spatial Temporal Characteristics in "
    "LBSNs, IEEE Trans. SMC: Systems 45(1), 2015."
)
SNAP_NOTICE = (
    "Gowalla and Brightkite check-ins: SNAP, Stanford University. Acknowledge E. Cho, S. A. Myers "
    "and J. Leskovec, Friendship and Mobility, KDD 2011."
)
_TSMC_COLUMNS = (
    "user_id", "item_id", "category_id", "category", "lat", "lon", "tz_offset_min", "time",
)  # fmt: skip
_SNAP_COLUMNS = ("user_id", "time", "lat", "lon", "item_id")
# SNAP writes these where the check-in had no coordinates, and no place.
_ZERO = r"^-?0+(\.0*)?$"
_NO_PLACE = "0" * 32


def import_checkins(path: Path) -> RawLog:
    """Read check-ins in any layout of _LAYOUTS, a file or the folder that holds it.

    Each row is one event at the place's coordinates; raises TrainingError when there is none.
    """
    pattern, log = find_log(path, list(_LAYOUTS), "check-ins")
    return _LAYOUTS[pattern](log)


def _parquet_copy(path: Path) -> RawLog:
    events = read_parquet(path, ("user_id", "item_id", "timestamp"), ("lat", "lon"))
    described = read_parquet(path.with_name(ITEMS_FILE), ("item_id", "lat", "lon"))
    places = item_table(
        _place_row(row["item_id"], row["lat"], row["lon"], row.get("category"))
        for row in described.to_pylist()
    )
    columns = {"time": events["timestamp"]}
    for name in ("user_id", "item_id", "tz_offset_min", "lat", "lon"):
        if name in events.column_names:
            columns[name] = events[name]
    return _checkins(_at_places(columns, places), places, FOURSQUARE_NOTICE)


def _tsmc2014(path: Path) -> RawLog:
    table, num_bad = _read_tsv(path, _TSMC_COLUMNS, "latin-1")
    # `Tue Apr 03 18:00:09 +0000 2012`: the offset is always that of UTC.
    text = pc.replace_substring(table["time"], "+0000 ", "")
    moment = pc.strptime(text, format="%a %b %d %H:%M:%S %Y", unit="s", error_is_null=True)
    columns = {name: table[name] for name in ("user_id", "item_id", "tz_offset_min", "lat", "lon")}
    return _checkins(columns | {"time": moment}, _places(table), FOURSQUARE_NOTICE, num_bad)


def _snap(path: Path) -> RawLog:
    table, num_bad = _read_tsv(path, _SNAP_COLUMNS, "utf-8")
    at_zero = [pc.match_substring_regex(table[name], _ZERO) for name in ("lat", "lon")]
    unknown = pc.fill_null(pc.and_(*at_zero), False)
    columns = {name: table[name] for name in ("user_id", "time")}
    for name in ("lat", "lon"):
        columns[name] = pc.if_else(unknown, None, table[name])
    columns["item_id"] = pc.if_else(pc.equal(table["item_id"], _NO_PLACE), None, table["item_id"])
    return _checkins(columns, _places(pa.table(columns)), SNAP_NOTICE, num_bad)


_LAYOUTS: Mapping[str, Callable[[Path], RawLog]] = {
    EVENTS_FILE: _parquet_copy,
    "dataset_TSMC2014_*.txt*": _tsmc2014,
    "*_totalCheckins.txt*": _snap,
}


def _checkins(
    columns: Mapping[str, pa.ChunkedArray], places: pa.Table, notice: str, num_bad: int = 0
) -> RawLog:
    types = pa.chunked_array([pa.repeat("check-in", len(columns["user_id"]))])
    events = raw_frame({**columns, "event_type": types})
    dropped = {"bad_row": num_bad} if num_bad else {}
    return RawLog("checkins", events, places, licence_notice=notice, dropped=dropped)


def _read_tsv(path: Path, names: tuple[str, ...], encoding: str) -> tuple[pa.Table, int]:
    # As text: the cleaner types every column, and counts what it cannot read.
    types = dict.fromkeys(names, pa.string())
    return read_delimited(path, types, delimiter="\t", names=names, encoding=encoding)


def _at_places(
    columns: Mapping[str, pa.ChunkedArray], places: pa.Table
) -> dict[str, pa.ChunkedArray]:
    """Return the events' columns with the place's coordinates where an event has none."""
    item_ids = columns["item_id"].cast(pa.string())
    row = pc.index_in(item_ids, value_set=places["item_id"].combine_chunks())
    found = {name: places[name].take(row) for name in ("lat", "lon")}
    if not {"lat", "lon"} <= columns.keys():
        return {**columns, **found}
    absent = pc.and_(pc.is_null(columns["lat"]), pc.is_null(columns["lon"]))
    filled = {name: pc.if_else(absent, found[name], columns[name]) for name in found}
    return {**columns, **filled}


def _places(events: pa.Table) -> pa.Table:
    """Return each place as its first check-in describes it."""
    names = [name for name in ("lat", "lon", "category") if name in events.column_names]
    grouped = events.group_by("item_id", use_threads=False)
    rows = grouped.aggregate([(name, "first") for name in names]).to_pylist()
    return item_table(
        _place_row(row["item_id"], row["lat_first"], row["lon_first"], row.get("category_first"))
        for row in rows
        if row["item_id"] is not None
    )


def _place_row(
    item_id: object, lat: object, lon: object, category: str | None
) -> dict[str, object]:
    categories = [category] if category else []
    return {"item_id": str(item_id), "categories": categories, **place(lat, lon)}
