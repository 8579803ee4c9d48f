"""The folder belongs to one collector and one store; old days leave it whole."""

import json
from pathlib import Path

import pytest

from service.collector.folder import CollectorRefused, Folder, Span
from service.collector.parquet import FileDamaged
from service.store.stream import StreamId
from tests.builders import DAY_MS
from tests.fakes import NOON_MS
from tests.service.collector.builders import FakeStreams, Running
from tests.service.collector.conftest import Start


def test_a_name_states_its_span() -> None:
    """And names sort as their entries do, the tenth entry of a millisecond after the second."""
    spans = [Span(3, StreamId(NOON_MS, seq), StreamId(NOON_MS + 5, 0)) for seq in (2, 10)]
    names = [span.file_name for span in spans]
    assert [Span.of(Path(name)) for name in names] == spans
    assert names == sorted(names)
    assert Span.of(Path("events.parquet")) is None


def test_a_second_collector_is_refused(tmp_path: Path) -> None:
    """Two would write everything twice; when the first has ended the folder is free."""
    first = Folder(tmp_path)
    with pytest.raises(CollectorRefused, match="another collector"):
        Folder(tmp_path)
    first.close()
    Folder(tmp_path).close()


def test_a_folder_of_another_store_is_refused(tmp_path: Path) -> None:
    """With other partitions the same entry ids would be other entries."""
    folder = Folder(tmp_path)
    folder.claim(16)
    folder.claim(16)
    with pytest.raises(CollectorRefused, match="16 partitions, this one has 8"):
        folder.claim(8)
    folder.close()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version": 2}', '{"version": 1, "partitions": {"0": {}}}', '{"partitions": 3}'],
)
def test_a_state_that_cannot_be_read_is_refused_in_words(tmp_path: Path, text: str) -> None:
    """Starting from nothing instead would write what retention removed."""
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CollectorRefused, match=r"state\.json"):
        Folder(tmp_path)
    (tmp_path / "state.json").unlink()
    Folder(tmp_path).close()  # the refusal has freed the folder


@pytest.mark.parametrize("left", [0, 8, 0.5, 0.99])
async def test_a_damaged_file_is_named_with_the_way_out(start: Start, left: float) -> None:
    """Moved away, it is collected again: its span is no longer in a name."""
    streams = FakeStreams()
    for _ in range(3):
        streams.add_event()
    running = start(streams)
    await running.drain()
    (path,) = running.paths()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if left < 1 else int(left)])
    with pytest.raises(FileDamaged, match=path.name):
        await drained_again(running)
    path.unlink()
    await drained_again(running)
    assert running.event_ids() == ["n0", "n1", "n2"]


async def test_old_days_are_removed_and_not_collected_again(start: Start, tmp_path: Path) -> None:
    """Kept are today and so many days before it; a stranger's file stays where it is."""
    streams = FakeStreams()
    for day in range(4):
        streams.add_event(event_id=f"day-{day}", at_ms=NOON_MS + day * DAY_MS)
    running = start(streams, retention_days=2)
    running.now_s += 3 * DAY_MS / 1000
    stranger = tmp_path / "events" / "day=2026-01-01" / "notes.txt"
    stranger.parent.mkdir(parents=True)
    stranger.touch()
    await running.drain()
    for _ in range(2):
        await drained_again(running)
        assert running.event_ids() == ["day-1", "day-2", "day-3"]
    assert stranger.exists()


async def test_a_removed_newest_file_leaves_its_cursor(start: Start) -> None:
    """A quiet partition's last file may be the old one; its entries still are in the stream."""
    streams = FakeStreams()
    streams.add_event()
    running = start(streams, retention_days=1)
    await running.drain()
    running.now_s += 3 * DAY_MS / 1000
    await drained_again(running)
    assert running.files() == []
    state = json.loads(running.out.joinpath("state.json").read_text())
    assert state["partitions"]["0"] == {"cursor": f"{NOON_MS}-0", "position": 1}
    await drained_again(running)
    assert running.files() == []
    streams.add_event(at_ms=NOON_MS + 3 * DAY_MS)
    streams.trim(1)
    await running.drain()
    assert running.count("gaps_total") == 0


async def drained_again(running: Running) -> None:
    """Restart and collect."""
    running.restart()
    await running.drain()
