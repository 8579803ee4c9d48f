"""Every alert fires when its condition is made true, and none fires when all is well."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability import files
from tests.observability.cases import CASES, COLLECTOR, HEALTHY, MINUTES, Case, Series
from tests.programs import program

pytestmark = pytest.mark.prometheus

FIRING = 'ALERTS{alertstate="firing"}'


def promtool(*words: str) -> str:
    """Run promtool to a good end; return what it says."""
    done = subprocess.run(
        [program("promtool"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_its_rules() -> None:
    """As it would be started, with all files of rules."""
    said = promtool("check", "config", str(files.PROMETHEUS / "prometheus.yml"))
    assert said.count("SUCCESS") == 2 + len(files.RULES)


def unit_test(series: Series, firing: frozenset[str]) -> dict[str, Any]:
    """Return a test of promtool: what is scraped, and the alerts that fire in the end."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": how} for name, how in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count by (alertname) ({FIRING}) > bool 0",
                "eval_time": f"{MINUTES}m",
                "exp_samples": samples,
            }
        ],
    }


def run(folder: Path, test: dict[str, Any], rules: Sequence[Path] = files.RULES) -> None:
    """Run a test of promtool against rules, at its own interval."""
    document = {
        "rule_files": [str(path) for path in rules],
        "evaluation_interval": test["interval"],
        "tests": [test],
    }
    path = folder / "tests.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    promtool("test", "rules", str(path))


def test_nothing_fires_while_all_is_well(tmp_path: Path) -> None:
    """Noise is what teaches people not to look."""
    run(tmp_path, unit_test(HEALTHY, frozenset()))


def test_a_collector_that_was_never_started_is_not_missed(tmp_path: Path) -> None:
    """It is a profile of its own, and not everybody trains on what is served."""
    others = {name: how for name, how in HEALTHY.items() if COLLECTOR not in name}
    run(tmp_path, unit_test(others, frozenset()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_its_condition_is_true(case: Case, tmp_path: Path) -> None:
    """It, and no other: with the healthy case beside it, this is the whole of its meaning."""
    run(tmp_path, unit_test(case.series, frozenset({case.alert}) | case.also))


def test_every_alert_has_a_case() -> None:
    """A rule that nobody has seen firing is a guess."""
    assert {case.alert for case in CASES} == {rule["alert"] for rule in files.alerts()}


# What the index of the hour is, hours after the first request. An hour's worth of last week, or a
# day and a half of it, is not to be held against a day; that they differ says nothing.
HOURS = [(26, "> bool 0.25", ()), (47, "> bool 0.25", ()), (52, "< bool 0.25", (1,)),
         (60, "< bool 0.25", (1,)), (71, "< bool 0.1", (1,))]  # fmt: skip


def test_the_hour_is_compared_as_a_share_of_days(tmp_path: Path) -> None:
    """All requests of an hour are of one hour of the day; equal days are no drift."""
    series = {
        f'sojourn_drift_inputs_total{{input="hour",bin="{hour}"}}': " ".join(
            _day(hour, day, 60) for day in range(3)
        )
        for hour in range(24)
    }
    test = {
        "interval": "10m",
        "input_series": [{"series": name, "values": how} for name, how in series.items()],
        "promql_expr_test": [
            {
                "expr": f'sojourn:drift_inputs:psi{{input="hour"}} {bound}',
                "eval_time": f"{60 * hours}m",
                "exp_samples": [{"labels": '{input="hour"}', "value": value} for value in values],
            }
            for hours, bound, values in HOURS
        ],
    }
    recording = (files.PROMETHEUS / "rules" / "recording.yml").read_text("utf-8")
    coarse = tmp_path / "recording.yml"
    coarse.write_text(recording.replace("interval: 1m", "interval: 10m"), "utf-8")
    run(tmp_path, test, [coarse])


def _day(hour: int, day: int, per_hour: int) -> str:
    """Return one day of a counter, a value every ten minutes, that grows in its hour only."""
    start, step = day * per_hour, per_hour // 6
    values = [start + step * min(6, max(0, at - 6 * hour)) for at in range(144)]
    return " ".join(map(str, values))
