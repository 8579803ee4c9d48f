"""Two replicas and an item of which only the text is known: found on both, whatever happens.

`SOJOURN_TEXT_BUNDLE` may name a bundle that reads texts, of a real language model; then it is
served in place of the tiny one.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from service.contract import bundle as contract
from service.store.embedded import EmbeddedValkey
from tests.folders import point_at
from tests.integration.processes import seconds_until, serving, stop
from tests.text_bundles import make_text_bundle

pytestmark = pytest.mark.integration

WITHIN_S = 1.0
MAX_RANKED = 9_999
NEW = "brand-new"


@dataclass(frozen=True, slots=True)
class Story:
    """What a user did, the title of the new item, and how many neighbours are looked at."""

    item_ids: list[str]
    history: list[str]
    title: str
    num_neighbours: int


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a bundle that reads texts."""
    given = os.environ.get("SOJOURN_TEXT_BUNDLE")
    if given:
        return contract.resolve_bundle(Path(given))
    return make_text_bundle(tmp_path / "made")


@pytest.fixture
def story(made: Path) -> Story:
    """Return a user of dramas; of a real bundle one of its best known item with a title."""
    table = pq.read_table(made / contract.ITEMS_FILE).to_pydict()
    ids, titles = table["item_id"], table["title"]
    if "drama-1" in ids:
        return Story(ids, ["drama-1"], "A drama", 1)
    known = [at for at, title in enumerate(titles) if title and len(title.split()) > 1]
    best = max(known, key=lambda at: table["num_events"][at])
    chosen = np.linspace(0, len(ids) - 1, min(len(ids), MAX_RANKED)).astype(int)
    # Nearly the title: the last word is another.
    title = " ".join([*titles[best].split()[:-1], "new"])
    return Story([ids[at] for at in chosen], [ids[best]], title, 10)


@pytest.fixture
def versions(made: Path, folder: Path) -> list[str]:
    """Return two versions in the folder of bundles, the first of which CURRENT names."""
    found = [add_copy(made, folder, name) for name in ("one", "two")]
    point_at(folder, found[0])
    return found


def add_copy(bundle: Path, folder: Path, name: str) -> str:
    """Copy a bundle into the folder under another name, which is another version."""
    made = folder / "new"
    shutil.copytree(bundle, made)
    manifest = contract.read_manifest(made).model_copy(update={"name": name})
    version = contract.content_version(manifest)
    document = manifest.model_copy(update={"bundle_version": version}).model_dump(mode="json")
    (made / contract.MANIFEST_FILE).write_text(json.dumps(document), "utf-8")
    made.rename(folder / version)
    return version


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a Valkey that outlives the services."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server.url


@contextmanager
def replicas(folder: Path, redis_url: str) -> Iterator[list[httpx.Client]]:
    """Run two services on one folder and one Valkey."""
    with ExitStack() as stack:
        started = [stack.enter_context(serving(folder, "--redis", redis_url)) for _ in range(2)]
        yield [client for _, client in started]
        for process, _ in started:
            stop(process)


def put(client: httpx.Client, item_id: str, title: str) -> None:
    """Say what an item is called, and nothing else."""
    answer = client.put(f"/v1/items/{item_id}", json={"title": title})
    assert answer.status_code == 200, answer.text


def view(client: httpx.Client, item_ids: list[str]) -> None:
    """Let anna view items now."""
    now_ms = time.time_ns() // 1_000_000
    events = [
        {"user_id": "anna", "item_id": item_id, "event_type": "view", "timestamp": now_ms}
        for item_id in item_ids
    ]
    answer = client.post("/v1/events", json={"events": events}).json()
    assert answer["accepted"] == len(item_ids), answer


def rank_of_new(client: httpx.Client, story: Story) -> float:
    """Return the rank of the new item among all for anna, as a share: 0 is the first."""
    items = [{"item_id": item_id} for item_id in [*story.item_ids, NEW]]
    answer = client.post("/v1/rank", json={"user_id": "anna", "items": items}).json()
    places = [item["item_id"] for item in answer["items"]]
    return places.index(NEW) / len(places)


def similar(client: httpx.Client, item_id: str, k: int) -> list[str]:
    """Return what is like an item, nothing of an item unknown."""
    answer = client.get(f"/v1/items/{item_id}/similar", params={"k": k})
    if answer.status_code == 404:
        return []
    return [item["item_id"] for item in answer.json()["items"] if item["source"] == "similar"]


def is_found(client: httpx.Client, story: Story) -> bool:
    """Say whether the new item is above the median for anna, and in a list of its neighbours."""
    k = story.num_neighbours
    neighbours = similar(client, NEW, k)
    is_near = any(NEW in similar(client, neighbour, k) for neighbour in neighbours)
    return is_near and rank_of_new(client, story) < 0.5


def test_a_new_item_is_found_by_its_title_on_both_replicas_and_stays_so(
    folder: Path, versions: list[str], story: Story, redis_url: str
) -> None:
    """Within a second on the other one; after a restart too, and after a change of the bundle."""
    took: dict[str, float] = {}
    with replicas(folder, redis_url) as (one, other):
        view(one, story.history)
        assert similar(other, NEW, 1) == []
        put(one, NEW, story.title)
        at_once = is_found(one, story)
        took["put"] = seconds_until(lambda: is_found(other, story))
    with replicas(folder, redis_url) as clients:
        for client in clients:
            took[f"restart {len(took)}"] = seconds_until(lambda: is_found(client, story))  # noqa: B023  # asked at once
        assert clients[0].post(f"/v1/models/{versions[1]}/activate").status_code == 200
        for client in clients:
            seconds_until(lambda: health(client)["model_version"] == versions[1])  # noqa: B023  # asked at once
            took[f"switch {len(took)}"] = seconds_until(lambda: is_found(client, story))  # noqa: B023  # asked at once
    assert at_once
    assert max(took.values()) < WITHIN_S, took


def test_thousands_of_live_items_keep_no_restart_waiting(
    folder: Path, versions: list[str], story: Story, redis_url: str
) -> None:
    """The service answers at once, the item said last is found within a second, all in the end."""
    with replicas(folder, redis_url) as (one, _):
        view(one, story.history)
        for start in (0, 1_000):
            many = [
                {"item_id": f"i{at}", "title": f"{story.title} no {at}"}
                for at in range(start, start + 1_000)
            ]
            assert one.post("/v1/items", json={"items": many}).json()["accepted"] == 1_000
        put(one, NEW, story.title)
    with replicas(folder, redis_url) as (one, _):
        assert health(one)["model_version"] == versions[0]
        assert one.get("/v1/items/i0").status_code == 200
        took = seconds_until(lambda: rank_of_new(one, story) < 0.5)
        seconds_until(lambda: pending(one) == 0, within_s=120)
        assert similar(one, "i0", 1) != []
    assert took < WITHIN_S


def health(client: httpx.Client) -> dict[str, str]:
    """Return what a service says of itself."""
    found: dict[str, str] = client.get("/healthz").json()
    return found


def pending(client: httpx.Client) -> float:
    """Return how many texts are still to be read."""
    lines = client.get("/metrics").text.splitlines()
    [line] = [line for line in lines if line.startswith("sojourn_texts_pending ")]
    return float(line.split()[1])
