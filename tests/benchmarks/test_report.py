"""The report of the serving benchmark."""

from pathlib import Path

from benchmarks.serving.report import MEANINGS, report
from benchmarks.serving.stage import BUILT_IN, Bench
from benchmarks.serving.statistics import Spread

BENCH = Bench(
    rounds=3,
    seconds=1.0,
    num_users=10,
    cache=Path("cache"),
    folder=Path("folder"),
    quick=True,
    generator=BUILT_IN,
)
WITH_TARGETS = {
    "ratio_redis_w50", "ratio_torch_w50", "p99_ms_1000rps", "ratio_redis_w200", "rps_1m",
    "recall_1m", "ratio_redis_100k", "events_per_s", "ratio_redis_500_candidates",
    "workers_ratio", "rss_mib", "ready_s_1m", "redis_bytes_per_user",
}  # fmt: skip


def test_the_medians_stand_at_the_top_under_their_keys() -> None:
    """Whoever compares two reports reads one number by one name."""
    figures = {"ratio_redis_w50": Spread((0.5, 0.7, 0.6)).document()}
    rates = {"sojourn": Spread((5.0, 7.0, 6.0)).document()}
    document = report({"w50": {"figures": figures, "requests_per_s": rates}}, BENCH)
    assert document["ratio_redis_w50"] == 0.6
    assert document["figures"]["ratio_redis_w50"]["min"] == 0.5
    assert document["figures"]["ratio_redis_w50"]["means"] == MEANINGS["ratio_redis_w50"]
    assert document["cases"] == {"w50": {"requests_per_s": rates}}


def test_every_figure_with_a_target_says_what_it_is() -> None:
    """The table is read without the documentation beside it."""
    assert set(MEANINGS) >= WITH_TARGETS


def test_the_documentation_names_every_figure() -> None:
    """Its table says how each is measured, which a line of the report has no room for."""
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text("utf-8")
    assert [key for key in MEANINGS if f"`{key}`" not in page] == []
