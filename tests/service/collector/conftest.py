"""Collectors whose folders are freed when the test ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.service.collector.builders import FakeStreams, Running


class Start(Protocol):
    """Starts a collector on the test's folder."""

    def __call__(self, streams: FakeStreams, **options: Any) -> Running:
        """Return the collector."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a collector."""
    running: list[Running] = []

    def begin(streams: FakeStreams, **options: Any) -> Running:
        running.append(Running(streams, tmp_path, **options))
        return running[-1]

    yield begin
    for one in running:
        one.folder.close()
