"""The client against real service processes and a real Valkey: nothing is doubled, nothing lost."""

import asyncio
import inspect
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from sojourn_client import (
    AsyncSojourn,
    Event,
    EventSender,
    InvalidRequest,
    NotFound,
    Retries,
    SenderOptions,
    Sojourn,
)
from tests.fakes import NOON_MS
from tests.integration.processes import ADDRESS, ROOT, LoggedProcess, start_service, stop
from tests.integration.proxies import proxy_to

pytestmark = pytest.mark.integration

NOW = "2026-01-14T12:00:00+00:00"
PATIENT = Retries(attempts=50, base_s=0.01, cap_s=0.05, deadline_s=60, budget=1_000)


@pytest.fixture
def user_id() -> str:
    """Return a user of nobody else: the tests share one Redis. The slash is part of the id."""
    return f"anna/{uuid.uuid4().hex}"


@contextmanager
def service_at(port: int, bundle: Path, redis_url: str) -> Iterator[LoggedProcess]:
    """Run a service at a port, on a Redis that outlives it."""
    # The last of two equal options counts.
    process = start_service(bundle, "--redis", redis_url, "--port", str(port))
    try:
        process.wait_for(ADDRESS)
        yield process
    finally:
        stop(process)


@pytest.fixture
def port(free_port: int, bundle_path: Path, store_url: str, tmp_path: Path) -> Iterator[int]:
    """Return the port of a running service, whose folder of bundles has one."""
    shutil.copytree(bundle_path, tmp_path / "bundles" / "tiny")
    with service_at(free_port, tmp_path / "bundles" / "tiny", store_url):
        yield free_port


class Awaited:
    """The asynchronous client with the other's methods, so that one test asks both."""

    def __init__(self, base_url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncSojourn(base_url)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method that waits for the answer."""
        method = getattr(self._client, name)

        def call(*arguments: object, **named: object) -> Any:
            found = method(*arguments, **named)
            work = listed(found) if inspect.isasyncgen(found) else found
            return self._runner.run(work)

        return call

    def close(self) -> None:
        """End the client and its loop."""
        self._runner.run(self._client.close())
        self._runner.close()


async def listed(pages: AsyncIterator[Any]) -> list[Any]:
    """Return everything that an iterator yields."""
    return [page async for page in pages]


@pytest.fixture(params=[Sojourn, Awaited])
def client(request: pytest.FixtureRequest, port: int) -> Iterator[Sojourn]:
    """Return each of the two clients."""
    made = request.param(f"http://127.0.0.1:{port}")
    yield cast("Sojourn", made)
    made.close()


def numbered(count: int, user_id: str) -> list[Event]:
    """Return so many events of one user, a second apart."""
    return [
        Event(
            user_id=user_id,
            item_id="action-1",
            event_type="view",
            timestamp=NOON_MS - 1_000_000 + number * 1_000,
        )
        for number in range(count)
    ]


def test_a_real_explanation_is_read(client: Sojourn, user_id: str) -> None:
    """By both calls, with what this service's model cannot tell."""
    client.post_events(numbered(1, user_id))
    explained = client.recommend(
        user_id=user_id, now=NOW, explain=True, attention=True, exclude_seen="none"
    )
    whole, [best, *_] = explained.explanation, explained.items
    assert whole is not None
    assert best.explanation is not None
    assert [event.item_id for event in whole.history] == ["action-1"]
    assert (whole.num_events, whole.attention, whole.unknown) == (1, None, ("attention",))
    assert sum(best.explanation.shares.values()) == pytest.approx(best.score, abs=1e-5)
    assert best.explanation.because[0].item_id == "action-1"
    assert best.reason is not None
    assert best.reason.startswith("Because you viewed")
    short = client.recommendations(user_id, now=NOW, explain=True, exclude_seen="none")
    assert short.explanation is not None
    assert short.explanation.history == whole.history


def test_every_method_understands_a_real_service(client: Sojourn, user_id: str) -> None:
    """What the mock answers is what we think; this is what the service says."""
    posted = client.post_events(numbered(3, user_id))
    assert (posted.accepted, posted.results[0].status) == (3, "accepted")
    assert client.user_events(user_id, limit=2).next_cursor is not None
    assert client.get_user(user_id).num_events == 3
    assert client.recommendations(user_id, k=2, now=NOW, exclude_seen="none").source == "model"
    pages = list(client.pages(user_id=user_id, k=2, now=NOW, exclude_seen="none"))
    ids = [item.item_id for page in pages for item in page.items]
    assert len(set(ids)) == len(ids) > 2
    asked: dict[str, Any] = {"diversity": {"strength": 0.3}, "exploration": {"share": 1, "seed": 7}}
    found = client.recommend(user_id=user_id, now=NOW, candidates=["action-1", "new"], **asked)
    assert found.unknown_candidates == ("new",)
    assert found.items[0].propensity is not None
    ranked = client.rank(
        [
            {"item_id": "action-1", "features": {"margin": 1}},
            {"item_id": "drama-1", "features": {"margin": 0}},
        ],
        blend=[{"feature": "features.margin", "weight": 1}],
        explain=True,
    )
    assert ranked.items[0].parts == {"features.margin": 1.0}
    assert client.similar("action-1", k=1).items[0].source == "similar"
    assert client.put_item("a/b", title="Here", released_at=NOW).title == "Here"
    assert client.post_items([{"item_id": "a/b", "available": False}]).accepted == 1
    assert client.get_item("a/b").available is False
    client.delete_item("a/b")
    with pytest.raises(NotFound, match="unknown-item"):
        client.get_item("a/b")
    with pytest.raises(InvalidRequest) as caught:
        client.recommend(user_id="anna", k=0)
    assert [error.field for error in caught.value.errors] == ["k"]
    other_id = f"{user_id}/.."
    assert client.merge_users(user_id, other_id).events == 3
    assert len(client.user_events(other_id).events) == 3
    assert client.erase_user(other_id).events == 3
    assert client.get_user(other_id).events == ()
    assert client.user_events("..").user_id == ".."
    health = client.health()
    models = client.models()
    assert health.is_ready
    assert health.model_version == models.serving
    assert client.activate(models.serving).active == models.serving
    with pytest.raises(NotFound, match="unknown-model"):
        client.activate("0" * 16)


def test_answers_that_are_lost_after_the_events_were_stored_double_nothing(
    port: int, user_id: str
) -> None:
    """Ten times the service has stored a batch and the client does not learn of it."""
    events = numbered(100, user_id)
    with proxy_to(port) as proxy, Sojourn(f"http://127.0.0.1:{proxy.port}", retries=PATIENT) as it:
        for batch in range(10):
            proxy.num_to_drop = 1
            answer = it.post_events(events[batch * 10 : batch * 10 + 10])
            # The second try finds what the first has stored.
            assert (answer.accepted, answer.duplicates) == (0, 10)
        assert proxy.num_to_drop == 0
        assert it.get_user(user_id).num_events == 100


def test_a_sender_loses_and_doubles_nothing_while_answers_are_lost(port: int, user_id: str) -> None:
    """The background sender through the same proxy: every third answer is gone."""
    with proxy_to(port) as proxy, Sojourn(f"http://127.0.0.1:{proxy.port}") as client:
        options = SenderOptions(batch_size=10, max_age_s=0.01, base_s=0.01, cap_s=0.02)
        with EventSender(client, options) as sender:
            for number, event in enumerate(numbered(150, user_id)):
                if number % 30 == 0:
                    proxy.num_to_drop += 1
                sender.send(event)
        counts = sender.counts
        assert client.get_user(user_id).num_events == 150
    assert counts.accepted + counts.duplicates == 150
    assert counts.failures >= 1
    assert counts.duplicates >= 1


def test_a_service_that_is_killed_while_events_are_sent_has_each_of_them_once(
    free_port: int, bundle_path: Path, store_url: str, tmp_path: Path, user_id: str
) -> None:
    """SIGKILL amid the stream, a start again, SIGKILL, and a sender that ends while it is away."""
    options = SenderOptions(
        batch_size=5,
        max_age_s=0.01,
        base_s=0.01,
        cap_s=0.1,
        grace_s=0.3,
        spool_path=tmp_path / "spool",
    )
    events = numbered(190, user_id)
    with Sojourn(f"http://127.0.0.1:{free_port}") as client:
        sender = EventSender(client, options)
        with service_at(free_port, bundle_path, store_url) as process:
            for event in events[:60]:
                sender.send(event)
            process.popen.kill()
        for event in events[60:120]:
            sender.send(event)
        with service_at(free_port, bundle_path, store_url) as process:
            for event in events[120:180]:
                sender.send(event)
            sender.flush(30)
            process.popen.kill()
        for event in events[180:]:
            sender.send(event)
        sender.close()
        assert sender.counts.spooled == 10
        with service_at(free_port, bundle_path, store_url):
            with EventSender(client, options) as after:
                after.flush(30)
            held = client.get_user(user_id)
    assert after.counts.restored == 10
    assert held.num_events == len(events)
    # The stream has an entry for each stored event, and would show a second one of the same.
    ids = [entry["payload"].get("event_id") for entry in held.stream if entry["field"] == "event"]
    assert len(ids) == len(set(ids)) == len(events)


def test_the_example_of_the_documentation_runs(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block of docs/client.md, one after the other, as a reader types them."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "client.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    code = "\n".join(blocks).replace("http://localhost:8000", f"http://127.0.0.1:{port}")
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "docs/client.md", "exec"), names)  # noqa: S102  # our own page
    assert "accepted" in capsys.readouterr().out
