"""The sliders on real check-ins: New York in the morning is not New York at night."""

from collections.abc import Iterator

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.browser.city import trained, training
from tests.browser.conftest import Visit
from tests.browser.test_page import set_range
from tests.integration.processes import serving
from tests.programs import program
from tests.training.test_real_data import folder

pytestmark = [pytest.mark.browser, pytest.mark.data, pytest.mark.integration]

# Of 1,083: what a small model learns hours from in seconds.
NUM_USERS = 120
# Who was at one place only is sent to what is popular at all hours.
NUM_CHECK_INS = 8


@pytest.fixture(scope="module")
def city_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a small model of the first users' check-ins."""
    program("chromium")
    raw = folder("foursquare-nyc")
    here = tmp_path_factory.mktemp("nyc")
    copy = here / "copy"
    copy.mkdir()
    events = pq.read_table(raw / "events.parquet")
    some = events.filter(pc.less_equal(events["user_id"], NUM_USERS))
    pq.write_table(some, copy / "events.parquet")
    pq.write_table(pq.read_table(raw / "items.parquet"), copy / "items.parquet")
    training("import", "checkins", copy, "--out", here / "nyc", "--min-item-events", "5")
    with serving(trained(here / "nyc", here), "--data-dir", str(here / "data")) as (_, client):
        yield str(client.base_url)


def test_the_hour_changes_the_list_of_somebody_in_new_york(visit: Visit) -> None:
    """Half a day apart most ranks are another place's, some places are new, all are on the map."""
    page = visit.open()
    page.locator("#type").select_option("check-in")
    # Far enough down that not every place is one of all hours.
    page.locator("#k").fill("20")
    for rank in range(1, NUM_CHECK_INS + 1):
        # Not the first each time: where people come back, it stays the first.
        visit.click(f"#list li:nth-child({rank}) .post")
        visit.settled("After the check-in of")
    set_range(visit, "#hour", 9)
    morning = visit.items()
    set_range(visit, "#hour", 22)
    night = visit.items()
    assert morning != night
    assert len(set(night) - set(morning)) >= 3, (morning, night)
    assert sum(early != late for early, late in zip(morning, night, strict=True)) >= 10
    assert page.locator("#map circle.place").count() > 300
    assert page.locator("#map g.pin").count() == len(night)
    assert visit.complaints == []
