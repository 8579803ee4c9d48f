"""The cases: what each measures, and the keys of the report that it gives."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from benchmarks.serving.bundles import Spec
from benchmarks.serving.stage import SOJOURN, Bench, stage
from benchmarks.serving.statistics import Spread, ratio

SMALL = 3_500
# What a case gives: `figures` by key of the report, and all that they were made of.
Result: TypeAlias = dict[str, Any]


def spreads(rates: Mapping[str, Spread]) -> dict[str, Any]:
    """Return what the report holds of rates."""
    return {name: spread.document() for name, spread in rates.items()}


def plain(bench: Bench, window_len: int) -> Result:
    """Measure GET of ten among 3,500 items beside the bare server and the torch handler."""
    spec = Spec(window_len, SMALL)
    with stage(bench, spec, ("bare", "redis", "torch"), num_events=window_len) as here:
        rates = bench.rates(here.cases())
    ours = rates[SOJOURN]
    ratios = {
        f"ratio_{name}_w{window_len}": ratio(ours, rates[name])
        for name in ("bare", "redis", "torch")
    }
    return {"figures": spreads(ratios), "requests_per_s": spreads(rates)}


CASES: dict[str, Callable[[Bench], Result]] = {
    "w50": lambda bench: plain(bench, 50),
    "w200": lambda bench: plain(bench, 200),
}
