"""A load generator of our own: constant arrival rate, and closed loop where wrk is missing.

One thread, `select` and raw HTTP/1.1 on connections that are kept alive. Waits of `select` are
exact to tens of microseconds, where the timers of event loops count milliseconds.
"""

import gc
import random
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator

from benchmarks.serving.requests import STAMP, BenchmarkFailed, Load, Request
from benchmarks.serving.statistics import Arrivals

ANSWER_WITHIN_S = 15.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Connection:
    """One kept-alive connection with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.request = 0

    def fileno(self) -> int:
        """Return what `select` wants."""
        return self._socket.fileno()

    def send(self, raw: bytes, number: int) -> None:
        """Send a request, which the caller knows by its number."""
        self.request = number
        self._socket.sendall(raw)

    def receive(self) -> bytes | None:
        """Return the answer once it is whole; call it when there is something to read."""
        got = self._socket.recv(1 << 20)
        if not got:
            raise BenchmarkFailed("the server closed a connection")
        self._received += got
        answer = self._received
        if not is_whole(answer):
            return None
        self._received = b""
        return answer

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def is_whole(answer: bytes) -> bool:
    """Say whether all of an answer is there; raises BenchmarkFailed if it has no length."""
    head_end = answer.find(_HEAD_END)
    if head_end < 0:
        return False
    head = answer[:head_end].lower()
    at = head.find(_LENGTH)
    if at < 0:
        raise BenchmarkFailed(f"an answer without a length: {answer[:200]!r}")
    length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
    return len(answer) >= head_end + len(_HEAD_END) + length


def check(answer: bytes, expected: bytes) -> None:
    """Raise BenchmarkFailed unless an answer is a 200 with the text that right ones hold."""
    if not answer.startswith(b"HTTP/1.1 200 ") or expected not in answer:
        raise BenchmarkFailed(f"a wrong answer: {answer[:600]!r}")


def randomly(load: Load, first_ms: int, seed: int = 1) -> Iterator[bytes]:
    """Yield the bytes of random requests of a load for ever, with times from `first_ms` on."""
    chooser = random.Random(seed)  # noqa: S311 - repeatable
    raw = [request.raw() for request in load.requests]
    stamp, now_ms, is_stamped = STAMP.encode(), first_ms, load.is_stamped
    while True:
        chosen = chooser.choice(raw)
        if is_stamped:
            now_ms += 1
            chosen = chosen.replace(stamp, b"%d" % now_ms)
        yield chosen


def closed_loop(
    port: int, requests: Iterator[bytes], expected: str, *, connections: int, seconds: float
) -> float:
    """Return the answers per second while each connection sends as soon as it was answered.

    Ends with the time or with the requests; every answer is checked and waited for.
    """
    opened = [Connection(port) for _ in range(connections)]
    text, answered = expected.encode(), 0
    try:
        started = time.perf_counter()
        busy = [one for one in opened if _send_next(one, requests)]
        while busy:
            ready = select.select(busy, [], [], ANSWER_WITHIN_S)[0]
            if not ready:
                raise BenchmarkFailed(f"no answer within {ANSWER_WITHIN_S:g} s")
            for connection in ready:
                answer = connection.receive()
                if answer is None:
                    continue
                check(answer, text)
                answered += 1
                is_over = time.perf_counter() - started >= seconds
                if is_over or not _send_next(connection, requests):
                    busy.remove(connection)
        return answered / (time.perf_counter() - started)
    finally:
        for connection in opened:
            connection.close()


def send_all(port: int, requests: Iterable[Request], expected: str, connections: int) -> None:
    """Send each request once; raises BenchmarkFailed for a wrong answer."""
    raw = (request.raw() for request in requests)
    closed_loop(port, raw, expected, connections=connections, seconds=float("inf"))


def _send_next(connection: Connection, requests: Iterator[bytes]) -> bool:
    raw = next(requests, None)
    if raw is None:
        return False
    connection.send(raw, 0)
    return True


def open_loop(port: int, load: Load, *, rate: float, seconds: float, connections: int) -> Arrivals:
    """Send requests at a constant rate, whatever the answers take; return when all happened.

    A request that finds no free connection waits for one, and its time runs meanwhile.
    """
    count = int(rate * seconds)
    requests = [raw for raw, _ in zip(randomly(load, 0), range(count), strict=False)]
    opened = [Connection(port) for _ in range(connections)]
    gc.collect()
    gc.disable()
    try:
        return _arrivals(opened, requests, rate, load.expected.encode())
    finally:
        gc.enable()
        for connection in opened:
            connection.close()


def _arrivals(
    opened: list[Connection], requests: list[bytes], rate: float, expected: bytes
) -> Arrivals:
    clock, count = time.perf_counter, len(requests)
    start = clock() + 0.01
    due = [start + place / rate for place in range(count)]
    sent, answered = [0.0] * count, [0.0] * count
    free, busy = deque(opened), set[Connection]()
    following, num_answered = 0, 0
    while num_answered < count:
        while free and following < count and due[following] <= clock():
            connection = free.popleft()
            sent[following] = clock()
            connection.send(requests[following], following)
            busy.add(connection)
            following += 1
        is_next_due = bool(free) and following < count
        wait_s = due[following] - clock() if is_next_due else ANSWER_WITHIN_S
        ready = select.select(busy, [], [], max(0.0, wait_s))[0]
        if not ready and not is_next_due:
            raise BenchmarkFailed(f"no answer within {ANSWER_WITHIN_S:g} s")
        now = clock()
        for connection in ready:
            answer = connection.receive()
            if answer is not None:
                answered[connection.request] = now
                check(answer, expected)
                busy.remove(connection)
                free.append(connection)
                num_answered += 1
    return Arrivals(due, sent, answered)
