"""What is scraped while all is well, and what is scraped otherwise when an alert is to fire.

Series are in promtool's words, `start+step×times`, one value a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

JOB = 'job="sojourn",instance="service:8000"'
COLLECTOR = 'job="sojourn-collector",instance="collector:9101"'
ROUTE = "/v1/users/{user_id}/recommendations"
GET = f'{JOB},route="{ROUTE}",method="GET"'
# Three hours, so that drift has an hour to compare with another one.
MINUTES = 180
Series = Mapping[str, str]


def steady(per_minute: float) -> str:
    """Return a counter that grows by so much a minute."""
    return f"0+{per_minute:g}x{MINUTES}"


def constant(value: float) -> str:
    """Return a gauge that stands."""
    return f"{value:g}x{MINUTES}"


def later(per_minute: float, then_per_minute: float, from_minute: int) -> str:
    """Return a counter whose step changes."""
    reached = per_minute * from_minute
    first = f"0+{per_minute:g}x{from_minute - 1}"
    rest = MINUTES - from_minute
    return f"{first} {reached:g}+{then_per_minute:g}x{rest}"


def histogram(name: str, labels: str, per_minute: float, under: Mapping[str, float]) -> Series:
    """Return a histogram's buckets: of each bound the share of what is at most so much."""
    shares = {**under, "+Inf": 1.0}
    return {
        f'{name}_bucket{{{labels},le="{bound}"}}': steady(per_minute * share)
        for bound, share in shares.items()
    }


def bins(metric: str, labels: str, per_minute: Mapping[str, str]) -> Series:
    """Return counters of bins."""
    return {f'{metric}{{{JOB},{labels},bin="{name}"}}': how for name, how in per_minute.items()}


INPUT_BINS = {"0": steady(10), "1": steady(10), "more": steady(20)}
HEALTHY: Series = {
    f"up{{{JOB}}}": constant(1),
    f"up{{{COLLECTOR}}}": constant(1),
    f'sojourn_request_seconds_count{{{GET},status="200"}}': steady(6_000),
    f'sojourn_request_seconds_count{{{GET},status="503"}}': steady(3),
    **histogram("sojourn_request_seconds", f'{GET},status="200"', 6_000, {"0.25": 1.0, "0.5": 1.0}),
    # Machines are told 503 all the time while something starts; no user is.
    f'sojourn_request_seconds_count{{{JOB},route="/readyz",method="GET",status="503"}}': steady(60),
    f'sojourn_recommendations_total{{{JOB},source="model"}}': steady(5_000),
    f'sojourn_recommendations_total{{{JOB},source="popular"}}': steady(1_000),
    f'sojourn_fallbacks_total{{{JOB},source="popular",reason="no-history"}}': steady(1_000),
    f'sojourn_fallbacks_total{{{JOB},source="popular",reason="redis"}}': steady(5),
    f'sojourn_batch_dropped_total{{{JOB},queue="ranker"}}': steady(0),
    f'sojourn_refused_requests_total{{{JOB},reason="concurrency"}}': steady(0),
    f'sojourn_refused_requests_total{{{JOB},reason="unknown-key"}}': steady(1),
    f'sojourn_refused_requests_total{{{JOB},reason="attempts"}}': steady(0),
    f"sojourn_unhandled_errors_total{{{JOB}}}": steady(0),
    f"sojourn_private_memory_bytes{{{JOB}}}": constant(500e6),
    f"sojourn_memory_limit_bytes{{{JOB}}}": constant(1e9),
    f'sojourn_redis_breaker{{{JOB},state="closed"}}': constant(2),
    f'sojourn_redis_breaker{{{JOB},state="open"}}': constant(0),
    f'sojourn_redis_breaker{{{JOB},state="half-open"}}': constant(0),
    f'sojourn_redis_errors_total{{{JOB},operation="read"}}': steady(1),
    f'sojourn_exposures_total{{{JOB},status="noted"}}': steady(6_000),
    f'sojourn_exposures_total{{{JOB},status="dropped"}}': steady(0),
    f'sojourn_events_total{{{JOB},status="accepted"}}': steady(1_000),
    f'sojourn_events_total{{{JOB},status="rejected"}}': steady(5),
    **histogram("sojourn_event_delay_seconds", JOB, 1_000, {"600.0": 0.95, "3600.0": 1.0}),
    f"sojourn_model_behind{{{JOB}}}": constant(0),
    f'sojourn_model_loads_total{{{JOB},result="refused"}}': steady(0),
    # A backlog that falls to 0 now and then is none.
    f"sojourn_texts_pending{{{JOB}}}": "40 20 0 " * (MINUTES // 3),
    f'sojourn_texts_total{{{JOB},result="failed"}}': steady(0),
    **bins("sojourn_drift_inputs_total", 'input="history"', INPUT_BINS),
    **bins("sojourn_drift_scores_total", 'score="top",model="m1"', INPUT_BINS),
    # So few say nothing, whatever they are.
    **bins(
        "sojourn_drift_inputs_total",
        'input="unknown"',
        {"0": later(1, 0, 120), "more": later(0, 1, 120)},
    ),
    f'sojourn_key_reloads_total{{{JOB},result="refused"}}': steady(0),
    f"sojourn_collector_lag_seconds{{{COLLECTOR}}}": constant(290),
    f'sojourn_collector_errors_total{{{COLLECTOR},kind="redis"}}': steady(0),
    f"sojourn_collector_gaps_total{{{COLLECTOR}}}": steady(0),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What differs from all being well when an alert is to fire; `gone` are series that are not."""

    alert: str
    changed: Series = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    # Other alerts that such a thing rightly fires too.
    also: frozenset[str] = frozenset()

    @property
    def series(self) -> Series:
        """Return everything that is scraped."""
        unknown = {*self.changed, *self.gone} - HEALTHY.keys()
        if unknown:
            raise KeyError(f"not among what is scraped: {unknown}")
        kept = {name: how for name, how in HEALTHY.items() if name not in self.gone}
        return {**kept, **self.changed}


def failing(share: float) -> Series:
    """Return requests of which so many fail."""
    return {f'sojourn_request_seconds_count{{{GET},status="503"}}': steady(6_000 * share)}


def one(name: str, labels: str, how: str, job: str = JOB) -> Series:
    """Return one series."""
    return {f"{name}{{{job}{labels}}}": how}


# Long enough ago for the alert's hour.
MOVED = {"0": later(10, 40, 95), "1": later(10, 10, 95), "more": later(20, 0, 95)}
UP = f"up{{{JOB}}}"
EARLY = "0x170 1x10"
CASES = [
    Case("SojournDown", {UP: constant(0)}),
    Case("SojournDown", gone=(UP,)),
    Case(
        "SojournErrorBudgetFast",
        failing(0.02),
        also=frozenset({"SojournErrorBudget", "SojournErrorBudgetSlow"}),
    ),
    Case("SojournErrorBudget", failing(0.008), also=frozenset({"SojournErrorBudgetSlow"})),
    Case("SojournErrorBudgetSlow", failing(0.002)),
    Case(
        "SojournSlow",
        histogram(
            "sojourn_request_seconds", f'{GET},status="200"', 6_000, {"0.25": 0.98, "0.5": 1.0}
        ),
    ),
    Case(
        "SojournDegraded",
        one("sojourn_fallbacks_total", ',source="popular",reason="redis"', steady(400)),
    ),
    Case(
        "SojournDegraded",
        one("sojourn_fallbacks_total", ',source="popular",reason="redis"', steady(600)),
    ),
    Case("SojournOverloaded", one("sojourn_batch_dropped_total", ',queue="ranker"', steady(30))),
    Case(
        "SojournOverloaded",
        one("sojourn_refused_requests_total", ',reason="concurrency"', steady(30)),
    ),
    Case("SojournBug", one("sojourn_unhandled_errors_total", "", EARLY)),
    Case("SojournMemory", one("sojourn_private_memory_bytes", "", constant(950e6))),
    Case("SojournRedisBreakerOpen", one("sojourn_redis_breaker", ',state="open"', constant(1))),
    Case(
        "SojournRedisBreakerOpen", one("sojourn_redis_breaker", ',state="half-open"', constant(1))
    ),
    Case("SojournRedisErrors", one("sojourn_redis_errors_total", ',operation="read"', steady(60))),
    Case("SojournExposuresDropped", one("sojourn_exposures_total", ',status="dropped"', EARLY)),
    Case("SojournEventsRejected", one("sojourn_events_total", ',status="rejected"', steady(100))),
    Case(
        "SojournEventsLate",
        histogram("sojourn_event_delay_seconds", JOB, 1_000, {"600.0": 0.2, "3600.0": 1.0}),
    ),
    Case("SojournModelBehind", one("sojourn_model_behind", "", constant(1))),
    Case("SojournModelRefused", one("sojourn_model_loads_total", ',result="refused"', EARLY)),
    Case("SojournTextBacklog", one("sojourn_texts_pending", "", constant(3))),
    Case("SojournTextsFailed", one("sojourn_texts_total", ',result="failed"', EARLY)),
    Case("SojournInputDrift", bins("sojourn_drift_inputs_total", 'input="history"', MOVED)),
    Case("SojournScoreDrift", bins("sojourn_drift_scores_total", 'score="top",model="m1"', MOVED)),
    Case(
        "SojournKeyGuesses",
        one("sojourn_refused_requests_total", ',reason="unknown-key"', steady(20)),
    ),
    Case("SojournKeysRefused", one("sojourn_key_reloads_total", ',result="refused"', EARLY)),
    Case("SojournCollectorDown", {f"up{{{COLLECTOR}}}": constant(0)}),
    # Its container ended, and with it its name.
    Case(
        "SojournCollectorDown",
        {f"up{{{COLLECTOR}}}": "1x90"},
        gone=(f"sojourn_collector_lag_seconds{{{COLLECTOR}}}",),
    ),
    Case(
        "SojournCollectorLag",
        one("sojourn_collector_lag_seconds", "", constant(1_300), COLLECTOR),
    ),
    Case(
        "SojournCollectorFailing",
        one("sojourn_collector_errors_total", ',kind="redis"', steady(1), COLLECTOR),
    ),
    Case("SojournCollectorGap", one("sojourn_collector_gaps_total", "", EARLY, COLLECTOR)),
]
