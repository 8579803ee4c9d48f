"""The page as its visitors use it: a real browser, a real service, a model that knows hours."""

import io

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from tests.browser.conftest import PHONE, SIZE, Visit, pictures

pytestmark = [pytest.mark.browser, pytest.mark.integration]

GRAVE = ("serious", "critical")
# Of a picture for the documentation: a third of the bytes, and no difference to be seen.
NUM_COLOURS = 64


def set_range(visit: Visit, field: str, value: int) -> None:
    """Move a slider, and wait for the list of that time."""
    script = (
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }"
    )
    with visit.page.expect_response("**/v1/recommendations"):
        visit.page.locator(field).evaluate(script, value)
    visit.settled()


def test_a_first_visit_leads_to_a_changed_list_in_less_than_five_clicks(visit: Visit) -> None:
    """The list is there when the page opens, and one button changes it."""
    visit.open()
    visit.page.locator("#user").fill("first-visitor")
    visit.click("#user-form .primary")
    visit.settled("items for first-visitor")
    before = visit.items()
    visit.click("#list .post")
    visit.settled("After the view of ")
    assert visit.items() != before
    assert visit.num_clicks < 5
    marks = visit.page.locator("#list .move").all_inner_texts()
    assert any(marks)
    assert visit.page.locator("#history .events li").count() == 1
    assert visit.complaints == []


def test_the_hour_changes_the_list(visit: Visit) -> None:
    """In the morning people go to bakeries and at night to bars, which the model has learned."""
    page = visit.open()
    page.locator("#user").fill("hours")
    page.locator("#type").select_option("check-in")
    for item in ("gym-1", "restaurant-2", "library-3"):
        page.locator("#item").fill(item)
        page.locator("#event-form .primary").click()
        visit.settled(f"After the check-in of {item.split('-')[0].title()}")
    set_range(visit, "#hour", 7)
    morning = visit.items()
    set_range(visit, "#hour", 23)
    night = visit.items()
    assert sum(one.startswith("bakery") for one in morning[:4]) >= 2, morning
    assert sum(one.startswith("bar") for one in night[:4]) >= 2, night
    assert page.locator("#hour").get_attribute("aria-valuetext") == "23:00"
    assert page.locator("#map g.pin").count() == len(night)
    assert visit.complaints == []


def test_a_wrong_filter_is_told_at_its_field_in_the_words_of_the_service(visit: Visit) -> None:
    """A right one is taken without a click; what is no JSON is not even sent."""
    page = visit.open()
    page.locator("summary", has_text="Filter").click()
    page.locator("#filter").fill("{")
    page.locator("#filter-error", has_text="no JSON").wait_for()
    page.locator("#filter").fill('{"must": [{"key": "price", "match": {"value": 1}}]}')
    page.locator("#filter-error", has_text="must be categories").wait_for()
    assert page.locator("#filter").get_attribute("aria-invalid") == "true"
    refused = [one for one in visit.complaints if "422" not in one]
    page.locator("#filter").fill('{"must": [{"key": "categories", "match": {"value": "Gym"}}]}')
    page.locator("#list li[data-item^=bar]").first.wait_for(state="detached")
    visit.settled()
    assert {one.split("-")[0] for one in visit.items()} == {"gym"}
    assert page.locator("#filter-error").inner_text() == ""
    assert refused == []


def test_panels_say_what_they_ask_for_and_words_that_they_cannot(visit: Visit) -> None:
    """The curl line has what the panels say; this model reads no texts."""
    page = visit.open()
    page.locator("summary", has_text="Words").click()
    assert page.locator("#query").is_disabled()
    assert "reads no texts" in page.locator("#query-note").inner_text()
    page.locator("summary", has_text="Candidates").click()
    page.locator("#candidates").fill("bar-1\ngym-2")
    page.locator("#exclude_seen").select_option("none")
    page.locator("summary", has_text="Variety").click()
    set_range(visit, "#diversity", 1)
    page.locator("#list li").nth(2).wait_for(state="detached")
    assert set(visit.items()) == {"bar-1", "gym-2"}
    curl = page.locator("#curl").inner_text()
    assert '"candidates":["bar-1","gym-2"]' in curl
    assert '"diversity":{"strength":1}' in curl
    page.locator("#list button", has_text="Similar").first.click()
    page.locator("#similar li").nth(7).wait_for()
    assert visit.complaints == []


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    """User, list, event, slider: by Tab, Enter and the arrows, and focus is always to be seen."""
    page = visit.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#user").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("keys-only")
    page.keyboard.press("Enter")
    visit.settled("items for keys-only")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#list .post')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    visit.settled("After the view of")
    page.locator("#hour").focus()
    with page.expect_response("**/v1/recommendations"):
        page.keyboard.press("Home" if page.locator("#hour").input_value() != "0" else "End")
    visit.settled("items for keys-only")
    assert page.locator("#live").get_attribute("aria-pressed") == "false"
    assert visit.complaints == []


def test_nobody_else_is_asked(visit: Visit) -> None:
    """It works in a closed network: every other host is blocked here, and none was tried."""
    visit.open()
    visit.click("#list .post")
    visit.settled("After the view of")
    visit.click("#map-view")
    visit.click("#list button:has-text('Why')")
    assert visit.hosts == {"127.0.0.1"}
    assert visit.complaints == []


@pytest.mark.parametrize(
    ("scheme", "size"), [("light", SIZE), ("dark", SIZE), ("light", PHONE)], ids=str
)
def test_axe_finds_nothing_grave(visit: Visit, scheme: str, size: tuple[int, int]) -> None:
    """Contrast, names, order: in both colours and on a phone, where nothing is wider than it."""
    page = visit.open()
    page.locator("#type").select_option("check-in")
    for at in range(3):
        page.locator("#list .post").nth(at).click()
        visit.settled("After the check-in of")
    for panel in page.locator("summary").all():
        panel.click()
    visit.settled()
    found = Axe().run(page).response["violations"]
    grave = [(one["id"], one["nodes"][0]["target"]) for one in found if one["impact"] in GRAVE]
    assert grave == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visit.complaints == []


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [
        ("page-light", "light", (1280, 1560)),
        ("page-dark", "dark", (1280, 1560)),
        ("page-phone", "light", (360, 900)),
    ],
)
def test_pictures_for_the_documentation(visit: Visit, name: str) -> None:
    """Taken where SOJOURN_SCREENSHOTS says; without it, the same way is gone and nothing kept."""
    page = visit.open()
    page.locator("#k").fill("6")
    page.locator("#user").fill({"page-light": "mia", "page-dark": "noah"}.get(name, "lea"))
    page.locator("#type").select_option("check-in")
    for item in ("gym-2", "restaurant-5", "café-3", "bar-1"):
        page.locator("#item").fill(item)
        page.locator("#event-form .primary").click()
        visit.settled(f"After the check-in of {item.split('-')[0].title()}")
    set_range(visit, "#weekday", 4)
    set_range(visit, "#hour", 20)
    for at in (2, 1):
        page.locator("#list .post").nth(at).click()
        visit.settled("After the check-in of Restaurant")
    visit.click("#list button:has-text('Similar')")
    page.locator("#similar-status", has_text="most like Restaurant").wait_for()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    taken = page.screenshot()
    assert taken.startswith(b"\x89PNG")
    if folder := pictures():
        with Image.open(io.BytesIO(taken)) as picture:
            picture.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(
                folder / f"{name}.png", optimize=True
            )
