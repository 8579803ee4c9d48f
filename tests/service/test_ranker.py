from pathlib import Path

import numpy as np
import pytest

from service.bundle_loader import LoadedBundle, load_bundle
from service.contract.features import RequestPoint, Window, encode_window
from service.ranker import ScoreRequest
from tests.builders import WINDOW_LEN, expected_scores, make_bundle, window
from tests.fakes import NOON_MS


def request_of(
    seen: Window, indices: list[int] | None = None, time_ms: int = NOON_MS
) -> ScoreRequest:
    """Return the request to score a window."""
    arrays = encode_window(seen, RequestPoint(time_ms), WINDOW_LEN)
    return ScoreRequest(arrays, None if indices is None else np.array(indices, np.int64))


def test_a_score_is_the_product_of_query_and_item_vector(bundle: LoadedBundle) -> None:
    """The tiny encoder's query is the mean of the window, and half a day on the last axis."""
    [scores] = bundle.ranker.score([request_of(window(1, 4))])
    query = np.array([(1.0 + 0.0) / 2, (0.0 + 1.0) / 2, 0.5])
    np.testing.assert_allclose(scores[1:], bundle.item_matrix[1:] @ query, atol=1e-6)
    assert scores[0] == 0


def test_a_window_scores_the_same_alone_and_in_a_batch(bundle: LoadedBundle) -> None:
    """Whoever asks at the same time must not change an answer."""
    requests = [
        request_of(window(*items), None if not number % 2 else [3, 1])
        for number, items in enumerate([(), (1,), (1, 2, 3, 4, 5, 6), (6, 6), (2, 4)])
    ]
    together = bundle.ranker.score(requests)
    for request, scores in zip(requests, together, strict=True):
        np.testing.assert_allclose(scores, bundle.ranker.score([request])[0], atol=1e-6)


def test_listed_candidates_score_as_in_the_catalogue(bundle: LoadedBundle) -> None:
    """A gather of rows and the whole product are two ways to one number."""
    whole, listed = bundle.ranker.score(
        [request_of(window(1, 5)), request_of(window(1, 5), [6, 2])]
    )
    np.testing.assert_allclose(listed, whole[[6, 2]], atol=1e-6)


def test_copy_weights_add_up_over_an_items_positions(tmp_path: Path) -> None:
    """Item 4 is in the window twice, so its bonus is two weights; an absent item has none."""
    loaded = load_bundle(make_bundle(tmp_path, copy_weight=0.25))
    seen = window(4, 1, 4)
    whole, listed = loaded.ranker.score([request_of(seen), request_of(seen, [4, 5])])
    arrays = {name: column[None] for name, column in request_of(seen).arrays.items()}
    plain = expected_scores(np.asarray(loaded.item_matrix), arrays)[0]
    assert whole[4] - plain[4] == pytest.approx(2 * 0.25)
    assert whole[1] - plain[1] == pytest.approx(0.25)
    assert whole[5] - plain[5] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(listed, whole[[4, 5]], atol=1e-6)
