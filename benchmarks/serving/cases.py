"""What is measured on a stage: each part gives figures by key, and what they were made of."""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

from benchmarks.serving import loads
from benchmarks.serving.costs import event_costs, rate_beside_load
from benchmarks.serving.generator import open_loop
from benchmarks.serving.memory import process_mib, rss_mib, worker_pids
from benchmarks.serving.metrics import encoded_windows
from benchmarks.serving.recall import recall
from benchmarks.serving.requests import BenchmarkFailed
from benchmarks.serving.stage import ANEW, KEEPS_NOTHING, SOJOURN, WARM_UP_S, Bench, Stage, sojourn
from benchmarks.serving.statistics import Spread, ratio

# What a part gives: `figures` by key of the report, and all that they were made of.
Result: TypeAlias = dict[str, Any]

ARRIVALS_PER_S = 1_000.0
ARRIVAL_CONNECTIONS = 64
USERS_OF_RECALL, QUICK_USERS_OF_RECALL = 400, 200
USERS_PER_POST, QUICK_USERS_PER_POST = (1, 10, loads.EVENTS_PER_POST), (1, 10)
NUM_STARTS, QUICK_NUM_STARTS = 3, 2
# A full batch of exact scores of a million items takes more than a second.
MILLION_S = 3.0


def spreads(rates: Mapping[str, Spread]) -> dict[str, Any]:
    """Return what the report holds of rates."""
    return {name: spread.document() for name, spread in rates.items()}


def one(figure: float) -> dict[str, Any]:
    """Return what the report holds of a figure that was taken once."""
    return Spread((figure,)).document()


def plain(bench: Bench, here: Stage, name: str) -> Result:
    """Measure GET of ten beside every contestant; the ratios' keys end in `name`."""
    server = here.servers[SOJOURN]
    before = encoded_windows(server.port)
    rates = bench.rates(here.cases())
    others = [other for other in rates if other not in (SOJOURN, ANEW)]
    ratios = {f"ratio_{other}_{name}": ratio(rates[SOJOURN], rates[other]) for other in others}
    if ANEW in rates:
        ratios[f"ratio_redis_{name}_anew"] = ratio(rates[ANEW], rates["redis"])
    return {
        "figures": spreads(ratios),
        "requests_per_s": spreads(rates),
        "share_kept": share_kept(before, encoded_windows(server.port)),
    }


def share_kept(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the share of the requests between two counts whose encoding was known."""
    new = {source: number - before[source] for source, number in after.items()}
    return new["kept"] / max(1.0, sum(new.values()))


def latency(bench: Bench, here: Stage) -> Result:
    """Measure GET of ten at a constant 1,000 requests a second, and the bare read of Redis."""
    cases = here.cases()
    names = [name for name in (SOJOURN, ANEW, "redis") if name in cases]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(bench.rounds):
        for name, rounds in taken.items():
            server, load = cases[name]
            arrive = partial(
                open_loop, server.port, load, rate=ARRIVALS_PER_S, connections=ARRIVAL_CONNECTIONS
            )
            # The contestant before has taken the caches of the core: its successor's first second
            # would be about that, and at this rate a hundredth of the answers is soon that second.
            arrive(seconds=WARM_UP_S)
            rounds.append(arrive(seconds=2 * bench.seconds).figures())
    found = {
        name: {key: Spread(tuple(row[key] for row in rounds)) for key in rounds[0]}
        for name, rounds in taken.items()
    }
    for name, figures in found.items():
        print(f"  {name:<24}{figures['p99_ms'].median:>10,.2f} ms, p99", flush=True)
    keys = {SOJOURN: "p99_ms_1000rps", ANEW: "p99_ms_1000rps_anew"}
    return {
        "figures": spreads({keys[name]: found[name]["p99_ms"] for name in keys if name in found}),
        "latency": {name: spreads(figures) for name, figures in found.items()},
        "latency_generator": "benchmarks/serving/generator.py",
    }


def candidates(bench: Bench, here: Stage) -> Result:
    """Measure POST with 500 candidates beside the bare read of Redis."""
    cases, ids = here.cases(), here.users.user_ids()
    load = loads.candidates(ids, here.made.spec.num_items)
    keys = {SOJOURN: "ratio_redis_500_candidates", ANEW: "ratio_redis_500_candidates_anew"}
    ours = {name: (here.servers[name], load) for name in keys if name in here.servers}
    rates = bench.rates(ours | {"redis": cases["redis"]})
    found = {keys[name]: ratio(rates[name], rates["redis"]) for name in ours}
    return {"figures": spreads(found), "requests_per_s": spreads(rates)}


def variants(bench: Bench, here: Stage) -> Result:
    """Measure users without events, filters and diversity beside the plain case."""
    server, ids = here.servers[SOJOURN], here.users.user_ids()
    cases = {
        "plain": loads.recommend(ids),
        "no_events": loads.cold(len(ids)),
        "filter": loads.filtered(ids),
        "diversity": loads.diverse(ids),
    }
    rates = bench.rates({name: (server, load) for name, load in cases.items()})
    found = {f"ratio_plain_{name}": ratio(rates[name], rates["plain"]) for name in cases}
    del found["ratio_plain_plain"]
    return {"figures": spreads(found), "requests_per_s": spreads(rates)}


def events(bench: Bench, here: Stage) -> Result:
    """Measure what storing 50 new events a post takes: all of one user, of ten users, and of fifty.

    By the clock it is the rate of Valkey, which shares a core with the generator; so what counts is
    how many events the service stores in each second that it has a core.
    """
    server, ids = here.servers[SOJOURN], here.users.user_ids()
    cases = {
        f"{count}_users": (server, loads.events(ids, here.made.spec.num_items, count))
        for count in (QUICK_USERS_PER_POST if bench.quick else USERS_PER_POST)
    }
    posts = bench.rates(cases)
    by_clock = {
        name: Spread(tuple(rate * loads.EVENTS_PER_POST for rate in spread.rounds))
        for name, spread in posts.items()
    }
    ours, valkeys = {}, {}
    for name in (f"{count}_users" for count in QUICK_USERS_PER_POST):
        costs = [event_costs(bench, *cases[name], here.redis_url) for _ in range(bench.rounds)]
        ours[name], valkeys[name] = (Spread(tuple(rounds)) for rounds in zip(*costs, strict=True))
        print(f"  {name:<24}{ours[name].median:>10,.0f} events a core-second", flush=True)
    figures = {"events_per_s": ours["10_users"], "events_per_s_by_clock": by_clock["10_users"]}
    return {
        "figures": spreads(figures),
        "events_per_s_of_a_core": spreads(ours),
        "events_per_s_of_valkeys_core": spreads(valkeys),
        "events_per_s_by_clock": spreads(by_clock),
    }


def rss(bench: Bench, here: Stage) -> Result:
    """Take the memory of the one worker after load."""
    server, load = here.cases()[SOJOURN]
    bench.rate(server, load, bench.seconds)
    return {
        "figures": {"rss_mib": one(rss_mib(server.pid))},
        "memory_mib": process_mib(server.pid),
    }


def workers(bench: Bench, here: Stage) -> Result:
    """Measure two workers on both cores, which they share with the load, beside one on its own.

    They keep nothing: the less a request takes, the more of a core is the load's own. What the load
    took of the two cores is measured too: with a core each the workers would have had that as well.
    """
    case = here.cases()[ANEW]
    one, two, load_cores = [], [], []
    with sojourn(
        bench, here.made, here.redis_url, workers=2, cores=(0, 1), env=KEEPS_NOTHING
    ) as both:
        for server in (case[0], both):
            bench.rate(server, case[1], WARM_UP_S)
        for _ in range(bench.rounds):
            one.append(bench.rate(*case, bench.seconds))
            rate, cores = rate_beside_load(bench, both, case[1], here.redis_url)
            two.append(rate)
            load_cores.append(cores)
    rates = {"1_worker": Spread(tuple(one)), "2_workers": Spread(tuple(two))}
    free = Spread(
        tuple(rate * 2 / (2 - cores) for rate, cores in zip(two, load_cores, strict=True))
    )
    figures = {
        "workers_ratio": ratio(free, rates["1_worker"]),
        "workers_ratio_with_load": ratio(rates["2_workers"], rates["1_worker"]),
    }
    for name, figure in figures.items():
        print(f"  {name:<24}{figure.median:>10.2f}", flush=True)
    return {
        "figures": spreads(figures),
        "requests_per_s": spreads(rates),
        "cores_of_load": Spread(tuple(load_cores)).document(),
    }


def million(bench: Bench, here: Stage) -> Result:
    """Measure GET of ten among a million items, and how many of the exact ten best they are."""
    cases = here.cases()
    server = here.servers[SOJOURN]
    num_users = QUICK_USERS_OF_RECALL if bench.quick else USERS_OF_RECALL
    found = recall(server.port, here.made, here.users, num_users)
    print(f"  recall@10 {found:.4f}", flush=True)
    rates = bench.rates(cases, at_least_s=MILLION_S)
    figures = {"rps_1m": rates[SOJOURN].document(), "recall_1m": one(found)}
    if ANEW in rates:
        figures["rps_1m_anew"] = rates[ANEW].document()
    return {
        "figures": figures,
        "memory_mib": process_mib(server.pid),
        "users_of_recall": num_users,
    }


def starts(bench: Bench, here: Stage) -> Result:
    """Take the time from a process's start to its /readyz, the stage's own included."""
    seconds, resident = [here.servers[SOJOURN].ready_s], []
    for _ in range((QUICK_NUM_STARTS if bench.quick else NUM_STARTS) - 1):
        with sojourn(bench, here.made, here.redis_url) as server:
            seconds.append(server.ready_s)
            resident.append(rss_mib(server.pid))
    print(f"  ready in {Spread(tuple(seconds)).median:.2f} s", flush=True)
    return {
        "figures": {"ready_s_1m": Spread(tuple(seconds)).document()},
        "rss_mib_when_ready": Spread(tuple(resident)).document(),
    }


def shared(bench: Bench, here: Stage) -> Result:
    """Take the memory of two workers, and of it the item matrix's, after both have answered."""
    load = here.cases()[SOJOURN][1]
    with sojourn(bench, here.made, here.redis_url, workers=2, cores=(0, 1)) as both:
        bench.rate(both, load, max(bench.seconds, MILLION_S))
        found = [process_mib(pid) for pid in worker_pids(both.pid)]
    if len(found) != 2:  # noqa: PLR2004 - asked for above
        raise BenchmarkFailed(f"two workers were asked for, {len(found)} are there")
    return {"figures": {}, "workers_mib": found}
