"""The real service, collector and Redis, watched by a real Prometheus: every panel shows something.

Times are shortened in a copy of the rules, so that a week is some seconds.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.builders import event_json
from tests.integration.collectors import HASTY, collecting
from tests.integration.processes import (
    LoggedProcess,
    free_port,
    seconds_until,
    serving,
    stop,
    valkey_at,
)
from tests.observability import files
from tests.programs import program

pytestmark = [pytest.mark.prometheus, pytest.mark.integration]

WINDOWS = {"$__rate_interval": "6s", "$__range": "30s"}
LONGEST_S = 14
WITHIN_S = 45.0
FAILS = {"SojournRedisBreakerOpen", "SojournRedisErrors", "SojournErrorBudgetFast"}


@dataclass
class Watched:
    """What runs: the service's client, the Prometheus that watches, and the Redis."""

    client: httpx.Client
    prometheus: httpx.Client
    valkey: LoggedProcess

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query that have a number."""
        answer = self.prometheus.get("/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", answer
        return [one for one in answer["data"]["result"] if one["value"][1] != "NaN"]

    def ask(self, number: int) -> None:
        """Do a little of all that callers do."""
        user = f"user-{number % 7}"
        event = event_json(user_id=user, event_id=f"{number}", item_id="action-1")
        event["timestamp"] = "2026-01-14T10:00:00Z"
        self.client.post("/v1/events", json={"events": [event, {"user_id": user}]})
        answer = self.client.get(f"/v1/users/{user}/recommendations").json()
        led = event | {
            "event_id": f"{number}-led",
            "recommendation_id": answer["recommendation_id"],
            "item_id": answer["items"][0]["item_id"],
        }
        for name in (user, "nobody", "nobody-2", user):
            self.client.get(f"/v1/users/{name}/recommendations")
        self.client.get(f"/v1/users/{user}/recommendations?k=0")
        self.client.post("/v1/events", json={"events": [led]})


def configuration(folder: Path, targets: dict[str, str]) -> Path:
    """Write a copy of the configuration, shortened, for these targets by job."""
    for path in files.RULES:
        text = re.sub(r"(interval|for): \d+[smh]", r"\1: 1s", path.read_text("utf-8"))
        (folder / path.name).write_text(files.shortened(text, LONGEST_S), "utf-8")
    document = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / path.name) for path in files.RULES],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


@pytest.fixture(scope="module")
def watched(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run all of it."""
    prometheus, folder = program("prometheus"), tmp_path_factory.mktemp("watched")
    redis_port, collector_port, own_port = free_port(), free_port(), free_port()
    url = f"redis://127.0.0.1:{redis_port}/0"
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOJOURN_DRIFT_EVERY", "1")
        valkey = stack.enter_context(valkey_at(redis_port, folder))
        _, client = stack.enter_context(serving(bundle_path, "--redis", url))
        options = ("--metrics-port", str(collector_port), *HASTY)
        stack.enter_context(collecting(url, folder / "collected", *options))
        targets = {
            "sojourn": f"127.0.0.1:{client.base_url.port}",
            "sojourn-collector": f"127.0.0.1:{collector_port}",
        }
        process = LoggedProcess(
            prometheus,
            f"--config.file={configuration(folder, targets)}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{own_port}",
        )
        stack.callback(stop, process)
        process.wait_for("ready to receive web requests")
        watching = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{own_port}"))
        yield Watched(client, watching, valkey)


def test_every_panel_shows_something_and_a_dead_redis_alarms(watched: Watched) -> None:
    """Under a small load; errors need a failure, so Redis is killed when all the rest is seen."""
    waiting = {expr: title for title, expr in files.queries()}
    need_errors = {expr for expr in waiting if 'status=~"5.."' in expr}
    stopping, asked = threading.Event(), [0]

    def load() -> None:
        while not stopping.wait(0.04):
            asked[0] += 1
            watched.ask(asked[0])

    def is_seen(exprs: set[str]) -> bool:
        for expr in exprs & waiting.keys():
            if watched.query(files.query_of(files.shortened(expr, LONGEST_S), WINDOWS)):
                del waiting[expr]
        return not exprs & waiting.keys()

    caller = threading.Thread(target=load)
    caller.start()
    try:
        others = set(waiting) - need_errors
        try:
            seconds_until(lambda: is_seen(others), WITHIN_S)
        except AssertionError:
            pytest.fail(f"panels without data: {json.dumps(waiting, indent=1)}")
    finally:
        stopping.set()
        caller.join()
    watched.valkey.popen.kill()
    event = event_json(user_id="anna")

    def alarms() -> bool:
        answer = watched.client.post("/v1/events", json={"events": [event]})
        assert answer.status_code == 503
        is_seen(need_errors)
        firing = watched.query('ALERTS{alertstate="firing"}')
        return {one["metric"]["alertname"] for one in firing} >= FAILS and not waiting

    seconds_until(alarms, WITHIN_S)
