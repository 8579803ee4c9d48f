"""Where the time of a request goes: samples of the running service, as a table and a picture.

The service runs as in benchmarks/serve.py, on core 0, with users' full windows of 50 events and
3,500 items; 32 connections ask for ten items each while py-spy takes stacks. py-spy is installed
into build/profile-tools when it is first needed, and must be allowed to trace another process.

    python benchmarks/hot_path.py
    python benchmarks/hot_path.py --seconds 60 --svg build/hot-path.svg --raw build/stacks.txt
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What is measured is the code beside this file, whatever is installed.
sys.path.insert(0, str(ROOT))

from benchmarks.serving.bundles import ensure_bundle
from benchmarks.serving.catalogue import Spec
from benchmarks.serving.flame_graph import flame_graph
from benchmarks.serving.processes import CLIENT_CORE, status_of
from benchmarks.serving.sampler import STARTS_WITHIN_S, Sampling, install, sampled
from benchmarks.serving.stacks import read_stacks, shares, tree
from benchmarks.serving.stage import GENERATORS, SOJOURN, Bench, installed_generator, stage

SVG = ROOT / "docs" / "pictures" / "hot-path.svg"
SPEC = Spec(window_len=50, num_items=3_500)
NUM_USERS = 500
# Whole seconds, as wrk counts them.
ALONE_S = 4
# A sample stops the service for a millisecond or two, the first for longer: no request is to be
# answered without the model for that.
PATIENCE = {"SOJOURN_REQUEST_DEADLINE_MS": "10000", "SOJOURN_REDIS_TIMEOUT_MS": "5000"}


@dataclass(frozen=True, slots=True)
class Rates:
    """Answers a second, alone and while sampled; the service's µs of CPU an answer, alone."""

    alone: float
    while_sampled: float
    cpu_us: float


def main() -> int:
    """Sample, print the table, write the picture; whatever fails ends with status 1."""
    arguments = parse()

    def profile() -> None:
        install()
        with tempfile.TemporaryDirectory(prefix="sojourn-profile-") as folder:
            run(arguments, Path(folder))

    return status_of(profile)


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure, and write what is asked for."""
    raw = folder / "stacks.txt"
    sampling = Sampling(arguments.rate, arguments.seconds, not arguments.python_only)
    rates = measure(arguments, folder, sampling, raw)
    with raw.open(encoding="utf-8") as lines:
        top = tree(read_stacks(lines), "the service")
    title = (
        f"GET of ten items, window {SPEC.window_len}, {SPEC.num_items:,} items: "
        f"{rates.cpu_us:,.0f} µs of the service's core a request, {top.count:,} samples"
    )
    arguments.svg.parent.mkdir(parents=True, exist_ok=True)
    arguments.svg.write_text(flame_graph(top, title), "utf-8")
    if arguments.raw is not None:
        shutil.copyfile(raw, arguments.raw)
    show(title, shares(top), rates)
    print(f"\nthe picture is in {arguments.svg}")


def measure(arguments: argparse.Namespace, folder: Path, sampling: Sampling, raw: Path) -> Rates:
    """Run the service under load, first alone, then sampled into `raw`."""
    os.environ.update(PATIENCE)
    bench = Bench(
        rounds=1,
        seconds=sampling.seconds,
        num_users=NUM_USERS,
        cache=arguments.cache,
        folder=folder,
        quick=True,
        generator=arguments.generator or installed_generator(),
    )
    ensure_bundle(SPEC, bench.cache)
    os.sched_setaffinity(0, {CLIENT_CORE})
    with stage(bench, SPEC, ()) as here:
        server, load = here.cases()[SOJOURN]
        bench.rate(server, load, 1)
        before = cpu_s(server.pid)
        alone = bench.rate(server, load, ALONE_S)
        cpu_us = 1e6 * (cpu_s(server.pid) - before) / (alone * ALONE_S)
        with sampled(server.pid, sampling, raw):
            while_sampled = bench.rate(server, load, sampling.seconds + STARTS_WITHIN_S)
    return Rates(alone, while_sampled, cpu_us)


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used, its threads' and the kernel's for it."""
    after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def show(title: str, by_part: Mapping[str, float], rates: Rates) -> None:
    """Print the table of parts."""
    print(f"\n{title}\n{rates.alone:,.0f} a second, {rates.while_sampled:,.0f} while sampled\n")
    print(f"{'':<26}{'share':>8}{'µs a request':>16}")
    for part, share in by_part.items():
        print(f"{part:<26}{share:>8.1%}{share * rates.cpu_us:>16,.0f}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--svg", type=Path, default=SVG, help="where the picture goes")
    parser.add_argument("--raw", type=Path, help="where the stacks go, for other tools")
    parser.add_argument("--seconds", type=int, default=20, help="of sampling")
    parser.add_argument("--rate", type=int, default=50, help="samples a second")
    parser.add_argument("--python-only", action="store_true", help="no frames of libraries")
    parser.add_argument("--generator", choices=GENERATORS, help="wrk if it is installed")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "bench", help="of bundles")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
