"""What a request may want of its list: variety, rotation, exploration, places, pages."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.builders import event
from tests.clients import item_ids
from tests.fake_stores import FakeExposures, FakeLists
from tests.fakes import NOON_MS, FakeHistory

MIDNIGHT_MS = NOON_MS - 12 * 3_600_000
# By the model for a user of action-1 at midnight: scores 1, .9, .8, .1, 0 and 0.
BY_MODEL = ["action-1", "action-2", "action-3", "drama-2", "drama-1", "night-1"]


@pytest.fixture(autouse=True)
async def _user_of_action(history: FakeHistory) -> None:
    """Anna saw action-1 a day before the midnight that the tests ask about."""
    await history.append([event(item_id="action-1", timestamp_ms=MIDNIGHT_MS - 86_400_000)])


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Ask for anna's list at midnight; the answer must be one."""
    whole = {"user_id": "anna", "now": MIDNIGHT_MS, "exclude_seen": "none"} | body
    answer = await client.post("/v1/recommendations", json=whole)
    assert answer.status_code == 200, answer.text
    return answer


async def refused(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Return the first field problem of a request that must be refused."""
    answer = await client.post("/v1/recommendations", json={"user_id": "anna"} | body)
    assert answer.status_code == 422, answer.text
    problem: dict[str, Any] = answer.json()["errors"][0]
    return problem


async def test_variety_brings_another_kind_to_the_second_place(client: httpx.AsyncClient) -> None:
    """At .6 the first of another kind beats action-2, the cosine of which to action-1 is .99."""
    assert item_ids(await post(client, k=2)) == BY_MODEL[:2]
    varied = item_ids(await post(client, k=2, diversity={"strength": 0.6}))
    assert varied[0] == "action-1"
    assert varied[1] in {"drama-1", "drama-2", "night-1"}


async def test_a_category_is_capped_before_the_list_is_cut(client: httpx.AsyncClient) -> None:
    """action-1 and action-2 are of category action; action-3 and night-1 say none."""
    capped = item_ids(await post(client, k=4, diversity={"max_per_group": 1}))
    assert capped == ["action-1", "action-3", "drama-2", "night-1"]


async def test_what_was_shown_goes_down_and_comes_back(
    client: httpx.AsyncClient, exposures: FakeExposures
) -> None:
    """Shown at midnight, action-1 loses 1 of a range of 1; ten half lives later a thousandth."""
    await post(client, k=1)
    noted = await exposures.first()
    assert [one.item_id for one in noted.impressions] == ["action-1"]
    rotation = {"strength": 1, "half_life_s": 60}
    later = noted.timestamp_ms + 600_000
    at_once = await post(client, k=6, now=noted.timestamp_ms, rotation=rotation)
    assert item_ids(at_once)[0] != "action-1"
    exposures.noted[1:] = []
    later_list = item_ids(await post(client, k=6, now=later, rotation=rotation))
    assert later_list.index("action-1") < later_list.index("drama-1")


async def test_rotation_without_its_store_says_so_and_answers(
    client: httpx.AsyncClient, exposures: FakeExposures
) -> None:
    """The list is the model's, and the caller is told what is missing."""
    exposures.down = True
    answer = (await post(client, rotation={})).json()
    assert answer["degraded"] == ["redis"]
    assert answer["source"] == "model"


async def test_exploration_says_how_probable_each_place_was(
    client: httpx.AsyncClient, exposures: FakeExposures
) -> None:
    """All places drawn evenly: 1 / 6, 1 / 5, 1 / 4, in the answer and in the log."""
    answer = (await post(client, k=3, exploration={"share": 1, "seed": 5})).json()
    propensities = [item["propensity"] for item in answer["items"]]
    assert propensities == pytest.approx([1 / 6, 1 / 5, 1 / 4])
    noted = await exposures.first()
    assert [one.propensity for one in noted.impressions] == propensities
    assert (noted.policy, noted.recommendation_id) == (
        "exploration=1",
        answer["recommendation_id"],
    )
    assert "explore" in {item["source"] for item in answer["items"]}


async def test_a_seed_draws_the_same_list_again(client: httpx.AsyncClient) -> None:
    """A list that somebody asks about can be made again."""
    exploration = {"share": 0.8, "seed": 5}
    first = item_ids(await post(client, exploration=exploration))
    assert item_ids(await post(client, exploration=exploration)) == first
    plain = (await post(client)).json()
    assert all("propensity" not in item for item in plain["items"])


async def test_included_items_have_a_place_whatever_they_score(client: httpx.AsyncClient) -> None:
    """Seen, filtered out and last by score, drama-1 takes the last place; unknown ids follow."""
    body = {
        "include": ["drama-1", "unheard-of"],
        "filter": {"must": [{"key": "categories", "match": {"value": "action"}}]},
    }
    answer = (await post(client, k=3, **body)).json()
    assert [item["item_id"] for item in answer["items"]] == ["action-1", "drama-1", "unheard-of"]
    assert [item["source"] for item in answer["items"]] == ["model", "model", "new"]
    excluded = await post(client, k=2, include=["drama-1"], exclude=["drama-1"])
    assert item_ids(excluded) == BY_MODEL[:2]


async def test_an_included_item_that_is_listed_anyway_keeps_its_rank(
    client: httpx.AsyncClient,
) -> None:
    """Including says "somewhere in the list", not "last"."""
    assert item_ids(await post(client, k=3, include=["action-2"])) == BY_MODEL[:3]


async def test_a_radius_shows_nothing_further_away(client: httpx.AsyncClient) -> None:
    """Only drama-1 says where it is: in Paris."""
    paris = {"lat": 48.8566, "lon": 2.3522}
    assert item_ids(await post(client, place=paris | {"radius_km": 5})) == ["drama-1"]
    assert item_ids(await post(client, place=paris)) == BY_MODEL


async def test_a_stranger_is_shown_what_is_near_first(client: httpx.AsyncClient) -> None:
    """At noon action-2 is more popular, but drama-1 is around the corner."""
    body = {"user_id": "nobody", "now": NOON_MS, "k": 2}
    near = (await post(client, **body, place={"lat": 48.8566, "lon": 2.3522})).json()
    assert [(item["item_id"], item["source"]) for item in near["items"]] == [
        ("drama-1", "nearby"),
        ("action-2", "popular"),
    ]


async def test_a_new_users_categories_are_read_by_the_model(client: httpx.AsyncClient) -> None:
    """The examples of drama are drama-1 and drama-2; they are not seen, so they may be shown."""
    body = {"user_id": "nobody", "onboarding": {"categories": ["drama"]}, "exclude_seen": "all"}
    answer = (await post(client, **body, k=2)).json()
    assert {item["item_id"] for item in answer["items"]} == {"drama-1", "drama-2"}
    assert answer["source"] == "model"
    unknown = (await post(client, user_id="nobody", onboarding={"categories": ["?"]})).json()
    assert unknown["source"] == "popular"


async def test_a_new_users_chosen_items_count_as_likes(client: httpx.AsyncClient) -> None:
    """What was chosen is known to the user, so it is seen; the next of its kind is shown."""
    body = {"user_id": "nobody", "onboarding": {"items": ["drama-1"]}, "exclude_seen": ["like"]}
    assert item_ids(await post(client, **body, k=1)) == ["drama-2"]


async def test_pages_of_one_list_join_without_gap_or_repeat(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """An event between two pages moves the next list, not this one."""
    first = (await post(client, k=4, paginate=True)).json()
    await history.append([event(event_id="2", item_id="night-1", timestamp_ms=MIDNIGHT_MS)])
    body = {"user_id": "anna", "cursor": first["next_cursor"], "k": 4}
    second = (await client.post("/v1/recommendations", json=body)).json()
    both = [*first["items"], *second["items"]]
    assert [item["item_id"] for item in both] == BY_MODEL
    assert [item["rank"] for item in both] == [1, 2, 3, 4, 5, 6]
    assert second["items"][0]["title"] == "Title of drama-1"
    assert "next_cursor" not in second
    assert first["recommendation_id"] != second["recommendation_id"]


async def test_a_list_that_fits_its_page_has_no_cursor(
    client: httpx.AsyncClient, lists: FakeLists
) -> None:
    """Nothing is kept for a page that nobody can ask for."""
    lists.down = True
    answer = (await post(client, k=6, paginate=True)).json()
    assert "next_cursor" not in answer
    assert answer["degraded"] == []


async def test_without_redis_there_is_a_first_page_and_no_cursor(
    client: httpx.AsyncClient, lists: FakeLists
) -> None:
    """The caller is told why the list ends."""
    lists.down = True
    answer = (await post(client, k=2, paginate=True)).json()
    assert len(answer["items"]) == 2
    assert (answer["degraded"], "next_cursor" in answer) == (["redis"], False)


async def test_a_cursor_is_its_users_and_ends(client: httpx.AsyncClient) -> None:
    """Somebody else's, made up, or past the end: 410, which says to begin again."""
    first = (await post(client, k=4, paginate=True)).json()
    cursor = first["next_cursor"]
    for body in (
        {"user_id": "bert", "cursor": cursor},
        {"cursor": cursor},
        {"user_id": "anna", "cursor": f"{'0' * 32}.4"},
        {"user_id": "anna", "cursor": f"{cursor.partition('.')[0]}.6"},
    ):
        answer = await client.post("/v1/recommendations", json=body)
        assert answer.status_code == 410, answer.text
        assert answer.json()["type"].endswith("cursor-expired")


async def test_what_a_cursor_fixed_cannot_be_said_again(client: httpx.AsyncClient) -> None:
    """A filter beside a cursor would be ignored, silently."""
    problem = await refused(client, cursor=f"{'0' * 32}.4", exclude=["a"])
    assert problem["field"] == "exclude"
    assert (await refused(client, cursor="page 2"))["field"] == "cursor"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"diversity": {"strength": 1.5}}, "diversity.strength"),
        ({"diversity": {"group_by": "brand"}}, "diversity.group_by"),
        ({"diversity": {"max_per_group": 0}}, "diversity.max_per_group"),
        ({"rotation": {"half_life_s": 0}}, "rotation.half_life_s"),
        ({"exploration": {"share": -0.1}}, "exploration.share"),
        ({"exploration": {"seed": 1.5}}, "exploration.seed"),
        ({"onboarding": {"items": ["a\u0000"]}}, "onboarding.items.0"),
        ({"place": {"lat": 1, "lon": 1, "radius_km": 0}}, "place.radius_km"),
        ({"include": [""]}, "include.0"),
    ],
)
async def test_what_has_no_meaning_is_refused_by_its_field(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    """A caller can mend what is named."""
    assert (await refused(client, **body))["field"] == field


async def test_a_later_page_keeps_the_propensities_of_its_list(
    client: httpx.AsyncClient, exposures: FakeExposures
) -> None:
    """All of six places drawn evenly: 1 / 6 to 1 / 1, also where the list was cut."""
    first = (await post(client, k=4, paginate=True, exploration={"share": 1, "seed": 5})).json()
    body = {"user_id": "anna", "cursor": first["next_cursor"], "k": 4}
    second = (await client.post("/v1/recommendations", json=body)).json()
    both = [item["propensity"] for item in (*first["items"], *second["items"])]
    assert both == pytest.approx([1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1])
    await exposures.first()
    await asyncio.sleep(0)
    assert [one.policy for one in exposures.noted] == ["exploration=1"] * 2


async def test_what_is_taken_away_between_two_pages_is_not_shown(
    client: httpx.AsyncClient,
) -> None:
    """The others keep their ranks."""
    first = (await post(client, k=3, paginate=True)).json()
    gone = {"items": [{"item_id": "drama-1", "available": False}]}
    await client.post("/v1/items", json=gone)
    body = {"user_id": "anna", "cursor": first["next_cursor"], "k": 4}
    second = (await client.post("/v1/recommendations", json=body)).json()
    assert [(one["item_id"], one["rank"]) for one in second["items"]] == [
        ("drama-2", 4),
        ("night-1", 6),
    ]
