"""Recall of the lists that the service answers, against exact scores of the same bundle."""

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.serving.bundles import Made
from benchmarks.serving.catalogue import item_id
from benchmarks.serving.loads import RECOMMENDATIONS
from benchmarks.serving.requests import BenchmarkFailed
from benchmarks.serving.users import Users, user_id
from service.contract import bundle as contract
from service.contract.features import Float32s, RequestPoint, encode_windows
from training.scorers import OnnxScorer

K = 10
# Windows that are scored at once; their scores of a million items are 32 MB.
CASES_AT_ONCE = 8
# Items whose exact scores differ by less are as good as each other.
TIE = 1e-5


def recall(port: int, made: Made, people: Users, num_users: int) -> float:
    """Return the mean recall@10 of the first users' lists, as the service answers them now."""
    now_ms = time.time_ns() // 1_000_000
    answers = [_answer(port, user_id(user), now_ms) for user in range(num_users)]
    matrix = np.load(made.bundle / contract.ITEM_MATRIX_FILE, mmap_mode="r")
    scorer = OnnxScorer(made.bundle / contract.ENCODER_FILE, np.asarray(matrix))
    index_of = {item_id(index): index for index in range(1, len(matrix))}
    shares = []
    for first in range(0, num_users, CASES_AT_ONCE):
        chosen = range(first, min(first + CASES_AT_ONCE, num_users))
        scores = _exact(scorer, made, people, chosen, now_ms)
        for user, row in zip(chosen, scores, strict=True):
            shares.append(share_found([index_of[item] for item in answers[user]], row))
    return float(np.mean(shares))


def share_found(answered: Sequence[int], scores: Float32s) -> float:
    """Return the share of the exact ten best that were answered; ties count as found.

    `scores` are the exact ones by item index, (num_items + 1,), element 0 unused. Raises
    BenchmarkFailed unless ten different items were answered.
    """
    if len(set(answered)) != K:
        raise BenchmarkFailed(f"{len(set(answered))} different items were answered, not {K}")
    last = np.partition(scores[1:], -K)[-K]
    return float((scores[list(answered)] >= last - TIE).mean())


def _answer(port: int, user: str, now_ms: int) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"user_id": user, "k": K, "now": now_ms})
    connection.request("POST", RECOMMENDATIONS, body, {"content-type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    document: dict[str, Any] = json.loads(text)
    if response.status != http.client.OK or document["degraded"]:
        raise BenchmarkFailed(f"{user}: {response.status}: {text[:300]!r}")
    return [item["item_id"] for item in document["items"]]


def _exact(scorer: OnnxScorer, made: Made, people: Users, chosen: range, now_ms: int) -> Float32s:
    """Return exact scores, (users, num_items + 1), from what the users are known to have done."""
    window_len = made.spec.window_len
    windows = [people.window(user) for user in chosen]
    points = [RequestPoint(now_ms)] * len(windows)
    return scorer.score(encode_windows(windows, points, window_len))
