"""Explanations in the page: as an answer of the service's contract has them, and a real one."""

import json
from typing import Any

import pytest
from playwright.sync_api import Route

from tests.browser.conftest import Visit

pytestmark = [pytest.mark.browser, pytest.mark.integration]

HISTORY = [
    {"item_id": f"e-{place}", "title": name, "event_type": "view", "timestamp": time}
    for place, (name, time) in enumerate(
        [
            ("Bakery Anker", "2026-11-20T07:10:00.000+01:00"),
            ("Gym Linde", "2026-11-21T18:20:00.000+01:00"),
            ("Bar Sonne", "2026-11-22T23:05:00.000+01:00"),
        ]
    )
]
SHARES = {"base": 1.0, "history": 2.5, "time": 0.75, "place": -0.5, "repeat": 0.25, "text": 0.0}
EVENTS = [2.0, -0.4, 0.9]
# One layer of two heads: the first looks at the oldest event only, the second at the newest.
ATTENTION = [[[[1.0, 0.0, 0.0]] * 3, [[0.0, 0.0, 1.0]] * 3]]


def answer(body: dict[str, Any], *, by_model: bool = True) -> dict[str, Any]:
    """Return what the service answers to a request with `explain`, by its contract."""
    because = [{"position": 0, **HISTORY[0], "contribution": EVENTS[0]}]
    item: dict[str, Any] = {"item_id": "x", "title": "Bakery Turm", "score": 4.0, "rank": 1}
    explained = {"shares": SHARES, "events": EVENTS, "because": because}
    item |= {"source": "model", "reason": "because of Bakery Anker", "explanation": explained}
    if not by_model:
        item |= {"source": "popular", "explanation": None}
        del item["reason"]
    attention = ATTENTION if body.get("attention") else None
    whole = {"method": "leave-one-out", "history": HISTORY, "num_events": 5, "attention": attention}
    return {
        "recommendation_id": "0" * 32,
        "model_version": "1" * 16,
        "items": [item],
        "source": item["source"],
        "degraded": [] if by_model else ["model"],
        "unknown_candidates": [],
        "explanation": whole if by_model else None,
    }


def explain_by_hand(visit: Visit, *, by_model: bool = True) -> list[dict[str, Any]]:
    """Answer in the service's place, and return the bodies that are asked with."""
    asked: list[dict[str, Any]] = []

    def recommend(route: Route) -> None:
        asked.append(json.loads(route.request.post_data or ""))
        route.fulfill(json=answer(asked[-1], by_model=by_model))

    visit.page.route("**/v1/recommendations", recommend)
    # The made-up item is none of the service's.
    visit.page.route("**/similar?k=8", lambda route: route.fulfill(json={"items": []}))
    return asked


def test_an_explanation_is_a_strip_over_the_history_and_shares_that_add_up(visit: Visit) -> None:
    """1 + 2.5 + .75 - .5 + .25 = 4; what spoke against the item is told by its sign."""
    asked = explain_by_hand(visit)
    page = visit.open()
    assert asked[0]["explain"] is True
    assert "attention" not in asked[0]
    assert page.locator("#list .reason").inner_text() == "because of Bakery Anker"
    assert page.locator("#list .strip rect").count() == 3
    strip = page.locator("#why-body .strip")
    assert "Bakery Anker" in str(strip.get_attribute("aria-label"))
    assert "+2.00" in str(strip.get_attribute("aria-label"))
    assert page.locator("#why-body .strip .against").count() == 1
    cells = page.locator("#why-body .shares .number").all_inner_texts()
    assert cells == ["+1.000", "+2.500", "+0.750", "−0.500", "+0.250", "+0.000", "+4.000"]
    assert "newest 3 of 5" in page.locator("#why-body").inner_text()
    assert visit.complaints == []


def test_attention_is_asked_for_when_it_is_opened_and_told_in_words_too(visit: Visit) -> None:
    """The mean of both heads gives the oldest and the newest half each; a head gives all to one."""
    asked = explain_by_hand(visit)
    page = visit.open()
    page.locator("#attention-panel summary").click()
    page.locator("canvas.attention").wait_for()
    assert asked[-1]["attention"] is True
    rows = "rows => rows.map(row => row.innerText.replace(/\\s+/g, ' '))"
    table = page.locator("#attention tbody tr")
    assert sorted(table.evaluate_all(rows)[:2]) == ["Bakery Anker 0.500", "Bar Sonne 0.500"]
    page.locator("#attention-head").select_option("1")
    assert table.evaluate_all(rows)[0] == "Bakery Anker 1.000"
    assert page.evaluate("document.activeElement.id") == "attention-head"
    assert "not what changed the score" in page.locator("#attention").inner_text()
    assert visit.complaints == []


def test_a_list_that_is_not_by_the_model_says_that_it_has_no_explanation(visit: Visit) -> None:
    """A fallback has a source and a reason, and no shares that could be made up for it."""
    explain_by_hand(visit, by_model=False)
    page = visit.open()
    text = page.locator("#why-body").inner_text()
    assert "There is no explanation" in text
    assert "popular" in text
    assert "degraded: model" in text
    assert page.locator("#list .reason").inner_text() == "popular with everybody"
    assert visit.complaints == []


def test_the_service_explains_its_own_list(visit: Visit) -> None:
    """Nothing by hand: after an event the strip has a cell of it, and shares make the score."""
    page = visit.open()
    page.locator("#user").fill("explained")
    page.locator("#user-form .primary").click()
    visit.settled("items for explained")
    for _ in range(2):
        visit.click("#list .post")
        visit.settled("After the view of")
    with page.expect_response("**/v1/recommendations") as caught:
        page.locator("#attention-panel summary").click()
    body = caught.value.json()
    item = body["items"][0]
    assert len(item["explanation"]["events"]) == len(body["explanation"]["history"]) == 2
    assert sum(item["explanation"]["shares"].values()) == pytest.approx(item["score"], abs=1e-3)
    page.locator("canvas.attention").wait_for()
    assert page.locator("#why-body .strip rect").count() == 2
    assert page.locator("#why-body .shares .number").count() == 7
    assert visit.complaints == []
