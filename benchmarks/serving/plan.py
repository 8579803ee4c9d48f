"""Which parts are measured on which stage, in which order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from benchmarks.serving import cases, redis_memory
from benchmarks.serving.bundles import ensure_bundle
from benchmarks.serving.cases import Result
from benchmarks.serving.catalogue import Spec
from benchmarks.serving.stage import ANEW, Bench, Stage, stage

Part: TypeAlias = Callable[[Bench, Stage], Result]


@dataclass(frozen=True, slots=True)
class Setting:
    """Parts that share a stage; users have as many events as its bundle's window has places.

    `contestants` are who is there besides Sojourn, `quick_contestants` who is in a quick run.
    """

    spec: Spec
    contestants: tuple[str, ...]
    quick_contestants: tuple[str, ...]
    parts: Mapping[str, Part]


SETTINGS = (
    Setting(
        Spec(50, 3_500),
        ("bare", "redis", "torch", ANEW),
        ("bare", "redis", "torch", ANEW),
        {
            "w50": partial(cases.plain, name="w50"),
            "latency": cases.latency,
            "candidates": cases.candidates,
            "variants": cases.variants,
            "rss": cases.rss,
        },
    ),
    Setting(
        Spec(200, 3_500),
        ("bare", "redis", "torch", ANEW),
        ("redis", ANEW),
        {
            "w200": partial(cases.plain, name="w200"),
            "workers": cases.workers,
            # Last: it changes the histories. They are full, so every event makes another leave.
            "events": cases.events,
        },
    ),
    Setting(
        Spec(50, 100_000),
        ("redis", ANEW),
        ("redis",),
        {"100k": partial(cases.plain, name="100k")},
    ),
    Setting(
        Spec(50, 1_000_000),
        (ANEW,),
        (),
        {"1m": cases.million, "starts": cases.starts, "shared": cases.shared},
    ),
)
# On a server of its own, which holds nothing else.
ALONE = "redis"
PARTS = (*(name for setting in SETTINGS for name in setting.parts), ALONE)
# No target hangs on these.
NOT_QUICK = ("variants", "shared")


def make_bundles(bench: Bench, chosen: Sequence[str]) -> None:
    """Make the bundles that the chosen parts need."""
    specs = [setting.spec for setting in SETTINGS if {*setting.parts} & {*chosen}]
    for spec in specs + [redis_memory.SPEC] * (ALONE in chosen):
        ensure_bundle(spec, bench.cache)


def measure(bench: Bench, chosen: Sequence[str]) -> dict[str, Result]:
    """Run the chosen parts, those of one setting on one stage; return their results by name."""
    results: dict[str, Result] = {}
    for setting in SETTINGS:
        parts = {name: part for name, part in setting.parts.items() if name in chosen}
        if not parts:
            continue
        print(f"{setting.spec.num_items:,} items, window {setting.spec.window_len}", flush=True)
        contestants = setting.quick_contestants if bench.quick else setting.contestants
        with stage(bench, setting.spec, contestants) as here:
            for name, part in parts.items():
                print(f" {name}", flush=True)
                results[name] = part(bench, here)
    if ALONE in chosen:
        print(ALONE, flush=True)
        results[ALONE] = redis_memory.redis_memory(bench)
    return results
