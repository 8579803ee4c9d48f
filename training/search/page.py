"""The page of a search: its trials in a table and in pictures."""

from collections.abc import Callable, Sequence

from training.chart_axes import Axis, count_axis, linear_axis, log_axis, named_axis
from training.charts import Points, dot_chart
from training.pages import page, paragraph, section, shown, table
from training.search.outcomes import Outcome, best_outcome
from training.search.results import HEADER, table_rows
from training.search.space import Axis as Setting
from training.search.space import Choices, overrides
from training.validation import SCORE


def search_page(outcomes: Sequence[Outcome], settings: Sequence[Setting]) -> str:
    """Return the page of a search so far; `settings` are what varies."""
    names = [setting.name for setting in settings]
    best = best_outcome(outcomes)
    lead = (
        "No trial was trained to its end."
        if best is None
        else f"Best validation {SCORE} {shown(best.score)}, trial {best.place:03d}: "
        f"{', '.join(overrides(best.values))}."
    )
    scored = [outcome for outcome in outcomes if outcome.scores]
    by_setting = [_by_setting(scored, setting) for setting in settings if scored]
    rows = table_rows(outcomes, names)
    return page(
        f"Search: {len(outcomes)} trials over {', '.join(names)}",
        [
            paragraph(lead),
            section("Trials", _by_trial(scored) if scored else "",
                    table([*HEADER, *names, "reason"], rows, "Every trial")),
            section("By setting", *by_setting),
        ],
    )  # fmt: skip


def _by_trial(scored: Sequence[Outcome]) -> str:
    """Return the trials in order with the best score so far as a line."""
    return dot_chart(
        f"Best validation {SCORE} of each trial; the line is the best whole trial so far",
        _by_state(scored, lambda outcome: float(outcome.place)),
        count_axis(float(scored[-1].place)),
        "trial",
        _best_so_far(scored),
    )


def _best_so_far(scored: Sequence[Outcome]) -> list[tuple[float, float]]:
    """Return the corners of a staircase that rises where a whole trial is better."""
    corners: list[tuple[float, float]] = []
    for outcome in scored:
        before = corners[-1][1] if corners else None
        best = max(outcome.scores) if outcome.state == "complete" else before
        if before is not None:
            corners.append((float(outcome.place), before))
        if best is not None and (before is None or best > before):
            corners.append((float(outcome.place), best))
    return corners


def _by_setting(scored: Sequence[Outcome], setting: Setting) -> str:
    """Return the score of each trial over the value of one setting."""
    place, axis = _scale(setting)
    series = _by_state(scored, lambda outcome: place(outcome.values[setting.name]))
    return dot_chart(f"Validation {SCORE} by {setting.name}", series, axis, setting.name)


def _scale(setting: Setting) -> tuple[Callable[[object], float], Axis]:
    if isinstance(setting, Choices):
        values = list(setting.values)
        return lambda value: float(values.index(value)), named_axis([str(v) for v in values])
    bounds = (float(setting.low), float(setting.high))
    return lambda value: float(str(value)), log_axis(bounds) if setting.log else linear_axis(bounds)


def _by_state(scored: Sequence[Outcome], place: Callable[[Outcome], float]) -> dict[str, Points]:
    return {
        state: [(place(o), max(o.scores)) for o in scored if o.state == state]
        for state in ("complete", "pruned")
    }
