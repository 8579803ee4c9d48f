"""The documentation names what is there."""

import re
from pathlib import Path

from prometheus_client import generate_latest

from service.app import create_app
from service.collector.metrics import CollectorMetrics
from service.config import Settings
from service.metrics import Metrics
from service.security.keys import SCOPES
from service.security.scopes import ROUTES

DOCS = Path(__file__).parents[1] / "docs"
OPERATIONS = DOCS / "operations.md"


def test_the_table_of_settings_names_every_setting_and_no_other() -> None:
    """An operator reads the table, not the code; a variable that is not there does nothing."""
    settings = {f"SOJOURN_{name.upper()}" for name in Settings.model_fields}
    # The bundle's path goes by the name of its option.
    settings = settings - {"SOJOURN_BUNDLE_PATH"} | {"SOJOURN_BUNDLE"}
    assert set(re.findall(r"SOJOURN_[A-Z_]+", OPERATIONS.read_text("utf-8"))) == settings


def test_the_table_of_metrics_names_every_metric_and_no_other() -> None:
    """A dashboard is built from the table; a metric that is not there shows nothing, silently."""
    named = set(re.findall(r"`(sojourn_[a-z_]+)`", OPERATIONS.read_text("utf-8")))
    assert named == scraped_metrics()


def test_the_table_of_scopes_names_every_route_that_asks_for_one() -> None:
    """Whoever makes a key chooses its scopes from that table."""
    page = (DOCS / "security.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    documented = {
        (route, scope.strip(" `"))
        for routes, scope in rows
        for route in re.findall(r"`([A-Z]+ /[^`]*)`", routes)
        if scope.strip(" `") in SCOPES
    }
    asked = {
        (f"{method} {path.replace(':text', '')}", scope)
        for (method, path), scope in ROUTES.items()
        if scope is not None
    }
    assert documented == asked


def test_the_api_page_names_every_call_of_the_openapi_document_and_no_other() -> None:
    """The document is made from the code; the page is what people read."""
    document = create_app(Settings()).openapi()
    calls = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    page = (DOCS / "api.md").read_text("utf-8")
    named = set(re.findall(r"\b((?:GET|POST|PUT|DELETE) /[a-z0-9/_{}.]+)", page))
    assert calls - named == set()
    assert {call for call in named - calls if "{" in call} == set()


def scraped_metrics() -> set[str]:
    """Return the name of every metric of the two programs' scrapes, counters with their suffix."""
    text = Metrics().render()[0] + generate_latest(CollectorMetrics().registry)
    found = re.findall(r"^# TYPE (sojourn_\w+) ", text.decode(), re.MULTILINE)
    return {name for name in found if not name.endswith("_created")}
