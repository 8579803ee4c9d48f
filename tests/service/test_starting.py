"""Which model wins: the latest change, seen by processes that run and by those that start."""

from pathlib import Path

import pytest

from service.bundle_folder import BundleFolder, Pointer
from service.bundle_loader import load_bundle
from service.contract import bundle as contract
from service.errors import BundleRefused
from service.starting import first_bundle, versions_to_start_with
from service.store.announcements import Announced
from tests.fakes import NOON_MS, FakeAnnouncements
from tests.folders import add_bundle, flip_a_byte, point_at
from tests.model_processes import process

NOON_S = NOON_MS // 1000
AT_NOON = Announced(active="new", previous="old", pointer="old", changed_at_ms=NOON_MS)


@pytest.mark.parametrize(
    ("pointer", "announced", "expected"),
    [
        (Pointer("old", NOON_MS - 1), None, ["old"]),
        (Pointer("old", NOON_MS + 1), AT_NOON, ["new", "old"]),
        (Pointer("third", NOON_MS - 1), AT_NOON, ["new", "third"]),
        (Pointer("third", NOON_MS + 1), AT_NOON, ["third", "new"]),
        (None, AT_NOON, ["new"]),
        (None, None, []),
    ],
    ids=[
        "nothing announced",
        "a pointer that was taken up, copied again",
        "another pointer, older than the announcement",
        "a pointer moved after the announcement",
        "no pointer",
        "nothing at all",
    ],
)
def test_a_start_serves_the_latest_change(
    pointer: Pointer | None, announced: Announced | None, expected: list[str]
) -> None:
    """A fresh copy of an old folder must not undo what was activated since."""
    assert versions_to_start_with(pointer, announced) == expected


async def test_a_restart_serves_what_was_activated_and_not_what_current_names(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """Otherwise a crash would undo an activation on one process of many."""
    async with process(folder, announcements) as one:
        await one.activate(new)
    async with process(folder, announcements) as again:
        assert await again.version() == new


async def test_an_announced_model_that_is_gone_leaves_what_current_names(
    folder: Path, old: str, announcements: FakeAnnouncements
) -> None:
    """A start that fails for it would be an outage; health says that it is behind."""
    announcements.announced = Announced("f" * 16, "", old, NOON_MS)
    async with process(folder, announcements) as one:
        health = (await one.client.get("/healthz")).json()
    assert (health["status"], health["model_version"]) == ("ready", old)
    assert f"{'f' * 16} is announced" in health["model_problems"][0]


async def test_a_start_without_redis_serves_what_current_names_and_follows_later(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """Redis may come minutes after the service."""
    await announcements.announce_first(new, old, NOON_MS)
    announcements.down = True
    async with process(folder, announcements, settle=False) as one:
        before = await one.version()
        announcements.down = False
        await one.models.follow()
        await one.models.watch()
        after = await one.version()
    assert (before, after) == (old, new)


def test_a_damaged_bundle_that_current_names_leaves_the_announced_one(
    folder: Path, old: str, new: str
) -> None:
    """The export was bad, the restart came by chance: the old model goes on."""
    point_at(folder, new, at_s=NOON_S + 1)
    flip_a_byte(folder / new / contract.ITEM_MATRIX_FILE)
    announced = Announced(old, "", old, NOON_MS)
    assert first_bundle(BundleFolder(folder), announced, load_bundle).manifest.bundle_version == old


def test_nothing_to_serve_fails_with_the_reason(folder: Path) -> None:
    """A process that cannot serve must not look like one that can."""
    with pytest.raises(BundleRefused, match="training export"):
        first_bundle(BundleFolder(folder), None, load_bundle)


async def test_a_moved_pointer_is_activated_for_all(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """As an export does it. Whoever looks first announces it, and the others follow."""
    async with process(folder, announcements) as one, process(folder, announcements) as other:
        point_at(folder, new)
        await one.models.watch()
        await other.models.follow()
        versions = [await one.version(), await other.version()]
    assert versions == [new, new]
    assert announcements.announced == Announced(new, old, new, NOON_MS)


async def test_a_pointer_that_another_process_took_up_undoes_no_activation(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """This process looks late: CURRENT moved, was taken up, and then the old one was activated."""
    async with process(folder, announcements) as one, process(folder, announcements) as late:
        point_at(folder, new)
        await one.models.watch()
        await one.activate(old)
        await late.models.watch()
        await late.models.follow()
        versions = [await one.version(), await late.version()]
    assert versions == [old, old]


async def test_a_pointer_to_a_damaged_bundle_is_a_problem_until_it_is_repaired(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """The old model serves, nothing is announced, and the folder is looked at again."""
    matrix = folder / new / contract.ITEM_MATRIX_FILE
    async with process(folder, announcements) as one:
        flip_a_byte(matrix)
        point_at(folder, new)
        await one.models.watch()
        await one.models.watch()
        damaged = await one.version(), one.models.problems
        announced = announcements.announced
        flip_a_byte(matrix)
        await one.models.watch()
        repaired = await one.version(), one.models.problems
    assert damaged[0] == old
    assert "item_matrix.npy: SHA-256" in damaged[1][0]
    assert announced == Announced(old, "", old, NOON_MS)
    assert repaired == (new, ())


@pytest.mark.parametrize("named", ["nowhere", "", "../elsewhere", "\udcff"])
async def test_a_pointer_to_nothing_changes_nothing(
    folder: Path, old: str, announcements: FakeAnnouncements, named: str
) -> None:
    """A slip of the hand in a text file."""
    async with process(folder, announcements) as one:
        (folder / contract.CURRENT_FILE).write_text(named, "utf-8", "surrogateescape")
        await one.models.watch()
        assert await one.version() == old
        assert (await one.client.get("/healthz")).status_code == 200
    assert announcements.announced == Announced(old, "", old, NOON_MS)


async def test_an_export_beside_a_running_service_is_listed(
    folder: Path, old: str, announcements: FakeAnnouncements
) -> None:
    """The folder is read at every call; a bundle without a readable manifest is named as such."""
    async with process(folder, announcements) as one:
        third = add_bundle(folder, "third")
        (folder / "broken").mkdir()
        (folder / "broken" / contract.MANIFEST_FILE).write_text("{", "utf-8")
        states = await one.states()
    assert states == {old: "active", third: "available", "broken": "refused"}
