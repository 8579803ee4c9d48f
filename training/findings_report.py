"""The part of a run's report that shows its findings: groups, calibration, attention, time, items.

`findings` is what `training.findings.examine` returns.
"""

from collections.abc import Callable, Sequence
from typing import Any

from training.chart_axes import hour_axis, marked_axis
from training.charts import Bar, line_chart, reliability_chart
from training.evaluation_report import DRAWN, Document, group_parts, hour_note
from training.heatmaps import Panel, panel_rows, week_map
from training.pages import folded, paragraph, section, shown, table
from training.point_map import Point, point_map

GAP_MARKS = {
    "1 second": 1.0, "1 minute": 60.0, "1 hour": 3600.0, "1 day": 86_400.0, "1 week": 604_800.0,
    "1 month": 2_629_746.0, "1 year": 31_556_952.0, "10 years": 315_569_520.0,
}  # fmt: skip
# The first gap, in seconds, of what is called so.
GAP_WORDS = (
    ("seconds", 0.0), ("minutes", 60.0), ("hours", 3600.0), ("days", 86_400.0),
    ("weeks", 604_800.0), ("months", 2_629_746.0), ("years", 31_556_952.0),
)  # fmt: skip
DISTANCE_MARKS = {"50 m": 0.05, "500 m": 0.5, "5 km": 5.0, "50 km": 50.0, "500 km": 500.0,
                  "5,000 km": 5000.0}  # fmt: skip
# So that a gap or a distance of nothing has a place on a logarithmic axis.
LEAST_GAP_S, LEAST_DISTANCE_KM = 1.0, 0.02
MOST_HEADS = 8
# Below this a weight of attention is a hidden pair's.
NOTHING = 1e-6
LISTED = 30


def findings_sections(findings: Document) -> list[str]:
    """Return every section that a run's findings fill."""
    parts: Sequence[Callable[[Document], str]] = (
        _start, _groups, _calibration, _attention, _time, _items,
    )  # fmt: skip
    return [part(findings) for part in parts]


def _cases(findings: Document) -> str:
    drawn, whole = findings["num_cases"], findings["all_cases"]
    which = "all" if drawn == whole else f"a seeded sample of {drawn:,} of the"
    return f"{which} {whole:,} validation cases, seen items {findings['seen_items']}"


def _start(findings: Document) -> str:
    note = "Differences have paired 95% intervals by bootstrap of users."
    parts = []
    start = findings.get("start")
    if start is None:
        parts.append(paragraph(
            "How the run started was not recorded: runs keep it before their first epoch."
        ))  # fmt: skip
    else:
        said = f"The run started from {start['origin']}. Measured on {_cases(findings)}. {note}"
        parts += [
            paragraph(said),
            _compared(start["metrics"], "The start", "The run and its start"),
        ]
    parts.append(_compared(findings["counting"], "Popularity", "The run and counting (popularity)"))
    rows = [
        [each["item"], "; ".join(each["before"]) or "–", "; ".join(each["after"])]
        for each in findings["neighbours"]
    ]
    caption = "Nearest items by cosine of the items with the most training events, nearest first"
    parts.append(
        folded("Neighbours before and after", table(["item", "before", "after"], rows, caption))
    )
    return section("Before and after", *parts)


def _compared(metrics: Document, first: str, caption: str) -> str:
    rows = [
        [name, found["before"], found["after"], found["difference"], found["interval"]]
        for name, found in metrics.items()
    ]
    return table(["metric", first.lower(), "after", "difference", "interval"], rows, caption)


def _groups(findings: Document) -> str:
    details = findings["groups"]
    note = (
        f"Computed on {_cases(findings)}; the black lines are 95% intervals by bootstrap of users."
    )
    hours = group_parts(details["by_hour"], "hour of the case", note)
    return section(
        "Who and when",
        *group_parts(details["by_activity"], "events before the case", note),
        paragraph(hour_note(details["hour_zone"])),
        *hours,
    )


def _calibration(findings: Document) -> str:
    notes = {
        "next-item": "The ten most probable items of each case, by the softmax of the scores over "
        "all items, against how often the item came next.",
        "click": "The logistic of the click head's logit of the shown item, against how often it "
        "was acted on.",
    }
    parts = []
    for name, found in findings["calibration"].items():
        points = [
            (each["predicted"], Bar(each["observed"], *each["interval"]), each["count"])
            for each in found["bins"]
        ]
        error = f"expected calibration error {shown(found['ece'])}"
        note = (
            f"{notes[name]} Bins of equally many of {found['count']:,} predictions on "
            f"{_cases(findings)}; lines are Wilson's 95% intervals; the error is the mean distance "
            "from the diagonal, weighted by counts."
        )
        parts.append(reliability_chart(f"Calibration of {name}: {error}", points, note=note))
        rows = [
            [each["count"], each["predicted"], each["observed"], each["interval"]]
            for each in found["bins"]
        ]
        header = ["predictions", "predicted", "observed", "interval"]
        parts.append(folded(f"Bins of {name}", table(header, rows, "Lowest predictions first")))
    return section("Calibration", *(parts or [paragraph("The run predicts no probability.")]))


def _attention(findings: Document) -> str:
    found = findings["attention"]
    if not found["users"]:
        return section("Attention", paragraph(f"The family {found['family']} has no attention."))
    return section("Attention", *(_user(at, user) for at, user in enumerate(found["users"], 1)))


def _user(at: int, user: Document) -> str:
    titles = [f"{place}. {title}" for place, title in enumerate(user["titles"], 1)]
    columns = ["…", *(str(place) for place in range(1, len(titles) + 1))]
    rows = [
        [
            Panel(
                f"layer {layer}, head {head}",
                [_seen(row, line) for line, row in enumerate(weights)],
            )
            for head, weights in enumerate(heads, 1)
        ]
        for layer, heads in enumerate(user["layers"], 1)
    ]
    shown_maps = (
        f"{len(rows)} of {user['num_layers']} layers, {len(rows[0])} of {user['num_heads']} heads"
    )
    note = (
        "Each row is an event (the oldest first) and shows where attention looks from it: more "
        "colour is more, a whole row adds up to 1, and … is everything older, outside the scale. "
        f"Computed from the window before a validation case; {shown_maps}."
    )
    said = f"{shown_maps}; " + "; ".join(
        f"layer {layer} head {head}: from the last event most at {_most(weights[-1], titles)}"
        for layer, heads in enumerate(user["layers"], 1)
        for head, weights in enumerate(heads, 1)
    )
    return panel_rows(
        f"Attention of validation user {at}", said, rows, (titles, columns), note=note
    )


def _seen(row: Sequence[float], line: int) -> list[float | None]:
    """Return a row of a map without the cells after its own event, if nothing looks there."""
    later = row[line + 2 :]
    return [*row[: line + 2], *(None if not any(v > NOTHING for v in later) else v for v in later)]


def _most(row: Sequence[float], titles: Sequence[str]) -> str:
    place = max(range(len(row)), key=row.__getitem__)
    return titles[place - 1] if place else "older events"


def _time(findings: Document) -> str:
    biases, parts = findings["biases"], []
    if "gap" in biases:
        parts += _gaps(biases["gap"])
    if "distance" in biases:
        at = [km + LEAST_DISTANCE_KM for km in biases["distance"]["at"]]
        note = (
            "What attention adds, in nats, to events by how far their place is from the last "
            "event's. Distances that no sampled validation window has are left out."
        )
        parts.append(_bias_chart("distance", at, biases["distance"]["heads"], DISTANCE_MARKS, note))
    if findings["week"] is not None:
        parts += _week(findings["week"])
    return section("Time and place", *(parts or [paragraph("The model reads no times or places.")]))


def _bias_chart(
    what: str,
    at: Sequence[float],
    heads: Sequence[Sequence[float]],
    marks: dict[str, float],
    note: str,
) -> str:
    series = {
        f"head {head}": list(zip(at, biases, strict=True))
        for head, biases in enumerate(heads[:MOST_HEADS], 1)
    }
    return line_chart(
        f"Attention bias by {what}", series, what, x=marked_axis(at, marks), note=note
    )


def _gaps(curve: Document) -> list[str]:
    note = (
        "What attention adds, in nats, to events by how long before the request they were; 1 more "
        "multiplies a weight by 2.7. Gaps that no sampled validation window has are left out."
    )
    at = [seconds + LEAST_GAP_S for seconds in curve["at"]]
    rows = []
    bounds = [first for _, first in GAP_WORDS[1:]] + [float("inf")]
    for (word, first), after in zip(GAP_WORDS, bounds, strict=True):
        places = [place for place, s in enumerate(curve["at"]) if first <= s < after]
        pairs = sum(curve["pairs"][place] for place in places)
        if pairs:
            means = [
                sum(head[p] * curve["pairs"][p] for p in places) / pairs
                for head in curve["heads"][:MOST_HEADS]
            ]
            rows.append([word, pairs, *means])
    heads = [f"head {head}" for head in range(1, len(curve["heads"][:MOST_HEADS]) + 1)]
    caption = "Mean bias of the events that were so long ago, over the events of sampled windows"
    return [
        _bias_chart("time gap", at, curve["heads"], GAP_MARKS, note),
        table(["gap", "events", *heads], rows, caption),
    ]


def _week(week: Document) -> list[str]:
    shift = week["shift"]
    note = (
        f"{week['windows']} validation windows are asked at every local hour of a week, the gap "
        "since the last event unchanged, without the bonus for seen items. "
    )
    apart = "A cell is half the summed absolute difference of probabilities."
    most = max(
        (value, day, hour) for day, row in enumerate(shift) for hour, value in enumerate(row)
    )
    said = f"largest, {shown(most[0])}, on day {most[1] + 1} of 7 at {most[2]}:00"
    series = {
        name: list(zip(map(float, range(24)), v, strict=True)) for name, v in week["series"].items()
    }
    return [
        week_map(
            "How far predictions of an hour are from the week's",
            said, shift, note=note + apart,
        ),
        line_chart(
            "Probability by hour, relative to its mean", series, "hour", x=hour_axis(),
            note=note + "Of the 20 most frequent, the five that the hour moves most.",
        ),
    ]  # fmt: skip


def _items(findings: Document) -> str:
    found = findings["items"]
    points = [Point(*point) for point in found["points"]]
    kept = sum(found["kept"])
    note = (
        f"The {len(points):,} of {found['num_items']:,} items with the most training events, on "
        f"the first two principal components of unit item vectors, which keep {kept:.1%} of the "
        f"variance; colours by {found['by']}. A point's title is its item."
    )
    said = "; ".join(
        f"{sum(point.group == at for point in points)} {name}"
        for at, name in enumerate(found["groups"])
    )
    rows = [[p.name, found["groups"][p.group], p.x, p.y] for p in points[:LISTED]]
    header = ["item", found["by"], "first component", "second component"]
    listed = folded("The best-known items' places", table(header, rows, "Most events first"))
    chart = point_map("Map of the items", said, points, found["groups"], note=note)
    return section("Items", chart, listed)


def scalars(findings: Document) -> dict[str, float]:
    """Return the numbers of findings by name, for a board that draws numbers."""
    found: dict[str, Any] = {
        f"calibration/{name}_ece": each["ece"] for name, each in findings["calibration"].items()
    }
    compared = {"counting": findings["counting"]}
    if "start" in findings:
        compared["start"] = findings["start"]["metrics"]
    for name, metrics in compared.items():
        for metric, each in metrics.items():
            found |= {f"{name}/{metric}_{key}": each[key] for key in ("before", "after")}
    for kind in ("by_hour", "by_activity"):
        for group, values in findings["groups"][kind].items():
            found[f"{kind}/{group}"] = values["results"]["model"][DRAWN]
    return found
