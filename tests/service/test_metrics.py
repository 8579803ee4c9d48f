import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.metrics import SHARED_DIR_VARIABLE, Metrics, shared_between_workers

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from service.metrics import Metrics
metrics = Metrics()
for _ in range(int(sys.argv[1])):
    metrics.events.labels("accepted").inc()
    metrics.request_seconds.labels("/v1/events", "POST", "202").observe(0.002)
    metrics.queue("ranker").batch_size.observe(2)
metrics.unhandled_errors.inc()
metrics.model_behind.set(1)
metrics.set_bundle("0" * 16, "old")
metrics.set_bundle("1" * 16, "tiny")
sys.stdout.write(metrics.render()[0].decode())
"""


def samples(text: str) -> dict[str, float]:
    """Read a scrape: each sample's name with labels, and its value."""
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def run_worker(num_events: int) -> dict[str, float]:
    """Run a worker process to its end and return what its last scrape said."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(num_events)],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    return samples(done.stdout)


def test_a_scrape_of_one_worker_sums_all_workers() -> None:
    """A scrape reaches one of them, by chance; 3 + 4 events must be 7 there."""
    with shared_between_workers():
        run_worker(3)
        scraped = run_worker(4)
    labels = 'method="POST",route="/v1/events",status="202"'
    assert scraped['sojourn_events_total{status="accepted"}'] == 7
    assert scraped[f"sojourn_request_seconds_count{{{labels}}}"] == 7
    assert scraped[f"sojourn_request_seconds_sum{{{labels}}}"] == pytest.approx(7 * 0.002)
    assert scraped['sojourn_batch_size_sum{queue="ranker"}'] == 14
    assert scraped["sojourn_unhandled_errors_total"] == 2


def test_a_worker_that_is_gone_is_behind_no_more() -> None:
    """Its counts stay, but it cannot serve a wrong model."""
    with shared_between_workers():
        run_worker(0)
        assert run_worker(0)["sojourn_model_behind"] == 1


def test_the_bundle_is_told_once_however_many_workers_serve_it() -> None:
    """Two workers with one bundle are one bundle: 1, without a process id."""
    with shared_between_workers():
        run_worker(0)
        scraped = run_worker(0)
    assert scraped[f'sojourn_bundle_info{{name="tiny",version="{"1" * 16}"}}'] == 1
    assert [name for name in scraped if name.startswith("sojourn_bundle_info")] == [
        f'sojourn_bundle_info{{name="tiny",version="{"1" * 16}"}}'
    ]
    assert not [name for name in scraped if "pid=" in name]


def test_the_shared_directory_is_new_each_time_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the last run would be counted again."""
    monkeypatch.delenv(SHARED_DIR_VARIABLE, raising=False)
    with shared_between_workers():
        first = Path(os.environ[SHARED_DIR_VARIABLE])
        assert first.is_dir()
    with shared_between_workers():
        assert Path(os.environ[SHARED_DIR_VARIABLE]) != first
    assert SHARED_DIR_VARIABLE not in os.environ
    assert not first.exists()


def test_two_sets_of_metrics_do_not_share_numbers() -> None:
    """Nothing is registered globally, so tests and apps in one process stay apart."""
    one, other = Metrics(), Metrics()
    one.redis_errors.labels("read").inc()
    name = 'sojourn_redis_errors_total{operation="read"}'
    assert samples(one.render()[0].decode())[name] == 1
    assert samples(other.render()[0].decode())[name] == 0


def test_a_new_bundle_takes_over_from_the_old() -> None:
    """Exactly one bundle is shown, so a dashboard can name it."""
    metrics = Metrics()
    metrics.set_bundle("a" * 16, "monday")
    metrics.set_bundle("b" * 16, "tuesday")
    text, content_type = metrics.render()
    shown = samples(text.decode())
    assert f'sojourn_bundle_info{{name="monday",version="{"a" * 16}"}}' not in shown
    assert shown[f'sojourn_bundle_info{{name="tuesday",version="{"b" * 16}"}}'] == 1
    assert content_type.startswith("text/plain")


def test_redis_errors_are_there_before_the_first_one() -> None:
    """A rate over a series that appears with its first error misses that error."""
    shown = samples(Metrics().render()[0].decode())
    operations = ("append", "ping", "popular", "prepare", "read")
    for operation in operations:
        assert shown[f'sojourn_redis_errors_total{{operation="{operation}"}}'] == 0.0
