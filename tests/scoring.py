"""Scores by the ways that the service ranks: of the whole catalogue, and of a list."""

from collections.abc import Sequence

import numpy as np

from service.allowed import Only
from service.contract.features import Float32s, RequestPoint, Window, encode_windows
from service.ranker import Ranker, Wanted
from tests.builders import WINDOW_LEN
from tests.fakes import NOON_MS


def catalogue_scores(ranker: Ranker, *windows: Window, time_ms: int = NOON_MS) -> Float32s:
    """Return the scores of all items for windows in one batch, (windows, num_items + 1)."""
    points = [RequestPoint(time_ms)] * len(windows)
    return ranker.score_batch(encode_windows(windows, points, WINDOW_LEN))


def listed_scores(ranker: Ranker, *asked: tuple[Window, Sequence[int]]) -> list[Float32s]:
    """Return the scores of listed items for windows in one batch, in the order of each list."""
    windows = [seen for seen, _ in asked]
    arrays = encode_windows(windows, [RequestPoint(NOON_MS)] * len(asked), WINDOW_LEN)
    wanted = [Wanted(Only(np.sort(np.array(items))), len(items)) for _, items in asked]
    found = []
    answers = ranker.best(list(zip(ranker.encode(arrays), wanted, strict=True)))
    for (_, items), (best, scores) in zip(asked, answers, strict=True):
        score_of = dict(zip(best.tolist(), scores.tolist(), strict=True))
        found.append(np.array([score_of[item] for item in items], np.float32))
    return found
