"""The part of a report that says what a run is worth: figures, baselines, groups of cases."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from training.charts import Bar, bar_chart
from training.pages import folded, paragraph, section, shown, table

Document: TypeAlias = Mapping[str, Any]
ACCURACY = ("hr@1", "hr@10", "ndcg@10", "mrr")
BEYOND = ("coverage@10", "novelty@10", "arp@10", "popularity_bias@10")
DRAWN = "ndcg@10"
ZONES = {
    "local": "Hours are those of the users' clocks.",
    "utc": "No event has a local offset, so hours are UTC.",
    "unknown": "Only the order of the events is known, so there are no hours.",
}


def evaluation_sections(evaluation: Document) -> list[str]:
    """Return the figures of an evaluation, with intervals, beside the baselines and by group."""
    return [
        section(
            f"Figures of the {evaluation['split']} cases",
            _accuracy(evaluation),
            bar_chart(DRAWN, [""], {name: [bar] for name, bar in _whole(evaluation).items()}),
            _results(evaluation["results"], BEYOND, "Beyond accuracy"),
            folded("Seen items removed, and kept", *_both_rules(evaluation)),
        ),
        section("The model against the baselines", _significance(evaluation)),
        section("By activity", *group_parts(evaluation["by_activity"], "events before the case")),
        section(
            "By hour",
            paragraph(hour_note(evaluation["hour_zone"])),
            *group_parts(evaluation["by_hour"], "hour of the case"),
        ),
    ]


def _accuracy(evaluation: Document) -> str:
    method = evaluation["method"]
    caption = (
        f"{evaluation['dataset']}, {evaluation['protocol']}, request time "
        f"{evaluation['request_time']}, seen items {evaluation['seen_items']}, "
        f"{evaluation['num_cases']:,} cases; {method['confidence']:.0%} intervals by bootstrap "
        f"of {method['unit']}s, {method['resamples']:,} resamples"
    )
    rows = [
        [name, *(_with_interval(values, evaluation["intervals"][name], key) for key in ACCURACY)]
        for name, values in evaluation["results"].items()
    ]
    return table(["scorer", *ACCURACY], rows, caption)


def _with_interval(values: Document, intervals: Document, name: str) -> str:
    return f"{shown(values[name])} ({shown(intervals[name])})"


def _results(results: Document, names: Sequence[str], caption: str) -> str:
    rows = [[scorer, *(values[name] for name in names)] for scorer, values in results.items()]
    return table(["scorer", *names], rows, caption)


def _both_rules(evaluation: Document) -> list[str]:
    return [
        _results(results, ACCURACY, f"Seen items {rule}")
        for rule, results in evaluation["results_by_seen_items"].items()
    ]


def _significance(evaluation: Document) -> str:
    rows = [
        [name, found["metric"], found["difference"], found["interval"], found["p_value"]]
        for name, found in evaluation["significance"].items()
    ]
    caption = "Model less baseline; p by sign flips of users, not corrected for their number"
    return table(["baseline", "metric", "difference", "interval", "p"], rows, caption)


def _whole(evaluation: Document) -> dict[str, Bar]:
    return {
        name: Bar(values[DRAWN], *evaluation["intervals"][name][DRAWN])
        for name, values in evaluation["results"].items()
    }


def hour_note(zone: str) -> str:
    """Return whose clocks the hours are of."""
    return ZONES[zone]


def group_parts(groups: Document, what: str, note: str = "") -> list[str]:
    """Return a chart and a table of figures by group; nothing where there is no group."""
    if not groups:
        return []
    labels = [_label(name, group) for name, group in groups.items()]
    wholes = [_whole(group) for group in groups.values()]
    bars = {name: [whole[name] for whole in wholes] for name in wholes[0]}
    rows = [
        [label, group["num_cases"], *(group["results"]["model"][name] for name in ACCURACY)]
        for label, group in zip(labels, groups.values(), strict=True)
    ]
    return [
        bar_chart(f"{DRAWN} by {what}", labels, bars, note=note),
        folded("The model's figures", table([what, "cases", *ACCURACY], rows, "By group")),
    ]


def _label(name: str, group: Document) -> str:
    bounds = group.get("num_past_events")
    return name if bounds is None else f"{name} ({bounds[0]:,} to {bounds[1]:,})"
