"""One score in three places: torch, ONNX Runtime and the running service, at most 1e-4 apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.bundle_loader import load_bundle
from service.config import Settings
from service.contract.bundle import GOLDEN_TOLERANCE
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.fakes import FakeClock
from tests.golden import make
from training.export import export_bundle


async def served_scores(bundle: Path) -> list[dict[str, float]]:
    """Post each golden history to the whole application and return all scores by item id."""
    settings = Settings(bundle_path=bundle, redis_url=None)
    app = create_app(
        settings,
        **fake_stores(),
        bundle=load_bundle(bundle),
        clock=FakeClock(make.REQUEST_MS),
    )
    answers = []
    async with client_of(app) as client:
        for number, history in enumerate(make.HISTORIES):
            events = [_event(number, place, item) for place, item in enumerate(history)]
            posted = await client.post("/v1/events", json={"events": events})
            assert posted.json()["accepted"] == len(history), posted.text
            params: dict[str, str | int] = {"k": 12, "exclude_seen": "none", "now": make.REQUEST_MS}
            answer = await client.get(f"/v1/users/u{number}/recommendations", params=params)
            answers.append(_scores(answer.json()["items"]))
    return answers


def _event(user: int, place: int, item_id: str) -> dict[str, Any]:
    return {
        "user_id": f"u{user}",
        "item_id": item_id,
        "event_type": "view",
        "timestamp": make.FIRST_MS + place * make.HOUR_MS,
    }


def _scores(items: Sequence[dict[str, Any]]) -> dict[str, float]:
    assert {item["source"] for item in items} == {"model"}
    return {item["item_id"]: item["score"] for item in items}


async def test_torch_and_the_running_service_give_one_score(tmp_path: Path) -> None:
    """A model trained now, exported, loaded and asked over HTTP scores as torch does."""
    loaded = make.trained_run(tmp_path)
    bundle, manifest = export_bundle(tmp_path / "run", tmp_path / "bundles")
    assert manifest.parity_max_abs < GOLDEN_TOLERANCE
    served = await served_scores(bundle)
    for got, expected in zip(served, make.torch_scores(loaded), strict=True):
        assert got == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_the_golden_bundle_still_gives_its_scores() -> None:
    """A bundle that was exported once must serve the same numbers with tomorrow's code."""
    expected = json.loads(make.EXPECTED.read_text("utf-8"))
    served = await served_scores(make.BUNDLE)
    assert len(served) == len(expected)
    for got, scores in zip(served, expected, strict=True):
        assert got == pytest.approx(scores, abs=GOLDEN_TOLERANCE)
