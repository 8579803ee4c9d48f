"""Who is measured, and the stage that they share: one Valkey, the same users, a core each."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from benchmarks.serving import loads, users
from benchmarks.serving.bundles import Made, ensure_bundle
from benchmarks.serving.catalogue import Spec
from benchmarks.serving.generator import closed_loop, randomly
from benchmarks.serving.processes import Server, free_port, running
from benchmarks.serving.requests import Load, Stamps
from benchmarks.serving.statistics import Spread
from benchmarks.serving.wrk import run_wrk
from service.store.embedded import EmbeddedValkey

CONNECTIONS = 32
WARM_UP_S = 1.0
FACTORIES = {
    "bare": "benchmarks.serving.bare_app:bare",
    "redis": "benchmarks.serving.bare_app:with_redis",
    "torch": "benchmarks.serving.torch_app:app",
}
SOJOURN = "sojourn"
# The same without what is kept between requests: as if each of them followed an event of its user.
ANEW = "anew"
KEEPS_NOTHING = {"SOJOURN_KEPT_READINGS_MIB": "0"}
GENERATORS = WRK, BUILT_IN = ("wrk", "built-in")
UVICORN = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]


def installed_generator() -> str:
    """Return the generator that measures throughput where none is asked for."""
    return WRK if shutil.which(WRK) else BUILT_IN


@dataclass(slots=True)
class Bench:
    """How a run measures. `folder` is for logs and the servers' files, `cache` for bundles."""

    rounds: int
    seconds: float
    num_users: int
    cache: Path
    folder: Path
    quick: bool
    generator: str
    stamps: Stamps = field(default_factory=Stamps)

    def rate(self, server: Server, load: Load, seconds: float) -> float:
        """Return a server's answers per second; raises BenchmarkFailed for a wrong answer."""
        # More times than there can be requests: a stamp is given out once in a run.
        first_ms = self.stamps.take(int(seconds * 10_000) if load.is_stamped else 0)
        if self.generator == WRK:
            return run_wrk(
                server.port, load, connections=CONNECTIONS, seconds=seconds, first_ms=first_ms
            )
        requests = randomly(load, first_ms)
        return closed_loop(
            server.port, requests, load.expected, connections=CONNECTIONS, seconds=seconds
        )

    def rates(
        self, cases: Mapping[str, tuple[Server, Load]], *, at_least_s: float = WARM_UP_S
    ) -> dict[str, Spread]:
        """Return each case's answers per second, measured in turn in every round.

        Every round begins with another one, so that none always comes after the same.
        Also in a quick run a measurement takes `at_least_s`, as the warm-up does.
        """
        seconds = max(self.seconds, at_least_s)
        for server, load in cases.values():
            self.rate(server, load, at_least_s)
        found: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(self.rounds):
            first = number % len(cases)
            for name in [*cases][first:] + [*cases][:first]:
                server, load = cases[name]
                found[name].append(self.rate(server, load, seconds))
        for name, rounds in found.items():
            print(f"  {name:<24}{Spread(tuple(rounds)).median:>10,.0f} a second", flush=True)
        return {name: Spread(tuple(rounds)) for name, rounds in found.items()}


@dataclass(frozen=True, slots=True)
class Stage:
    """Servers that are up, by name, and the users whose histories are stored."""

    made: Made
    users: users.Users
    redis_url: str
    servers: Mapping[str, Server]

    def cases(self) -> dict[str, tuple[Server, Load]]:
        """Return what each server is asked for the plain case: a user's ten best."""
        ids = self.users.user_ids()
        return {
            name: (server, loads.recommend(ids) if name in (SOJOURN, ANEW) else loads.bare(ids))
            for name, server in self.servers.items()
        }


@contextmanager
def stage(bench: Bench, spec: Spec, contestants: tuple[str, ...]) -> Iterator[Stage]:
    """Start a Valkey, Sojourn and others, and store full windows of users, until the block ends."""
    made = ensure_bundle(spec, bench.cache)
    with ExitStack() as stack:
        redis_url = stack.enter_context(valkey(bench))
        ours = stack.enter_context(sojourn(bench, made, redis_url))
        people = users.draw(spec, bench.num_users, spec.window_len)
        started = perf_counter()
        users.write(ours.port, people)
        taken = perf_counter() - started
        print(f"  {people.items.size:,} events stored in {taken:.1f} s", flush=True)
        servers = {SOJOURN: ours}
        for name in contestants:
            env = {"BENCH_REDIS_URL": redis_url, "BENCH_MODEL": str(made.folder)}
            server = (
                sojourn(bench, made, redis_url, env=KEEPS_NOTHING)
                if name == ANEW
                else _plain(bench, name, env)
            )
            servers[name] = stack.enter_context(server)
        yield Stage(made, people, redis_url, servers)


@contextmanager
def valkey(bench: Bench) -> Iterator[str]:
    """Run the embedded Valkey with its default options on our own core; yield its URL."""
    data_dir = bench.folder / "valkey"
    with EmbeddedValkey(data_dir) as server:
        yield server.url
    shutil.rmtree(data_dir)


@contextmanager
def sojourn(
    bench: Bench,
    made: Made,
    redis_url: str,
    *,
    workers: int = 1,
    cores: tuple[int, ...] = (0,),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run the service with its default settings, but for those in `env`."""
    port = free_port()
    command = ["-m", "service", "run", "--bundle", str(made.bundle), "--redis", redis_url]
    command += ["--port", str(port), "--workers", str(workers)]
    log = bench.folder / "sojourn.log"
    with running(
        SOJOURN, command, port, log=log, ready_path="/readyz", cores={*cores}, env=env
    ) as server:
        yield server


@contextmanager
def _plain(bench: Bench, name: str, env: Mapping[str, str]) -> Iterator[Server]:
    port = free_port()
    command = ["-m", "uvicorn", "--factory", FACTORIES[name], "--port", str(port), *UVICORN]
    log = bench.folder / f"{name}.log"
    with running(name, command, port, log=log, ready_path="/users/nobody", env=env) as server:
        yield server
