"""What a page asks first: what is served, and what items are called and where they are."""

import httpx

from tests.service.test_bad_inputs import check_field


async def test_the_service_says_what_it_serves(client: httpx.AsyncClient) -> None:
    """The model that answers with, and the places of those items that have one."""
    about = (await client.get("/v1/about")).json()
    listed = (await client.get("/v1/users/anna/recommendations?k=500")).json()
    assert about["model_version"] == listed["model_version"]
    assert about["num_items"] >= len(listed["items"])
    assert about["reads_texts"] is False
    cards = (await client.get("/v1/items", params={"item_id": ids_of(listed)})).json()["items"]
    assert sorted(about["places"]) == sorted(
        [card["lat"], card["lon"]] for card in cards if card["lat"] is not None
    )
    assert about["places"]


async def test_a_live_place_is_told_too(client: httpx.AsyncClient) -> None:
    """An item that was put a moment ago is on the map."""
    before = (await client.get("/v1/about")).json()
    body = {"title": "New café", "lat": 12.34567, "lon": -3.5}
    assert (await client.put("/v1/items/new-cafe", json=body)).status_code == 200
    after = (await client.get("/v1/about")).json()
    assert after["num_items"] == before["num_items"] + 1
    assert [place for place in after["places"] if place not in before["places"]] == [
        [12.3457, -3.5]
    ]


async def test_cards_come_in_the_order_of_the_request(client: httpx.AsyncClient) -> None:
    """Ids that nobody knows are left out."""
    asked = {"item_id": ["night-1", "nobody's", "drama-1"]}
    cards = (await client.get("/v1/items", params=asked)).json()["items"]
    assert [card["item_id"] for card in cards] == ["night-1", "drama-1"]
    assert cards[1]["categories"] == ["classic", "drama"]
    assert (cards[1]["lat"], cards[1]["lon"]) == (48.86, 2.35)


async def test_cards_of_no_item_and_of_too_many_are_refused(client: httpx.AsyncClient) -> None:
    """The field is named."""
    for asked in ([], [f"i{number}" for number in range(201)]):
        answer = await client.get("/v1/items", params={"item_id": asked})
        assert check_field(answer, "item_id")


def ids_of(listed: dict[str, list[dict[str, str]]]) -> list[str]:
    """Return the ids of a list."""
    return [item["item_id"] for item in listed["items"]]
