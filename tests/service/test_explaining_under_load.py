"""Explanations in real time: too late, many at once, and nobody else kept waiting."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.features import Arrays
from service.ranker import Encoded, Ranker
from tests.builders import make_bundle
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.service.test_explanations_api import ITEMS, ask, scores, session

SLOW_S = 0.15


@pytest.fixture
def copying(tmp_path: Path) -> LoadedBundle:
    """Return a bundle that favours the window's own items."""
    return load_bundle(make_bundle(tmp_path / "copying", copy_weight=0.4))


def slow_explanations(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Let a batch of an explanation take so long; returns where the sizes of batches come."""
    honest, sizes = Ranker.encode, []

    def encode(self: Ranker, arrays: Arrays) -> list[Encoded]:
        count = len(arrays["items"])
        if count > 1:
            sizes.append(count)
            time.sleep(seconds)
        return honest(self, arrays)

    monkeypatch.setattr(Ranker, "encode", encode)
    return sizes


def served(bundle: LoadedBundle, **settings: Any) -> Any:
    """Return a client of the application with settings."""
    return client_of(create_app(Settings(**settings), bundle=bundle, **fake_stores()))


async def test_a_slow_encoder_leaves_the_list_and_a_word(
    copying: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The explanation ends at the deadline, by the clock, and others are answered meanwhile."""
    slow_explanations(monkeypatch, SLOW_S)
    async with served(copying, request_deadline_ms=250) as client:
        plain = await ask(client, events=session(*ITEMS))
        began_s = time.perf_counter()
        explaining = asyncio.create_task(ask(client, events=session(*ITEMS), explain=True))
        await asyncio.sleep(0.05)
        other_s = time.perf_counter()
        await ask(client, events=session(*ITEMS[:2]))
        assert time.perf_counter() - other_s < SLOW_S / 2
        answer = await explaining
        assert time.perf_counter() - began_s < 0.25 + SLOW_S
    assert scores(answer) == scores(plain)
    assert (answer["degraded"], answer["explanation"]) == (["explanation"], None)
    assert {item["explanation"] for item in answer["items"]} == {None}


async def test_explanations_at_once_are_not_mixed_up(
    copying: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of them take turns, in batches that are bounded, and each says what it says alone."""
    sizes = slow_explanations(monkeypatch, 0.001)
    sessions = [session(*ITEMS[at % 3 : at % 3 + 1 + at % 4]) for at in range(8)]
    async with served(copying) as client:
        alone = [await ask(client, events=one, explain=True) for one in sessions]
        at_once = await asyncio.gather(*[ask(client, events=e, explain=True) for e in sessions])
    for one, other in zip(alone, at_once, strict=True):
        assert one["explanation"] == other["explanation"]
        for item, same in zip(one["items"], other["items"], strict=True):
            assert item["explanation"]["shares"] == pytest.approx(same["explanation"]["shares"])
            assert item["explanation"]["events"] == pytest.approx(same["explanation"]["events"])
    assert max(sizes) <= 16


async def test_a_full_queue_leaves_lists_without_reasons(
    copying: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is explained and one waits; the third is answered at once, without."""
    # All of an explanation in one piece: it takes its place in the queue once.
    monkeypatch.setattr("service.explaining.BATCH", 1_000)
    slow_explanations(monkeypatch, SLOW_S)
    async with served(copying, max_pending=1, request_deadline_ms=60_000) as client:
        found = []
        for _ in range(3):
            found.append(asyncio.create_task(ask(client, events=session(*ITEMS), explain=True)))
            await asyncio.sleep(0.03)
        began_s = time.perf_counter()
        answers = [await found[2], await found[0], await found[1]]
        assert time.perf_counter() - began_s > SLOW_S
    assert [answer["degraded"] for answer in answers] == [["explanation"], [], []]
    assert scores(answers[0]) == scores(answers[1])
