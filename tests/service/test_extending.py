"""A bundle with what callers said of items: changed, new, gone, and back again."""

from typing import Any

import numpy as np
import pytest

from service.bundle_loader import LoadedBundle
from service.extending import extend, item_of
from service.filters import Asked, Match, matching
from tests.builders import ITEM_ROWS, window
from tests.fakes import NOON_MS
from tests.scoring import catalogue_scores, listed_scores

ASKED = Asked(NOON_MS, 0)


def having(view: LoadedBundle, category: str) -> list[str]:
    """Return the ids of the items of a category."""
    mask = matching(Match("categories", (category,)), view.columns, ASKED)
    return [view.vocabulary.id(index) for index in np.flatnonzero(mask).tolist()]


def titles(view: LoadedBundle) -> list[str | None]:
    """Return the titles of all items."""
    return [view.titles[index] for index in range(1, len(view.vocabulary) + 1)]


def scores(view: LoadedBundle, *items: int) -> list[float]:
    """Return the catalogue's scores for a window of items at midnight."""
    midnight_ms = NOON_MS // 86_400_000 * 86_400_000
    found: list[float] = catalogue_scores(view.ranker, window(*items), time_ms=midnight_ms)[
        0
    ].tolist()
    return found


def test_a_new_item_stands_where_its_category_is(bundle: LoadedBundle) -> None:
    """Category drama is drama-1 (0, 1, 0) and drama-2 (.1, .9, 0): their mean is (.05, .95, 0)."""
    view = extend(bundle, bundle, {"drama-3": {"title": "New", "categories": ["drama"]}})
    index = view.vocabulary.index("drama-3")
    assert (index, view.titles[index]) == (7, "New")
    assert view.ranker.vectors(np.array([7, 4])).tolist() == [
        pytest.approx([0.05, 0.95, 0.0]),
        pytest.approx([0.0, 1.0, 0.0]),
    ]
    # After drama-1 the query is (0, 1, 0).
    assert scores(view, 4) == pytest.approx([0, 0, 0.1, 0, 1, 0.9, 0, 0.95])
    assert having(view, "drama") == ["drama-1", "drama-2", "drama-3"]
    assert view.hash_index.indices(np.array([], np.uint64)).tolist() == []
    assert "drama-3" not in bundle.vocabulary


def test_candidates_behind_the_mapped_matrix_score_as_in_the_catalogue(
    bundle: LoadedBundle,
) -> None:
    """Gathered or multiplied, an item has one score."""
    view = extend(bundle, bundle, {"x": {"categories": ["drama", "action"]}})
    [whole] = catalogue_scores(view.ranker, window(1, 4))
    [some] = listed_scores(view.ranker, (window(1, 4), [2, 7]))
    assert some.tolist() == pytest.approx([whole[2], whole[7]])


def test_what_is_not_said_stays_as_the_bundle_says(bundle: LoadedBundle) -> None:
    """A flip of availability is no reason to lose a title."""
    view = extend(bundle, bundle, {"action-2": {"available": False}})
    assert view.withheld.tolist() == [2]
    assert titles(view) == titles(bundle)
    assert having(view, "classic") == having(bundle, "classic")
    back = extend(bundle, view, {"action-2": {"available": True}})
    assert back.withheld.tolist() == []


def test_what_is_said_replaces_what_the_bundle_says(bundle: LoadedBundle) -> None:
    """Null says that nothing is known any more."""
    said: dict[str, Any] = {
        "categories": ["musical"], "attributes": {"price": 7}, "opening_hours": None, "title": None,
    }  # fmt: skip
    view = extend(bundle, bundle, {"action-1": said})
    item = item_of(view, "action-1", {})
    assert (item.title, item.categories, item.opening_hours) == (None, ("musical",), None)
    assert item.attributes == {"price": 7.0}
    assert having(view, "action") == ["action-2"]
    # Forgotten again, the item is as the bundle says.
    anew = extend(bundle, view, {"action-1": {}})
    assert having(anew, "action") == ["action-1", "action-2"]


def test_a_deleted_item_is_withheld_until_it_is_said_again(bundle: LoadedBundle) -> None:
    """Known to the model or not; one that was never served must not come back as a stranger."""
    view = extend(bundle, bundle, {"new": {"categories": ["drama"]}})
    gone = extend(bundle, view, {"new": {"deleted": True}, "drama-1": {"deleted": True}})
    assert gone.withheld.tolist() == [4, 7]
    back = extend(bundle, gone, {"new": {"categories": ["action"]}})
    assert back.withheld.tolist() == [4]
    assert back.ranker.vectors(np.array([7])).tolist() == [pytest.approx([0.95, 0.05, 0.0])]
    never = extend(bundle, bundle, {"never": {"deleted": True}})
    assert never.withheld.tolist() == [never.vocabulary.index("never")] == [7]


def test_changes_one_by_one_are_the_changes_together(bundle: LoadedBundle) -> None:
    """A process that follows and one that starts now serve the same."""
    steps: list[dict[str, Any]] = [
        {"n1": {"categories": ["drama"]}},
        {"n2": {"categories": ["action"]}, "drama-1": {"available": False}},
        {"n1": {"categories": ["classic"]}},
        {"drama-1": {"title": "D"}},
    ]
    view = bundle
    said: dict[str, Any] = {}
    for step in steps:
        view = extend(bundle, view, step)
        said |= step
    at_once = extend(bundle, bundle, said)
    assert [*view.vocabulary] == [*at_once.vocabulary] == [*ITEM_ROWS, "n1", "n2"]
    assert titles(view) == titles(at_once)
    assert view.withheld.tolist() == at_once.withheld.tolist() == []
    assert scores(view, 1) == pytest.approx(scores(at_once, 1))
    for category in ("drama", "action", "classic"):
        assert having(view, category) == having(at_once, category)
