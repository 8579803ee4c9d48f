"""The background sender: what it takes is delivered, rejected, spooled, or told; never lost."""

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from sojourn_client import (
    Event,
    EventSender,
    FieldProblem,
    NotDelivered,
    QueueFull,
    SenderClosed,
    SenderCounts,
    SenderForked,
    SenderOptions,
    SojournError,
    SpoolDamaged,
)
from sojourn_client.spool import line_of
from tests.client.answering import DOWN, LOST, Answering, Reply, event, opened, problem
from tests.integration.processes import ROOT, seconds_until


def quick(**options: Any) -> SenderOptions:
    """Return options of a sender that does not wait long for anything."""
    return SenderOptions(**({"base_s": 0.001, "cap_s": 0.01, "max_age_s": 0.01} | options))


def numbered(count: int) -> list[Event]:
    """Return so many events."""
    return [event(number) for number in range(count)]


def sent_ids(service: Answering) -> list[str]:
    """Return the ids of what the service has, in the order of arrival."""
    return list(service.stored)


def test_what_was_sent_is_there_when_the_block_ends_in_batches_and_in_order() -> None:
    """1,000 events in batches of at most 300 are at least four calls, and far fewer than 1,000."""
    service, events = Answering(), numbered(1_000)
    options = quick(batch_size=300, max_age_s=5)
    with service.sojourn() as client, EventSender(client, options) as sender:
        for one in events:
            sender.send(one)
    assert sent_ids(service) == [one.event_id for one in events]
    assert len(service.requests) == 4
    assert sender.counts == SenderCounts(queued=1_000, accepted=1_000)


def test_an_event_waits_for_others_no_longer_than_said() -> None:
    """A quiet shop's events arrive too, without a flush."""
    service = Answering()
    with service.sojourn() as client, EventSender(client, quick(batch_size=100)) as sender:
        sender.send(event())
        seconds_until(lambda: len(service.stored) == 1)
        assert sender.counts.pending <= 1


def test_failures_are_tried_again_until_the_service_answers() -> None:
    """Lost answers, a service that is away, one that is busy, a key that is renewed: none loses."""
    failures: list[Reply] = [
        LOST,
        DOWN,
        problem(503, "overloaded", retry_after=0),
        problem(401, "unauthenticated"),
    ]
    told: list[Exception] = []
    service, events = Answering(*failures), numbered(5)
    options = quick(on_error=told.append)
    with service.sojourn() as client, EventSender(client, options) as sender:
        for one in events:
            sender.send(one)
        sender.flush(10)
        assert sender.counts.failures == len(told) == 4
    assert sent_ids(service) == [one.event_id for one in events]


def test_an_answer_that_was_lost_makes_a_duplicate_and_no_second_event() -> None:
    """The ids are the client's, so the service knows them."""
    service = Answering()
    events = numbered(3)
    with service.sojourn() as client:
        client.post_events(events[:1])
        with EventSender(client, quick()) as sender:
            for one in events:
                sender.send(one)
    assert (sender.counts.accepted, sender.counts.duplicates) == (2, 1)


def test_each_rejected_event_is_told_with_its_reason() -> None:
    """The others are stored."""
    told: list[tuple[Event, FieldProblem]] = []
    wrong = event(2, event_type="wrong")
    options = quick(on_rejected=lambda one, why: told.append((one, why)))
    service = Answering()
    with service.sojourn() as client, EventSender(client, options) as sender:
        for one in (event(1), wrong, event(3)):
            sender.send(one)
    assert [(one, why.field) for one, why in told] == [(wrong, "event_type")]
    assert (sender.counts.accepted, sender.counts.rejected) == (2, 1)


def test_an_event_that_spoils_its_batch_is_found_and_the_others_are_stored() -> None:
    """A batch that is refused whole is halved until the one at fault is alone."""

    class Choosy(Answering):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            answer = super().__call__(request)
            if b"poison" not in request.content:
                return answer
            self.stored.clear()
            return problem(413, "body-too-large")

    told: list[Event] = []
    options = quick(batch_size=8, max_age_s=5, on_rejected=lambda one, _why: told.append(one))
    service, poison = Choosy(), event(5, item_id="poison")
    events = [*numbered(5), poison, event(6), event(7)]
    with service.sojourn() as client, EventSender(client, options) as sender:
        for one in events:
            sender.send(one)
    assert told == [poison]
    assert (sender.counts.accepted, sender.counts.rejected) == (7, 1)


def test_a_full_queue_makes_the_caller_wait_and_then_says_so() -> None:
    """Nothing is dropped in silence: what was not taken was refused to its sender's face."""
    service = Answering()
    service.gate.clear()
    options = quick(batch_size=2, max_queue=2, put_timeout_s=0.05)
    with service.sojourn() as client, EventSender(client, options) as sender:
        sender.send(event(1))
        sender.send(event(2))
        with pytest.raises(QueueFull, match="2 events"):
            sender.send(event(3))
        threading.Timer(0.01, service.gate.set).start()
        patient = event(4)
        seconds_until(lambda: sender.counts.pending < 2)
        sender.send(patient)
    assert len(service.stored) == 3
    assert patient.event_id in service.stored


def test_flush_waits_for_what_was_taken_and_says_what_is_left() -> None:
    """A batch job wants to know before it reports success."""
    service = Answering()
    service.gate.clear()
    with service.sojourn() as client, EventSender(client, quick(max_age_s=60)) as sender:
        sender.send(event())
        with pytest.raises(NotDelivered, match="1 events are not delivered yet"):
            sender.flush(0.05)
        service.gate.set()
        sender.flush(10)
        assert len(service.stored) == 1


def test_what_cannot_be_delivered_is_spooled_and_sent_by_the_next_start(tmp_path: Path) -> None:
    """In its order, before what is new; then the file is gone."""
    spool, events = tmp_path / "spool", numbered(5)
    down = Answering(default=DOWN)
    with down.sojourn() as client:
        sender = EventSender(client, quick(spool_path=spool))
        for one in events[:3]:
            sender.send(one)
        sender.close(grace_s=0.05)
    assert sender.counts.spooled == 3
    service = Answering()
    with service.sojourn() as client, EventSender(client, quick(spool_path=spool)) as sender:
        for one in events[3:]:
            sender.send(one)
    assert sent_ids(service) == [one.event_id for one in events]
    assert (sender.counts.restored, sender.counts.accepted) == (3, 5)
    assert not spool.exists()


def test_a_call_that_hangs_at_the_end_is_spooled_too(tmp_path: Path) -> None:
    """Nobody knows whether it was done; its ids make that no matter."""
    service = Answering()
    service.gate.clear()
    with service.sojourn() as client:
        sender = EventSender(client, quick(spool_path=tmp_path / "spool"))
        sender.send(event())
        seconds_until(lambda: len(service.requests) == 1)
        sender.close(grace_s=0.05)
        service.gate.set()
    assert sender.counts.spooled == 1
    with opened(tmp_path / "spool") as spool:
        assert len(spool.read().events) == 1


def test_without_a_spool_the_events_are_handed_back() -> None:
    """The caller may still save them."""
    with Answering(default=DOWN).sojourn() as client:
        sender = EventSender(client, quick())
        one = event()
        sender.send(one)
        with pytest.raises(NotDelivered, match="1 events could not be delivered") as caught:
            sender.close(grace_s=0.05)
    assert caught.value.events == (one,)


def test_damaged_lines_of_the_spool_are_told_and_counted(tmp_path: Path) -> None:
    """The rest is sent."""
    spool = tmp_path / "spool"
    spool.write_bytes(line_of(event(1)) + b"00000000 {}\n" + line_of(event(2)))
    told: list[Exception] = []
    service = Answering()
    options = quick(spool_path=spool, on_error=told.append)
    with service.sojourn() as client, EventSender(client, options) as sender:
        sender.flush(10)
    assert len(service.stored) == 2
    assert [type(one) for one in told] == [SpoolDamaged]
    assert sender.counts.damaged == 1
    assert spool.with_name("spool.damaged").read_bytes() == b"00000000 {}\n"


def test_a_callback_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It runs in the sender's thread, whose end would hold up every event after it."""

    def raising(_error: Exception) -> None:
        raise RuntimeError("the caller's bug")

    service = Answering(DOWN)
    options = quick(on_error=raising)
    with service.sojourn() as client, EventSender(client, options) as sender:
        sender.send(event())
        sender.flush(10)
    assert len(service.stored) == 1
    assert "the caller's bug" in caplog.text


def test_a_closed_sender_takes_nothing_and_closes_once() -> None:
    """What it cannot deliver it must not take."""
    with Answering().sojourn() as client:
        sender = EventSender(client, quick())
        sender.close()
        sender.close()
        with pytest.raises(SenderClosed):
            sender.send(event())


def in_a_child(sender: EventSender, answer: Any) -> None:
    """Say what sending and closing do in the child of a fork."""
    try:
        sender.send(event())
    except SojournError as exc:
        answer.put(type(exc).__name__)
    sender.close()


# Python warns of a fork beside threads; that is the case here.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_fork_is_told_to_make_its_own() -> None:
    """Its copy has no thread, and the parent sends what is in the queue."""
    forking = multiprocessing.get_context("fork")
    service = Answering()
    answer = forking.Queue()
    with service.sojourn() as client, EventSender(client, quick(max_age_s=60)) as sender:
        sender.send(event())
        child = forking.Process(target=in_a_child, args=(sender, answer))
        child.start()
        assert answer.get(timeout=10) == SenderForked.__name__
        child.join(10)
        assert child.exitcode == 0
        assert sender.counts.pending == 1
    assert len(service.stored) == 1


PROGRAM = """
import sys, threading
from sojourn_client import EventSender, SenderOptions, Sojourn, exit_on_sigterm
from tests.client.answering import event
assert exit_on_sigterm()
options = SenderOptions(spool_path=sys.argv[1], grace_s=0.2, max_age_s=60)
# Nothing listens at port 1 of this machine.
sender = EventSender(Sojourn("http://127.0.0.1:1"), options)
for number in range(20):
    sender.send(event(number))
print("sent", flush=True)
{ending}
"""


@contextmanager
def sending(spool: Path, ending: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run the program with an ending of its own; yield it and what it says."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(ending=ending), str(spool)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout


def test_a_second_signal_ends_the_grace_and_loses_nothing(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice, or an init that is in a hurry, still gets a spool."""
    ending = "print('ending', flush=True)\nsender.close(grace_s=60)"
    with sending(tmp_path / "spool", ending) as (process, said):
        assert [said.readline() for _ in range(2)] == [b"sent\n", b"ending\n"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    with opened(tmp_path / "spool") as left:
        assert len(left.read().events) == 20


@pytest.mark.parametrize(
    ("ending", "signal_number", "code"),
    [
        ("", None, 0),
        ("raise SystemExit(3)", None, 3),
        ("threading.Event().wait(60)", signal.SIGTERM, 143),
        ("threading.Event().wait(60)", signal.SIGINT, -signal.SIGINT),
    ],
    ids=["end", "exit", "sigterm", "ctrl-c"],
)
def test_a_program_that_ends_loses_nothing(
    ending: str, signal_number: int | None, code: int, tmp_path: Path
) -> None:
    """However it ends, SIGKILL apart: no block was left and nobody called close."""
    spool = tmp_path / "spool"
    with sending(spool, ending) as (process, said):
        assert said.readline() == b"sent\n"
        if signal_number is not None:
            process.send_signal(signal_number)
        assert process.wait(30) == code
    with opened(spool) as left:
        found = left.read()
    assert [one.item_id for one in found.events] == [f"item-{number}" for number in range(20)]
