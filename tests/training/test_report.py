"""The report: complete, safe with any name, and readable without anything beside it."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.training import builders
from training.__main__ import app
from training.confidence import METHOD, breakdown, intervals, significance
from training.config import TrainingError, config_to_dict
from training.report import write_evaluation_report, write_run_report
from training.runs import run_documents
from training.search.outcomes import Outcome
from training.search.page import search_page
from training.search.space import Choices, Range, Scalar

NASTY = '<script>alert("1")</script>'
HISTORY = [
    {"epoch": 1.0, "loss": 3.0, "hr@10": 0.25, "ndcg@10": 0.125, "mrr": 0.1, "auc": float("nan"),
     "score": 0.125, "tokens_per_s": 1000.0, "seconds": 2.0},
    {"epoch": 2.0, "loss": 2.5, "hr@10": 0.5, "ndcg@10": 0.375, "mrr": 0.2, "auc": float("nan"),
     "score": 0.375, "tokens_per_s": 1000.0, "seconds": 2.0},
]  # fmt: skip
METRICS = {
    "seed": 7, "data_sha256": "d" * 64, "split_sha256": "5" * 64, "protocol": "leave-one-out",
    "request_time": "known", "seen_items": "kept", "parameters": 12345, "best_epoch": 2,
    "best_validation": HISTORY[1], "history": HISTORY,
}  # fmt: skip
RANKS = {"model": np.array([1, 1, 2, 20]), NASTY: np.array([1, 2, 2, 30])}
USERS = np.array([0, 1, 2, 3])


class Reader(HTMLParser):
    """Collects a page's text and tags; raises ValueError where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        if self._open:
            raise ValueError(f"{self._open} stay open")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Check that it ends what is open."""
        if self._open.pop() != tag:
            raise ValueError(f"</{tag}> ends nothing")

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def config(name: str = "shop") -> dict[str, Any]:
    """Return what config.json says of a run on a data set of that name."""
    settings = builders.tiny_config("optim.learning_rate=0.00012345")
    document: dict[str, Any] = json.loads(json.dumps(config_to_dict(settings)))
    return document | {"dataset": f"/somewhere/{name}"}


def evaluation(**changes: Any) -> dict[str, Any]:
    """Return an evaluation of RANKS; valid unless overridden."""
    beyond = {"coverage@10": 0.5, "novelty@10": 2.0, "arp@10": 3.0, "popularity_bias@10": 1.5}
    group = breakdown({"all": np.ones(4, bool)}, RANKS, USERS)["all"]
    results = {name: values | beyond for name, values in group["results"].items()}
    return {
        "dataset": "shop", "protocol": "leave-one-out", "request_time": "known", "split": "test",
        "num_cases": 4, "seen_items": "kept", "results": results,
        "results_by_seen_items": {"removed": results, "kept": results}, "method": dict(METHOD),
        "intervals": intervals(RANKS, USERS), "significance": significance(RANKS, USERS),
        "by_activity": {"low": group | {"num_past_events": [2, 5]}}, "by_hour": {"08-12": group},
        "hour_zone": "local",
    } | changes  # fmt: skip


def run_page(folder: Path, name: str = "shop") -> str:
    """Write and return the page of a run."""
    write_run_report(folder, config(name), METRICS)
    return (folder / "report.html").read_text(encoding="utf-8")


def evaluation_page(folder: Path, **changes: Any) -> str:
    """Write and return the page of an evaluation."""
    path = folder / "deep" / "test.html"
    write_evaluation_report(path, evaluation(**changes), config(), METRICS)
    return path.read_text(encoding="utf-8")


def a_search_page() -> str:
    """Return the page of a search with one trial of each kind."""
    rate = Range("optim.learning_rate", 1e-4, 1e-2, log=True)
    block = Choices("model.block", ("a", "b"))
    values: dict[str, Scalar] = {"optim.learning_rate": 0.001, "model.block": "b"}
    outcomes = [
        Outcome(1, "complete", values, (0.125, 0.25), 3.0, ""),
        Outcome(2, "pruned", values, (0.0625,), 1.0, ""),
        Outcome(3, "failed", values, (), 0.0, NASTY),
    ]
    return search_page(outcomes, [rate, block])


def test_a_run_page_says_where_its_figures_come_from(tmp_path: Path) -> None:
    """Seed, hashes, parameters, the best epoch and every setting, numbers in full."""
    text = Reader(run_page(tmp_path)).text
    for said in ("d" * 64, "5" * 64, "12,345", "ndcg@10 0.3750 at epoch 2 of 2", "0.00012345"):
        assert said in text
    assert "/somewhere" not in text


def test_what_was_never_finite_is_drawn_as_nothing(tmp_path: Path) -> None:
    """An AUC of one class has no value; the chart is there and the page is whole."""
    assert "Validation auc by epoch" in Reader(run_page(tmp_path)).text


def test_an_evaluation_page_has_intervals_groups_and_rivals(tmp_path: Path) -> None:
    """HR@1 is 2 / 4 of the model; activity and hours are labelled."""
    text = Reader(evaluation_page(tmp_path)).text
    for said in ("0.5000 (", "low (2 to 5)", "08-12", "clocks", "1,000 resamples", "difference"):
        assert said in text


def test_a_log_without_times_has_no_hours(tmp_path: Path) -> None:
    """The section says why instead of showing the hours of an order."""
    text = Reader(evaluation_page(tmp_path, by_hour={}, hour_zone="unknown")).text
    assert "Only the order of the events is known" in text


PAGES: dict[str, Callable[[Path], str]] = {
    "run": run_page,
    "evaluation": evaluation_page,
    "search": lambda _: a_search_page(),
}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path, kind: str) -> None:
    """No address, script, link or embedded file; the browser is told to load none either."""
    page = PAGES[kind](tmp_path)
    tags = Reader(page).tags
    assert "://" not in page
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags}
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("kind", PAGES)
def test_pictures_have_words_and_pages_follow_the_readers_colours(
    tmp_path: Path, kind: str
) -> None:
    """Every picture is labelled; the style has a dark variant."""
    page = PAGES[kind](tmp_path)
    pictures = [attributes for tag, attributes in Reader(page).tags if tag == "svg"]
    assert pictures
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert "prefers-color-scheme: dark" in page


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    """A data set, a scorer and an error message may hold anything."""
    for page in (
        run_page(tmp_path, NASTY.replace("/", "")),
        evaluation_page(tmp_path, dataset=NASTY),
        a_search_page(),
    ):
        reader = Reader(page)
        assert "script" not in {tag for tag, _ in reader.tags}
        assert "<script>alert" in reader.text


def test_a_dollar_in_a_name_is_a_dollar(tmp_path: Path) -> None:
    """The page is a template; what is put into it is not."""
    assert "$body shop" in Reader(run_page(tmp_path, "$body shop")).text


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    """There are no metrics to show yet."""
    with pytest.raises(TrainingError, match="no finished run, which a report needs"):
        run_documents(tmp_path)


@pytest.mark.integration
def test_the_commands_write_the_pages(tmp_path: Path) -> None:
    """Train leaves report.html beside metrics.json; evaluate writes where it is told to."""
    dataset, run = builders.cyclic_dataset(tmp_path)[0], tmp_path / "run"
    tiny = [part for text in builders.TINY for part in ("--set", text)]
    page, figures = tmp_path / "test.html", tmp_path / "test.json"
    commands = [
        ["train", "--data", str(dataset), "--out", str(run), "--preset", "time", *tiny],
        ["evaluate", "--run", str(run), "--report", str(page), "--json", str(figures)],
    ]
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert "Training loss by epoch" in Reader((run / "report.html").read_text()).text
    assert "The model against the baselines" in Reader(page.read_text()).text
    report = json.loads(figures.read_text())
    assert {"method", "intervals", "significance", "by_activity", "by_hour"} <= set(report)
    assert sum(group["num_cases"] for group in report["by_hour"].values()) == report["num_cases"]
