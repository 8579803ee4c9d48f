from pathlib import Path

import numpy as np
import pytest

from service.bundle_loader import LoadedBundle, load_bundle
from service.contract.features import RequestPoint, encode_windows
from tests.builders import WINDOW_LEN, expected_scores, make_bundle, window
from tests.fakes import NOON_MS
from tests.scoring import catalogue_scores, listed_scores


def test_a_score_is_the_product_of_query_and_item_vector(bundle: LoadedBundle) -> None:
    """The tiny encoder's query is the mean of the window, and half a day on the last axis."""
    [scores] = catalogue_scores(bundle.ranker, window(1, 4))
    query = np.array([(1.0 + 0.0) / 2, (0.0 + 1.0) / 2, 0.5])
    np.testing.assert_allclose(scores[1:], bundle.item_matrix[1:] @ query, atol=1e-6)
    assert scores[0] == 0


def test_a_window_scores_the_same_alone_and_in_a_batch(bundle: LoadedBundle) -> None:
    """Whoever asks at the same time must not change an answer."""
    windows = [window(*items) for items in [(), (1,), (1, 2, 3, 4, 5, 6), (6, 6), (2, 4)]]
    together = catalogue_scores(bundle.ranker, *windows)
    for seen, scores in zip(windows, together, strict=True):
        np.testing.assert_allclose(scores, catalogue_scores(bundle.ranker, seen)[0], atol=1e-6)
    listed = listed_scores(bundle.ranker, *((seen, [3, 1]) for seen in windows))
    for seen, scores in zip(windows, listed, strict=True):
        [alone] = listed_scores(bundle.ranker, (seen, [3, 1]))
        np.testing.assert_allclose(scores, alone, atol=1e-6)


def test_listed_candidates_score_as_in_the_catalogue(bundle: LoadedBundle) -> None:
    """A gather of rows and the whole product are two ways to one number."""
    [whole] = catalogue_scores(bundle.ranker, window(1, 5))
    [listed] = listed_scores(bundle.ranker, (window(1, 5), [6, 2]))
    np.testing.assert_allclose(listed, whole[[6, 2]], atol=1e-6)


def test_copy_weights_add_up_over_an_items_positions(tmp_path: Path) -> None:
    """Item 4 is in the window twice, so its bonus is two weights; an absent item has none."""
    loaded = load_bundle(make_bundle(tmp_path, copy_weight=0.25))
    seen = window(4, 1, 4)
    [whole] = catalogue_scores(loaded.ranker, seen)
    [listed] = listed_scores(loaded.ranker, (seen, [4, 5]))
    arrays = encode_windows([seen], [RequestPoint(NOON_MS)], WINDOW_LEN)
    plain = expected_scores(np.asarray(loaded.item_matrix), arrays)[0]
    assert whole[4] - plain[4] == pytest.approx(2 * 0.25)
    assert whole[1] - plain[1] == pytest.approx(0.25)
    assert whole[5] - plain[5] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(listed, whole[[4, 5]], atol=1e-6)
