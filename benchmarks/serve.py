"""Sojourn's serving against the bare server, in one run on two cores.

Core 0 has the server, core 1 the load generator and the Valkey that all contestants share.
Contestants are measured in turn in every round, ratios are taken within a round, and what is
printed are medians over the rounds. docs/performance.md says what each figure means.

    python benchmarks/serve.py --json serve.json
    python benchmarks/serve.py --json serve.json --quick
    python benchmarks/serve.py --json - --only w50,latency --rounds 5 --seconds 2
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What is measured is the code beside this file, whatever is installed.
sys.path.insert(0, str(ROOT))

from benchmarks.serving import plan
from benchmarks.serving.processes import CLIENT_CORE, status_of
from benchmarks.serving.report import report, show, write
from benchmarks.serving.stage import GENERATORS, Bench, installed_generator

FULL, QUICK = (
    {"rounds": 5, "seconds": 5.0, "users": 3_000},
    {"rounds": 3, "seconds": 1.0, "users": 500},
)


def main() -> int:
    """Measure what is asked for, print it and write it; a wrong answer ends with status 1."""
    arguments = parse()

    def run() -> None:
        document = measure(arguments)
        show(document)
        write(arguments.json, document)

    return status_of(run)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Run the parts and return the report."""
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as folder:
        bench = Bench(
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            num_users=arguments.users,
            cache=arguments.cache,
            folder=Path(folder),
            quick=arguments.quick,
            generator=arguments.generator or installed_generator(),
        )
        # Made on all cores, measured on ours.
        plan.make_bundles(bench, arguments.only)
        os.sched_setaffinity(0, {CLIENT_CORE})
        return report(plan.measure(bench, arguments.only), bench)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", required=True, help="where the report goes, - for nowhere")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, less of everything")
    parser.add_argument(
        "--only", type=lambda text: text.split(","),
        help=f"parts by commas, of {', '.join(plan.PARTS)}; "
        f"all of them, quick without {', '.join(plan.NOT_QUICK)}",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="5, quick 3")
    parser.add_argument("--seconds", type=float, help="of each measurement: 5, quick 1")
    parser.add_argument("--users", type=int, help="with a history: 3,000, quick 500")
    parser.add_argument("--generator", choices=GENERATORS, help="wrk if it is installed")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "bench", help="of bundles")
    arguments = parser.parse_args()
    if arguments.only is None:
        left_out = plan.NOT_QUICK if arguments.quick else ()
        arguments.only = [name for name in plan.PARTS if name not in left_out]
    unknown = [name for name in arguments.only if name not in plan.PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]!r} is unknown; there are {', '.join(plan.PARTS)}")
    for name, value in (QUICK if arguments.quick else FULL).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
