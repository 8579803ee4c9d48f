"""The sender of an event loop keeps the same promises."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sojourn_client import (
    AsyncEventSender,
    Event,
    NotDelivered,
    QueueFull,
    SenderClosed,
    SenderCounts,
)
from tests.client.answering import DOWN, LOST, Answering, event, opened
from tests.client.test_sender import numbered, quick, sent_ids
from tests.integration.processes import ROOT


async def send_all(sender: AsyncEventSender, events: list[Event]) -> None:
    """Send events one after the other."""
    for one in events:
        await sender.send(one)


async def test_everything_is_there_when_the_block_ends() -> None:
    """With failures on the way, once each, in order."""
    service, events = Answering(LOST, DOWN), numbered(500)
    async with (
        service.async_sojourn() as client,
        AsyncEventSender(client, quick(batch_size=100)) as sender,
    ):
        await send_all(sender, events)
    assert sent_ids(service) == [one.event_id for one in events]
    assert sender.counts == SenderCounts(queued=500, accepted=500, failures=2)


async def test_a_flush_waits_and_tells_what_is_left() -> None:
    """While the service is away nothing is delivered, and nothing lost."""
    service = Answering(default=DOWN)
    async with service.async_sojourn() as client, AsyncEventSender(client, quick()) as sender:
        await sender.send(event())
        with pytest.raises(NotDelivered, match="1 events"):
            await sender.flush(0.05)
        service.default = None
        await sender.flush(10)
        assert len(service.stored) == 1


async def test_a_full_queue_makes_the_caller_wait_and_then_says_so() -> None:
    """As the other sender does."""
    service = Answering(default=DOWN)
    options = quick(batch_size=1, max_queue=1, put_timeout_s=0.05)
    async with service.async_sojourn() as client, AsyncEventSender(client, options) as sender:
        await sender.send(event(1))
        with pytest.raises(QueueFull):
            await sender.send(event(2))
        service.default = None
        await sender.send(event(3))
    assert len(service.stored) == 2


async def test_what_cannot_be_delivered_is_spooled_and_sent_by_the_next(tmp_path: Path) -> None:
    """A call that hangs is given up when the grace is over."""
    options, events = quick(spool_path=tmp_path / "spool"), numbered(3)

    async def hang(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        Answering().async_sojourn(transport=httpx.MockTransport(hang)) as client,
        AsyncEventSender(client, options) as sender,
    ):
        await send_all(sender, events)
        await sender.close(grace_s=0.05)
        with pytest.raises(SenderClosed):
            await sender.send(event())
    service = Answering()
    async with service.async_sojourn() as client, AsyncEventSender(client, options) as sender:
        await sender.flush(10)
    assert sent_ids(service) == [one.event_id for one in events]
    assert not (tmp_path / "spool").exists()


async def test_a_task_that_is_cancelled_delivers_on_its_way_out() -> None:
    """So ends a program of asyncio at Ctrl-C."""
    service = Answering()
    sent = asyncio.Event()

    async def work() -> None:
        async with (
            service.async_sojourn() as client,
            AsyncEventSender(client, quick(max_age_s=60)) as sender,
        ):
            await sender.send(event())
            sent.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(service.stored) == 1


def test_a_sender_that_was_never_opened_leaves_the_spool_alone(tmp_path: Path) -> None:
    """It has not read it, so it must not write it."""
    with opened(tmp_path / "spool") as spool:
        spool.write([event()])
    sender = AsyncEventSender(Answering().async_sojourn(), quick(spool_path=spool.path))
    asyncio.run(sender.close())
    assert spool.path.exists()


PROGRAM = """
import asyncio, sys
from sojourn_client import AsyncEventSender, AsyncSojourn, SenderOptions
from tests.client.answering import event

async def main():
    options = SenderOptions(spool_path=sys.argv[1], max_age_s=60)
    sender = await AsyncEventSender(AsyncSojourn("http://127.0.0.1:1"), options).__aenter__()
    await sender.send(event())
    return sender

sender = asyncio.run(main())
"""


def test_a_program_that_forgot_the_block_spools_at_its_exit(tmp_path: Path) -> None:
    """There is no loop to deliver anything then."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "spool")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    with opened(tmp_path / "spool") as spool:
        assert len(spool.read().events) == 1


FORKING = """
import os
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    print(os.path.exists(sys.argv[1]))
"""


def test_a_child_of_a_fork_writes_nothing_at_its_exit(tmp_path: Path) -> None:
    """The parent has the events and may still deliver them; then the child's would come again."""
    command = [sys.executable, "-c", PROGRAM + FORKING, str(tmp_path / "spool")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"False\n"
