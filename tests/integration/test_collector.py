"""The collector as an operator runs it: real processes, a real Valkey, real signals."""

import asyncio
import contextlib
import json
import random
import re
import signal
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from service.contract.events import Event, parse_timestamp, user_hash
from service.store import keys
from service.store.embedded import EmbeddedValkey
from service.store.history import HistoryStore
from service.store.servers import ServerClient
from tests.builders import event_json
from tests.fakes import NOON_MS
from tests.integration.collectors import (
    HASTY,
    asides,
    collect_once,
    collecting,
    everything_in,
    small_disk,
    start_collector,
)
from tests.integration.processes import log_lines, serving
from tests.integration.store.builders import event
from tests.service.collector.builders import rows_of
from training.data import EVENTS_FILE
from training.import_commands import importers

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("redis_client")]

NUM_KILLS = 20
WEST = timezone(timedelta(hours=-5, minutes=-30))
SEED = 5


def posted_events(number: int) -> list[dict[str, Any]]:
    """Return events of several users, of which some say where, how long and how much."""
    choose = random.Random(SEED)
    events = []
    for at in range(number):
        moment = datetime.fromtimestamp(NOON_MS / 1000 - 61 * at, choose.choice([UTC, WEST]))
        known: dict[str, Any] = {"event_id": f"event-{at}", "timestamp": moment.isoformat()}
        if choose.random() < 0.5:
            known |= {"lat": 48.5, "lon": -2.25, "value": 4.5, "duration_s": 12.25}
        kind = choose.choice(["view", "purchase", "dislike"])
        events.append(event_json(user_id=f"user-{at % 37}", event_type=kind, **known))
    return events


def test_what_the_service_acknowledged_is_what_training_imports(
    bundle_path: Path, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """From POST to dataset, event by event and field by field, without an option."""
    posted = posted_events(300)
    with serving(bundle_path, "--redis", valkey.url) as (_, client):
        for at in range(0, len(posted), 50):
            answer = client.post("/v1/events", json={"events": posted[at : at + 50]})
            assert answer.json()["accepted"] == 50, answer.text
        again = client.post("/v1/events", json={"events": posted[:50]})
        assert again.json()["duplicates"] == 50
    collect_once(valkey.url, tmp_path / "out", "--max-rows", "7")
    collect_once(valkey.url, tmp_path / "out")
    # What is being written aside while somebody imports is not of their concern.
    (tmp_path / "out" / "events" / "day=2026-01-14").mkdir(exist_ok=True)
    (tmp_path / "out" / "events" / "day=2026-01-14" / ".p0.parquet.writing").write_bytes(b"half")
    folder, dataset = str(tmp_path / "out" / "events"), tmp_path / "dataset"
    done = CliRunner().invoke(importers, ["events", folder, "--out", str(dataset)])
    assert done.exit_code == 0, done.output
    assert "300 rows read\n  dropped: none" in done.output
    rows = pq.read_table(dataset / EVENTS_FILE).to_pylist()
    expected = [as_imported(one) for one in posted]
    assert sorted(rows, key=lambda row: row["event_id"]) == sorted(
        expected, key=lambda row: row["event_id"]
    )


def as_imported(posted: dict[str, Any]) -> dict[str, Any]:
    """Return a posted event as a row of a dataset."""
    blank: dict[str, Any] = dict.fromkeys(("value", "duration_s", "lat", "lon"))
    row = blank | posted
    row["timestamp_ms"], row["tz_offset_min"] = parse_timestamp(row.pop("timestamp"))
    return row


async def test_killed_at_random_points_it_writes_every_acknowledged_event_once(
    valkey: EmbeddedValkey, history_store: HistoryStore, tmp_path: Path
) -> None:
    """SIGKILL between any two instructions, twenty times, while events keep coming."""
    acknowledged: list[Event] = []
    stop = asyncio.Event()
    posting = asyncio.create_task(post_until(stop, history_store, acknowledged))
    try:
        await asyncio.to_thread(kill_collectors, valkey.url, tmp_path, random.Random(SEED))
    finally:
        stop.set()
        await posting
    await asyncio.to_thread(collect_once, valkey.url, tmp_path)
    found = Counter((row["user_id"], row["event_id"]) for row in rows_of(tmp_path))
    assert found == Counter((one.user_id, one.event_id) for one in acknowledged)
    assert len(acknowledged) > 50 * NUM_KILLS
    assert asides(tmp_path) == []


async def post_until(stop: asyncio.Event, store: HistoryStore, acknowledged: list[Event]) -> None:
    """Append events, and note those that were acknowledged, until told to stop."""
    number = 0
    while not stop.is_set():
        batch = [event(at, user_id=f"user-{at % 40}") for at in range(number, number + 10)]
        number += 10
        accepted = await store.append(batch)
        acknowledged += [one for one, new in zip(batch, accepted, strict=True) if new]
        # A pace, so that the folder stays of a size that can be compared.
        await asyncio.sleep(0.01)


def kill_collectors(url: str, out: Path, choose: random.Random) -> None:
    """Start collectors one after another and kill each after some files and some milliseconds."""
    for _ in range(NUM_KILLS):
        process = start_collector(url, out, *HASTY)
        process.wait_for("collector_wrote", times=choose.randint(1, 20))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(choose.uniform(0, 0.05))
        assert process.end(signal.SIGKILL) == -signal.SIGKILL


async def test_a_full_disk_is_waited_out(
    valkey: EmbeddedValkey, history_store: HistoryStore, tmp_path: Path
) -> None:
    """Nothing is acknowledged, half written or lost; with room again it goes on by itself."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        out, filler = disk / "out", disk / "filler"
        with collecting(valkey.url, out, "--max-rows", "5", "--max-age-s", "0.1") as process:
            await history_store.append([event(at, user_id=f"user-{at}") for at in range(40)])
            await asyncio.to_thread(process.wait_for, "collector_wrote")
            fill(filler)
            await history_store.append([event(at, user_id=f"user-{at}") for at in range(40, 400)])
            await asyncio.to_thread(process.wait_for, '"kind": "disk".*No space left', 3)
            before = len(rows_of(out))
            filler.unlink()
            await asyncio.to_thread(process.wait_for, "collector_wrote")
            assert process.end() == 0
        collect_once(valkey.url, out)
        assert before < 400
        assert Counter(row["event_id"] for row in rows_of(out)) == Counter(
            f"e{at}" for at in range(400)
        )
        assert asides(out) == []


def fill(path: Path) -> None:
    """Write a file until there is no room."""
    with path.open("wb", buffering=0) as stream:
        while True:
            try:
                stream.write(b"x" * 1_024)
            except OSError:
                return


async def test_once_ends_with_an_error_when_the_disk_is_full(
    valkey: EmbeddedValkey, history_store: HistoryStore, tmp_path: Path
) -> None:
    """A timer that starts it sees the exit code, and starts it again."""
    await history_store.append([event(at, user_id=f"user-{at}") for at in range(200)])
    with small_disk(tmp_path / "disk", "64k") as disk:
        process = start_collector(valkey.url, disk / "out", "--once", "--max-rows", "1")
        assert process.wait() == 1
        assert "No space left" in process.output.splitlines()[-1]
        assert "Traceback" not in process.output
        ids = [row["event_id"] for row in rows_of(disk / "out")]
        assert 0 < len(ids) == len(set(ids)) < 200


async def test_sigterm_writes_what_was_read_and_ends_well(
    valkey: EmbeddedValkey, history_store: HistoryStore, tmp_path: Path
) -> None:
    """With every rollout; the metrics say when it has read them."""
    await history_store.append([event(at) for at in range(30)])
    with collecting(valkey.url, tmp_path, "--metrics-port", "0") as process:
        (line,) = [one for one in log_lines(process) if one["event"] == "collector_metrics"]
        address = f"http://127.0.0.1:{line['port']}/metrics"
        text = await asyncio.to_thread(scrape_until, address, "sojourn_collector_lag_entries 30.0")
        assert 'sojourn_collector_rows_total{tree="events"} 0.0' in text
        assert rows_of(tmp_path) == []
        assert await asyncio.to_thread(process.end) == 0
    assert len(rows_of(tmp_path)) == 30


def scrape_until(address: str, wanted: str) -> str:
    """Return the first scrape that has a line."""
    with httpx.Client() as client:
        for _ in range(10_000):
            text = client.get(address).text
            if wanted in text:
                return text
    raise AssertionError(f"no {wanted} in {text}")


async def test_an_erasure_leaves_nothing_of_the_user_in_the_folder_or_the_log(
    valkey: EmbeddedValkey,
    history_store: HistoryStore,
    redis_client: ServerClient,
    tmp_path: Path,
) -> None:
    """Every byte is looked at; the marks are as the store writes them."""
    await history_store.append([event(at, user_id="anna-the-user") for at in range(20)])
    await history_store.append([event(at, user_id="bert") for at in range(20)])
    first = collect_once(valkey.url, tmp_path, "--max-rows", "3")
    mark = {"user": user_hash("anna-the-user"), "before_ms": NOON_MS + 3_600_000}
    stream = keys.stream_key(keys.partition_of("anna-the-user", 16))
    await redis_client.delete(stream)
    await redis_client.xadd(stream, {"erase": json.dumps(mark)})
    second = collect_once(valkey.url, tmp_path)
    assert [row["user_id"] for row in rows_of(tmp_path)] == ["bert"] * 20
    assert b"anna-the-user" not in everything_in(tmp_path)
    assert "anna-the-user" not in first.output + second.output


def test_a_second_collector_of_a_folder_is_refused(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    """Both would write every event; the line says what to do."""
    with collecting(valkey.url, tmp_path):
        second = start_collector(valkey.url, tmp_path, "--once")
        assert second.wait() == 1
    assert re.fullmatch(r"error: .*another collector is writing here.*\n", second.output)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--redis", "http://user:hunter2@x"), "redis_url"),
        (("--redis", "redis://127.0.0.1:1", "--once"), "Redis did not do 'collect'"),
        (("--max-rows", "0"), "max_rows"),
        (("--max-age-s", "nan"), "max_age_s"),
        (("--retention-days", "-1"), "retention_days"),
        (("--dedup-events", "-1"), "dedup_events"),
        (("--metrics-port", "70000"), "metrics_port"),
        (("--out", "/dev/null/x"), "/dev/null/x"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    valkey: EmbeddedValkey, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    """Which option, and what is wrong with it."""
    process = start_collector(valkey.url, tmp_path, *options)
    assert process.wait() == 1
    assert process.output.startswith("error: ")
    assert reason in process.output
    assert "hunter2" not in process.output
    assert len(process.output.splitlines()) == 1
