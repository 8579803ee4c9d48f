"""Dashboard, rules and compose file say what is there, and say it to people."""

import doctest
import re
from collections import Counter

import pytest

from tests.observability import files
from tests.test_docs import scraped_metrics

SEVERITIES = {"critical", "warning"}
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
RECORDED = {rule["record"] for rule in files.rules() if "record" in rule}


def test_the_helpers_do_what_they_say() -> None:
    """Their examples are run."""
    assert doctest.testmod(files).failed == 0


@pytest.mark.parametrize(
    "expr",
    [expr for _, expr in files.queries()] + [rule["expr"] for rule in files.rules()],
)
def test_a_query_names_only_what_there_is(expr: str) -> None:
    """A metric that is renamed leaves a panel empty, and an alert silent, for ever."""
    assert files.metrics_in(expr) <= scraped_metrics()
    assert set(files.RECORDED.findall(expr)) <= RECORDED


def test_every_metric_is_on_the_dashboard_or_in_an_alert_or_for_a_closer_look() -> None:
    """What nobody sees and nothing alarms is a cost without a use."""
    used = [expr for _, expr in files.queries()] + [rule["expr"] for rule in files.rules()]
    seen = {name for expr in used for name in files.metrics_in(expr)}
    for_a_closer_look = {
        "sojourn_collector_erased_rows_total",
        "sojourn_collector_files_total",
        "sojourn_collector_lag_entries",
        "sojourn_collector_missing_entries_total",
        "sojourn_collector_rows_total",
        "sojourn_collector_skipped_total",
        "sojourn_text_seconds",
    }
    assert scraped_metrics() - seen == for_a_closer_look


def test_every_recorded_series_is_used() -> None:
    """Each is worked out four times a minute."""
    used = [expr for _, expr in files.queries()] + [rule["expr"] for rule in files.rules()]
    assert {name for expr in used for name in files.RECORDED.findall(expr)} == RECORDED


@pytest.mark.parametrize("rule", files.alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: files.Rule) -> None:
    """Whoever is woken by it has its text, and the section of the runbook."""
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    section = re.search(
        rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", files.RUNBOOK.read_text("utf-8"), re.M | re.S
    )
    assert section, "no section of the runbook"
    for part in ("**Means.**", "**See.**", "**Do.**", "```sh\n"):
        assert part in section[1]


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    """Its sections are the alerts, in their order."""
    sections = re.findall(r"^## (Sojourn\w+)$", files.RUNBOOK.read_text("utf-8"), re.M)
    assert sections == [rule["alert"] for rule in files.alerts()]


def test_a_setting_that_the_runbook_gives_to_compose_arrives() -> None:
    """Of the shell's variables a container has those that the compose file names."""
    named = set(re.findall(r"(SOJOURN_\w+)=\S+ docker compose", files.RUNBOOK.read_text("utf-8")))
    given = files.load(files.ROOT / "docker-compose.yml")["services"]["service"]["environment"]
    assert named
    assert {name for name in named if f"${{{name}" not in given.get(name, "")} == set()


def test_the_dashboard_is_whole() -> None:
    """Ids are its own, every panel has a unit and a description, none lies over another."""
    dashboard = files.load(files.DASHBOARD)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert dashboard["uid"] == "sojourn"
    for panel in files.panels():
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"].endswith(".")
        assert panel["targets"]
    cells = Counter(
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert set(cells.values()) == {1}
    assert max(x for x, _ in cells) == 23


def test_every_panel_is_in_the_operations_page() -> None:
    """Its table of panels stands for a picture."""
    page = (files.ROOT / "docs" / "operations.md").read_text("utf-8")
    missing = [panel["title"] for panel in files.panels() if panel["title"] not in page]
    assert missing == []


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    """The names of one file are used in the others."""
    services = files.load(files.ROOT / "docker-compose.yml")["services"]
    [source] = files.load(next((files.GRAFANA / "provisioning/datasources").iterdir()))[
        "datasources"
    ]
    [provider] = files.load(next((files.GRAFANA / "provisioning/dashboards").iterdir()))[
        "providers"
    ]
    variables = files.load(files.DASHBOARD)["templating"]["list"]
    assert source["uid"] == variables[0]["current"]["value"]
    assert source["url"] == "http://prometheus:9090"
    mounts = [mount.split(":") for mount in services["grafana"]["volumes"]]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"], "ro"] in mounts
    scraped = files.load(files.PROMETHEUS / "prometheus.yml")
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    names = [name for job in scraped["scrape_configs"] for name in names_of(job)]
    assert set(names) <= set(services)


def names_of(job: files.Rule) -> list[str]:
    """Return the names that a job of scrapes looks up."""
    return [name for one in job.get("dns_sd_configs", ()) for name in one["names"]]


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_watches_is_hardened_as_what_serves(name: str) -> None:
    """Only where it is asked for, for this machine only, and with a version of its own."""
    service = files.load(files.ROOT / "docker-compose.yml")["services"][name]
    assert service["profiles"] == ["observability"]
    assert {key: service[key] for key in HARDENED} == HARDENED
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert service["user"] != "0"
    assert "healthcheck" in service
