"""Texts are read once, together, off the loop, and one that cannot be read fails alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from service.contract.errors import ContractError
from service.contract.features import Float32s
from service.metrics import Metrics
from service.text_vectors import TextVectors


class CountingEncoder:
    """Gives each text its length, and cannot read one; `calls` are the texts of each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return (texts, 1)."""
        self.calls.append(list(texts))
        if "poison" in texts:
            raise ContractError("poison cannot be read")
        return np.array([[len(text)] for text in texts], np.float32)


@pytest.fixture
def encoder() -> CountingEncoder:
    """Return an encoder that was not asked yet."""
    return CountingEncoder()


@pytest.fixture
def metrics() -> Metrics:
    """Return figures of nothing."""
    return Metrics()


@pytest.fixture
async def texts(encoder: CountingEncoder, metrics: Metrics) -> AsyncIterator[TextVectors]:
    """Return what reads by the encoder, and keeps two."""
    reading = TextVectors(encoder, metrics, max_pending=8, max_kept=2)
    yield reading
    await reading.close()


async def test_a_text_that_is_wanted_again_is_not_read_again(
    texts: TextVectors, encoder: CountingEncoder, metrics: Metrics
) -> None:
    """Three times one text, twice at the same moment, is one call."""
    assert texts.known("tea") is None
    found = [*await asyncio.gather(texts.of("tea"), texts.of("tea")), await texts.of("tea")]
    assert [one.tolist() for one in found] == [[3], [3], [3]]
    assert encoder.calls == [["tea"]]
    scraped = metrics.render()[0].decode()
    assert 'sojourn_texts_total{result="encoder"} 1.0' in scraped
    assert 'sojourn_texts_total{result="kept"} 2.0' in scraped
    assert "sojourn_text_seconds_count 1.0" in scraped


async def test_texts_of_one_moment_share_a_call(
    texts: TextVectors, encoder: CountingEncoder
) -> None:
    """The first goes at once, those that come while it is read go together."""
    await asyncio.gather(*(texts.of(text) for text in ("a", "bb", "ccc")))
    assert sorted(text for call in encoder.calls for text in call) == ["a", "bb", "ccc"]
    assert len(encoder.calls) <= 2


async def test_a_text_that_cannot_be_read_fails_nobody_else(
    texts: TextVectors, encoder: CountingEncoder, metrics: Metrics
) -> None:
    """In the queue and beside it."""
    found = await texts.read(["tea", "poison", "tea"])
    assert {text: isinstance(one, ContractError) for text, one in found.items()} == {
        "tea": False,
        "poison": True,
    }
    results = await asyncio.gather(texts.of("a"), texts.of("poison"), return_exceptions=True)
    assert [type(one) for one in results] == [np.ndarray, ContractError]
    assert 'sojourn_texts_total{result="failed"} 2.0' in metrics.render()[0].decode()


async def test_what_was_wanted_the_longest_ago_goes_first(texts: TextVectors) -> None:
    """Two are kept here: `a` was asked for after `bb`."""
    for text in ("a", "bb", "a", "ccc"):
        await texts.of(text)
    assert [texts.known(text) is None for text in ("a", "bb", "ccc")] == [False, True, False]
