"""What is asked: requests as lines of a file that wrk and the generator here both read."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NUM_STAMP_DIGITS = 13
# Stands for a time in a body; as long as the time that takes its place, so lengths hold.
STAMP = "@" * NUM_STAMP_DIGITS


class BenchmarkFailed(Exception):
    """Something did not run as it has to, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; a STAMP in its body becomes a time that no other request has."""

    path: str
    body: str = ""

    def line(self) -> str:
        """Return the request as a line of a file: path, tab, body."""
        return f"{self.path}\t{self.body}\n"

    def raw(self) -> bytes:
        """Return the bytes of HTTP/1.1, kept alive."""
        head = f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if self.body:
            length = len(self.body.encode())
            head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
        return (head + "\r\n" + self.body).encode()


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to choose from at random, and the text that every right answer holds."""

    requests: Sequence[Request]
    expected: str

    @property
    def is_stamped(self) -> bool:
        """Say whether its requests take a time each."""
        return STAMP in self.requests[0].body


def post(path: str, document: Any) -> Request:
    """Return a POST of a JSON document, in which the text STAMP becomes a number."""
    body = json.dumps(document, separators=(",", ":"))
    return Request(path, body.replace(f'"{STAMP}"', STAMP))


class Stamps:
    """Times for new events, ms since 1970, each given out once; they begin half an hour ago."""

    def __init__(self) -> None:
        self._next_ms = time.time_ns() // 1_000_000 - 1_800_000

    def take(self, count: int) -> int:
        """Return the first of `count` times in a row."""
        first = self._next_ms
        self._next_ms += count
        return first
