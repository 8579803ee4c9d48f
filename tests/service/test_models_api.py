"""Models over HTTP: two applications on one announcement stand for two processes.

Nothing is waited for: the work that is repeated beside the requests is given so long a time to
wait that a test does it itself, by `follow` and `watch`.
"""

import asyncio
import shutil
from pathlib import Path

import httpx
import pytest

from service.contract import bundle as contract
from service.store.announcements import MAX_PREPARING_MS, Announced
from tests.builders import event_json
from tests.clients import metric, recommended
from tests.fakes import NOON_MS, FakeAnnouncements, FakeCounters, FakeHistory
from tests.folders import add_bundle, flip_a_byte
from tests.model_processes import process


@pytest.fixture
def counters() -> FakeCounters:
    """Return live counts that go before what the bundles say."""
    return FakeCounters([("night-1", 300.0)])


async def test_the_list_says_what_each_manifest_says(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """An operator chooses by it."""
    async with process(folder, announcements) as one:
        body = (await one.client.get("/v1/models")).json()
    assert (body["serving"], body["active"], body["previous"]) == (old, old, None)
    assert body["problems"] == []
    assert [process["version"] for process in body["processes"]] == [old]
    by_version = {model["version"]: model for model in body["models"]}
    assert by_version[new] == {
        "version": new,
        "state": "available",
        "reason": None,
        "name": "new",
        "created_at": "2026-01-14T12:00:00+00:00",
        "schema_version": "1.5",
        "num_items": 6,
        "metrics": [],
    }
    assert by_version[old]["state"] == "active"


async def test_an_activated_model_answers_the_next_request_of_every_process(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """The other process sees the announcement the next time it looks."""
    async with process(folder, announcements) as one, process(folder, announcements) as other:
        before = await other.version()
        answer = await one.activate(new)
        versions = [await one.version(), await other.version()]
        await other.models.follow()
        versions.append(await other.version())
        states = await other.states()
    assert (answer.status_code, answer.json()) == (
        200,
        {"active": new, "previous": old, "changed_at": "2026-01-14T12:00:00.000Z"},
    )
    assert (before, versions) == (old, [new, old, new])
    assert states == {old: "previous", new: "active"}


async def test_a_rollback_goes_back_and_a_second_one_forth(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """What was active becomes the previous one."""
    async with process(folder, announcements) as one:
        await one.activate(new)
        first, version = await one.roll_back(), await one.version()
        second = await one.roll_back()
    assert (first.json()["active"], first.json()["previous"], version) == (old, new, old)
    assert second.json()["active"] == new


async def test_the_first_model_has_none_before_it(
    folder: Path, old: str, announcements: FakeAnnouncements
) -> None:
    """409: nothing is wrong with the call, there is only nowhere to go."""
    async with process(folder, announcements) as one:
        answer = await one.roll_back()
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        "urn:sojourn:problem:no-previous-model",
    )
    assert old in answer.json()["detail"]


@pytest.mark.parametrize("version", ["0" * 16, "..", "%2e%2e%2fsecret", "%00", "%ff", "a" * 5_000])
async def test_an_unknown_version_is_answered_with_those_that_there_are(
    folder: Path, old: str, announcements: FakeAnnouncements, version: str
) -> None:
    """A version is looked up in a list, so it is never a path; `..` alone never arrives."""
    async with process(folder, announcements) as one:
        answer = await one.activate(version)
        assert await one.version() == old
    assert answer.status_code == 404
    if version != "..":
        assert answer.json()["type"] in (
            "urn:sojourn:problem:unknown-model",
            "urn:sojourn:problem:not-found",
        )
    if version == "0" * 16:
        assert f"'{version}'" in answer.json()["detail"]
        assert old in answer.json()["detail"]


async def test_a_damaged_bundle_leaves_the_old_one_and_is_not_announced(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """The answer says which file; a repaired one can be activated at once."""
    matrix = folder / new / contract.ITEM_MATRIX_FILE
    flip_a_byte(matrix)
    async with process(folder, announcements) as one:
        refused = await one.activate(new)
        version, states = await one.version(), await one.states()
        announced = announcements.announced
        refusals = await metric(one.client, 'sojourn_model_loads_total{result="refused"}')
        flip_a_byte(matrix)
        repaired = await one.activate(new)
    assert (refused.status_code, refused.json()["type"]) == (
        409,
        "urn:sojourn:problem:model-refused",
    )
    assert "item_matrix.npy: SHA-256" in refused.json()["detail"]
    assert (version, states[new], refusals) == (old, "refused", 1)
    assert announced == Announced(old, "", old, NOON_MS)
    assert repaired.status_code == 200


async def test_a_process_that_cannot_follow_says_so_and_goes_on(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements, tmp_path: Path
) -> None:
    """Its copy of the folder lacks the bundle; it stays ready, and follows when it is there."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(new))
    async with process(folder, announcements) as one, process(copy, announcements) as other:
        await one.activate(new)
        await other.models.follow()
        health = (await other.client.get("/healthz")).json()
        behind = await metric(other.client, "sojourn_model_behind")
        version = await other.version()
        shutil.copytree(folder / new, copy / new)
        await other.models.follow()
        after = (await other.client.get("/healthz")).json()
        behind_after = await metric(other.client, "sojourn_model_behind")
    assert (version, health["status"], health["model_version"], behind) == (old, "ready", old, 1)
    assert f"{new} is announced, but there is no bundle" in health["model_problems"][0]
    assert (after["model_version"], after["model_problems"], behind_after) == (new, [], 0)


async def test_a_bundle_that_is_refused_is_not_read_again_until_the_folder_changes(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """Four times a second it would cost a core."""
    matrix = folder / new / contract.ITEM_MATRIX_FILE
    async with process(folder, announcements) as one:
        flip_a_byte(matrix)
        await announcements.announce(new, NOON_MS)
        for _ in range(3):
            await one.models.follow()
        refused = await metric(one.client, 'sojourn_model_loads_total{result="refused"}')
        flip_a_byte(matrix)
        await one.models.follow()
        assert await one.version() == new
    assert refused == 1


LOADED = 'sojourn_model_loads_total{result="loaded"}'


async def test_the_others_load_while_the_one_that_was_asked_does(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """A large catalogue takes seconds to load; they switch together all the same."""
    async with process(folder, announcements) as other:
        await announcements.prepare(new, NOON_MS)
        await other.models.follow()
        before = await other.version(), await metric(other.client, LOADED)
        await announcements.announce(new, NOON_MS)
        await other.models.follow()
        after = await other.version(), await metric(other.client, LOADED)
    assert (before, after) == ((old, 1), (new, 1))


@pytest.mark.parametrize("ending", ["given up", "forgotten"])
async def test_what_was_prepared_for_nothing_is_let_go(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements, ending: str
) -> None:
    """The one that was asked refused the bundle, or crashed: two models would stay in memory."""
    at_ms = NOON_MS - MAX_PREPARING_MS + 1
    async with process(folder, announcements) as other:
        await announcements.prepare(new, at_ms)
        await other.models.follow()
        if ending == "given up":
            await announcements.give_up(new)
        else:
            await announcements.prepare(new, at_ms - 1)
        await other.models.follow()
        kept = await metric(other.client, LOADED)
        await announcements.announce(new, NOON_MS)
        await other.models.follow()
        loads = await metric(other.client, LOADED)
        assert await other.version() == new
    assert (kept, loads) == (1, 2)


async def test_a_refused_activation_is_given_up(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """Nobody must wait for it, and a version that nobody has is not even prepared."""
    flip_a_byte(folder / new / contract.ITEM_MATRIX_FILE)
    async with process(folder, announcements) as one:
        for version in (new, "0" * 16):
            await one.activate(version)
            assert announcements.announced == Announced(old, "", old, NOON_MS)


async def test_without_redis_nothing_is_switched_and_serving_goes_on(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """One process alone on another model would answer differently from all others."""
    async with process(folder, announcements) as one:
        announcements.down = True
        answers = [await one.activate(new), await one.roll_back()]
        listed = await one.states()
        version = await one.version()
        loads = await metric(one.client, 'sojourn_model_loads_total{result="loaded"}')
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [
        (503, "1"),
        (503, "1"),
    ]
    assert (listed[old], version, loads) == ("active", old, 0)


async def test_of_two_activations_at_once_the_last_one_stays(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """They go one after the other: what is announced is what is served."""
    third = add_bundle(folder, "third")
    async with process(folder, announcements) as one:
        answers = await asyncio.gather(one.activate(new), one.activate(third), one.activate(old))
        version = await one.version()
    active = [answer.json()["active"] for answer in answers]
    assert sorted(active) == sorted([old, new, third])
    assert announcements.announced is not None
    assert announcements.announced.active == version


async def test_live_counts_keep_their_items_over_a_switch(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements, counters: FakeCounters
) -> None:
    """The item that is popular has another index in the other bundle."""
    async with process(folder, announcements, counters=counters) as one:
        before = await recommended(one.client, k=1)
        counters.down = True
        await one.activate(new)
        after = await recommended(one.client, k=1)
    assert before == after == ["night-1"]


async def test_a_user_keeps_the_history_over_a_switch(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements, history: FakeHistory
) -> None:
    """Histories hold ids, and ids are what bundles share."""
    async with process(folder, announcements, history=history) as one:
        posted = await one.client.post("/v1/events", json={"events": [event_json()]})
        midnight = {"now": "2026-01-14T00:00:00+00:00"}
        before = await recommended(one.client, k=3, **midnight)
        await one.activate(new)
        after = await recommended(one.client, k=3, **midnight)
    assert posted.json()["accepted"] == 1
    assert before == after
    assert before[0] == "action-1"


async def test_only_the_bundle_that_serves_is_shown(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """And switches are counted."""
    async with process(folder, announcements) as one:
        await one.activate(new)
        text = (await one.client.get("/metrics")).text
    shown = [line for line in text.splitlines() if line.startswith("sojourn_bundle_info")]
    assert shown == [f'sojourn_bundle_info{{name="new",version="{new}"}} 1.0']
    assert "sojourn_model_switches_total 1.0" in text


def move_away(folder: Path) -> None:
    """Leave nothing where the folder was."""
    folder.rename(folder.with_name("elsewhere"))


async def test_a_folder_that_is_gone_is_said_and_serving_goes_on(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements
) -> None:
    """A volume was unmounted; what is loaded is loaded."""
    async with process(folder, announcements) as one:
        move_away(folder)
        listed = await one.client.get("/v1/models")
        asked = await one.activate(new)
        await one.models.follow()
        await one.models.watch()
        version = await one.version()
    assert (listed.status_code, asked.status_code, version) == (503, 503, old)
    assert listed.json()["type"] == "urn:sojourn:problem:bundle-refused"
    assert announcements.announced == Announced(old, "", old, NOON_MS)


async def test_a_setting_that_names_one_bundle_leaves_no_choice(client: httpx.AsyncClient) -> None:
    """It needs no Redis to say so, and its own version is no change."""
    [model] = (await client.get("/v1/models")).json()["models"]
    own = await client.post(f"/v1/models/{model['version']}/activate")
    other = await client.post("/v1/models/0000000000000000/activate")
    back = await client.post("/v1/models/rollback")
    assert model["state"] == "active"
    assert (own.status_code, own.json()["active"]) == (200, model["version"])
    assert (other.status_code, other.json()["type"]) == (404, "urn:sojourn:problem:unknown-model")
    assert "SOJOURN_BUNDLE names one bundle" in other.json()["detail"]
    assert back.status_code == 409
