"""`service run --history`: a log's events in a real Valkey, stored once however often it starts."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from service.config import Settings
from service.past_events import COLUMNS, store_past_events
from tests.integration.processes import ROOT, log_lines, serving

pytestmark = pytest.mark.integration

BUNDLE = ROOT / "tests" / "golden" / "bundle"
DAY_MS = 86_400_000


def write_log(folder: Path, ages_days: list[int]) -> Path:
    """Write one event of anna for each age."""
    now = time.time_ns() // 1_000_000
    blank = dict.fromkeys(COLUMNS) | {"user_id": "anna", "item_id": "a", "event_type": "view"}
    rows = [blank | {"timestamp_ms": now - days * DAY_MS} for days in ages_days]
    schema = pa.schema(
        [(name, pa.int64() if name == "timestamp_ms" else pa.string()) for name in COLUMNS[:5]]
        + [("tz_offset_min", pa.int32())]
        + [(name, pa.float64()) for name in COLUMNS[6:]]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "events.parquet")
    return folder


@pytest.mark.usefixtures("store_client")
async def test_events_that_are_too_old_are_counted_and_the_setting_named(
    tmp_path: Path, store_settings: Settings
) -> None:
    """A log of years ago would else leave the page empty without a word."""
    log = write_log(tmp_path, [1, 400, 500])
    with structlog.testing.capture_logs() as lines:
        await store_past_events(log, store_settings)
    stored, warning = lines
    assert (stored["accepted"], stored["expired"]) == (1, 2)
    assert warning["log_level"] == "warning"
    assert "SOJOURN_RETENTION_DAYS" in warning["event"]
    assert (warning["expired"], warning["retention_days"]) == (2, 365)


@pytest.mark.usefixtures("store_client")
def test_two_workers_at_a_server_of_your_own_store_a_log_once(
    tmp_path: Path, store_url: str
) -> None:
    """The parent stores before its workers start; a second start finds all of it there."""
    log = write_log(tmp_path, [1, 2, 3])
    options = ("--redis", store_url, "--history", str(log))
    for accepted, duplicates in ((3, None), (None, 3)):
        with serving(BUNDLE, *options, workers=2) as (process, client):
            held = client.get("/v1/users/anna").raise_for_status().json()
        (line,) = [row for row in log_lines(process) if row["event"] == "past events stored"]
        assert (line.get("accepted"), line.get("duplicate")) == (accepted, duplicates)
        assert held["num_events"] == 3
