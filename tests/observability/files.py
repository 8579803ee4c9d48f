"""The files of deploy/ as tests read them: rules, panels, and the metrics that they name."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
DASHBOARD = GRAFANA / "dashboards" / "sojourn.json"
RUNBOOK = ROOT / "docs" / "runbook.md"
METRIC = re.compile(r"\bsojourn_\w+")
RECORDED = re.compile(r"\bsojourn:[\w:]+")
# What a histogram and a counter are scraped as.
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
# A time in a query, a rule or an interval: `[5m]`, `offset 1h`, `for: 10m`.
DURATION = re.compile(r"\b(\d+)([smhd])\b")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

Rule = dict[str, Any]


def load(path: Path) -> Any:
    """Read a file of YAML or JSON."""
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def rules() -> list[Rule]:
    """Return every rule of every group."""
    return [rule for path in RULES for group in load(path)["groups"] for rule in group["rules"]]


def alerts() -> list[Rule]:
    """Return the rules that alert."""
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, without the rows above them."""
    return [panel for panel in load(DASHBOARD)["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title and the query of each line of each panel."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def metrics_in(expr: str) -> set[str]:
    """Return the metrics that a query names, as the service names them.

    >>> sorted(metrics_in("rate(sojourn_a_bucket[5m]) / sojourn_b_total"))
    ['sojourn_a', 'sojourn_b_total']
    """
    return {SUFFIXES.sub("", name) for name in METRIC.findall(expr)}


def query_of(expr: str, windows: Mapping[str, str]) -> str:
    """Return a panel's query as Grafana would send it, with all of every variable."""
    for name, value in windows.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$\w+", ".*", expr)


def shortened(text: str, longest_s: int) -> str:
    """Return a text whose times are seconds, none of them above a bound, in the same order.

    >>> shortened("rate(x[5m]) for 1h and 10s", 20)
    'rate(x[6s]) for 10s and 4s'
    """

    def short(match: re.Match[str]) -> str:
        seconds = int(match[1]) * SECONDS[match[2]]
        limits = ((60, 4), (300, 6), (1_800, 8), (21_600, 10), (86_400, 12))
        return f"{next((s for limit, s in limits if seconds <= limit), longest_s)}s"

    return DURATION.sub(short, text)
