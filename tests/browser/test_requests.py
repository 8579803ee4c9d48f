"""What the page sends: the place of a click on the map, words, and the same as a curl line."""

import json
import subprocess
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Response

from tests.browser.conftest import Visit, context_of
from tests.integration.processes import serving
from tests.programs import program
from tests.text_bundles import make_text_bundle

pytestmark = [pytest.mark.browser, pytest.mark.integration]

# Of the map's left upper corner, in parts of its width and height.
NORTH_WEST = (0.2, 0.15)


def test_a_click_on_the_map_is_the_place_of_the_request(visit: Visit) -> None:
    """North-west of the middle: the fields have it, the request and the map's cross."""
    page = visit.open()
    page.locator("#type").select_option("check-in")
    visit.click("#list .post")
    visit.settled("After the check-in of")
    visit.click("#map-view")
    box = page.locator("#map svg").bounding_box()
    assert box is not None
    spot = (box["width"] * NORTH_WEST[0], box["height"] * NORTH_WEST[1])
    with page.expect_request("**/v1/recommendations") as caught:
        page.locator("#map svg").click(position={"x": spot[0], "y": spot[1]})
    visit.settled()
    place = json.loads(caught.value.post_data or "")["place"]
    assert place == {name: float(page.locator(f"#{name}").input_value()) for name in place}
    middle = page.evaluate(MIDDLE_OF_CATALOGUE)
    assert place["lat"] > middle[0]
    assert place["lon"] < middle[1]
    cross = page.locator("#map path.here").bounding_box()
    box = page.locator("#map svg").bounding_box()
    assert cross is not None
    assert box is not None
    # The map is drawn anew, and its whole catalogue stands where it stood.
    found = (
        cross["x"] + cross["width"] / 2 - box["x"],
        cross["y"] + cross["height"] / 2 - box["y"],
    )
    assert found == pytest.approx(spot, abs=2)
    visit.click("#no-place")
    visit.settled()
    assert page.locator("#map path.here").count() == 0
    assert visit.complaints == []


MIDDLE_OF_CATALOGUE = """async () => {
  const { places } = await (await fetch("v1/about")).json();
  const middle = (axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length;
  return [middle(0), middle(1)];
}"""


def test_the_curl_line_gives_the_same_list_in_a_shell(visit: Visit) -> None:
    """Run as it stands, by a shell, with a quote in the user's id."""
    program("curl")
    page = visit.open()
    page.locator("#user").fill("o'hara")
    page.locator("#user-form .primary").click()
    visit.settled("items for o'hara")
    visit.click("#list .post")
    visit.settled("After the view of")
    line = page.locator("#curl").inner_text()
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    answered = json.loads(done.stdout)
    assert [item["item_id"] for item in answered["items"]] == visit.items()
    assert answered["explanation"]["num_events"] == 1


def has_words(word: str, answer: Response) -> bool:
    """Tell whether an answer is to a request with the word."""
    return word in (answer.request.post_data or "")


def test_other_words_give_another_list(browser: Browser, tmp_path: Path) -> None:
    """At the words' full weight, the first item is the one on the axis of the word."""
    folder = tmp_path / "bundles"
    make_text_bundle(folder)
    with (
        serving(folder, "--data-dir", str(tmp_path / "data")) as (_, client),
        context_of(browser) as context,
    ):
        visit = Visit(context, str(client.base_url))
        page = visit.open()
        page.locator("summary", has_text="Words").click()
        page.locator("#query_weight").evaluate("slider => { slider.value = 1 }")
        lists = {}
        for word in ("drama", "night"):
            with page.expect_response(partial(has_words, word)):
                page.locator("#query").fill(word)
            visit.settled()
            lists[word] = visit.items()
        assert lists["drama"] != lists["night"]
        firsts = [items[0].split("-")[0] for items in lists.values()]
        assert firsts == ["drama", "night"]
        assert visit.complaints == []
