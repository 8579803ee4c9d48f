"""What each case asks for: requests over many users, so that nothing kept per user is flattered."""

from collections.abc import Sequence

import numpy as np

from benchmarks.serving import bare_app
from benchmarks.serving.catalogue import MAX_PRICE, category, item_id
from benchmarks.serving.requests import STAMP, Load, Request, post

K = 10
NUM_CANDIDATES = 500
NUM_BODIES = 2_000
EVENTS_PER_POST = 50
BY_MODEL = '"source":"model"'
ANY_ITEM = '"items":[{'
RECOMMENDATIONS = "/v1/recommendations"
SEED = 7


def bare(users: Sequence[str]) -> Load:
    """Ask a contestant that is no Sojourn for each user."""
    return Load([Request(f"/users/{user}") for user in users], bare_app.ANSWER)


def recommend(users: Sequence[str], expected: str = BY_MODEL) -> Load:
    """Ask Sojourn for each user's ten best."""
    return Load([Request(f"/v1/users/{user}/recommendations?k={K}") for user in users], expected)


def cold(num_users: int) -> Load:
    """Ask for users of whom nothing is stored."""
    return recommend([f"cold-{place:06d}" for place in range(num_users)], ANY_ITEM)


def candidates(users: Sequence[str], num_items: int) -> Load:
    """Have 500 random items ranked for a user."""
    rng = np.random.default_rng(SEED)
    requests = []
    for place in range(NUM_BODIES):
        chosen = rng.choice(num_items, NUM_CANDIDATES, replace=False) + 1
        asked = {"user_id": users[place % len(users)], "k": K}
        asked["candidates"] = [item_id(int(index)) for index in chosen]
        requests.append(post(RECOMMENDATIONS, asked))
    return Load(requests, BY_MODEL)


def filtered(users: Sequence[str]) -> Load:
    """Ask for the ten best of three categories under half of the highest price."""
    wanted = {
        "must": [
            {"key": "categories", "match": {"any": [category(place) for place in range(3)]}},
            {"key": "attributes.price", "range": {"lt": MAX_PRICE // 2}},
        ]
    }
    bodies = [{"user_id": user, "k": K, "filter": wanted} for user in users]
    return Load([post(RECOMMENDATIONS, body) for body in bodies], BY_MODEL)


def diverse(users: Sequence[str]) -> Load:
    """Ask for ten that differ, at most two of a category."""
    wanted = {"strength": 0.3, "max_per_group": 2}
    bodies = [{"user_id": user, "k": K, "diversity": wanted} for user in users]
    return Load([post(RECOMMENDATIONS, body) for body in bodies], BY_MODEL)


def events(users: Sequence[str], num_items: int, users_per_post: int) -> Load:
    """Post 50 new events of so many users, in turn; each post at a time of its own."""
    rng = np.random.default_rng(SEED)
    requests = []
    for _ in range(NUM_BODIES):
        chosen = rng.choice(len(users), users_per_post, replace=False)
        items = rng.choice(num_items, EVENTS_PER_POST, replace=False) + 1
        rows = [
            {
                "user_id": users[int(chosen[place % users_per_post])],
                "item_id": item_id(int(item)),
                "event_type": "view",
                "timestamp": STAMP,
            }
            for place, item in enumerate(items)
        ]
        requests.append(post("/v1/events", {"events": rows}))
    return Load(requests, '"duplicates":0,"rejected":0')
