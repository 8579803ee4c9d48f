"""Ranking quality of our trainer beside RecTools' HSTU and SASRec: same splits, same metric code.

For each data set and task the split is made once. `known` and `blind` are leave-one-out with and
without times; `temporal` is the global temporal split and `trajectory` the one of check-ins, both
with times. All models are stopped on the same validation cases by NDCG@10, tested once, and ranked
by training.metrics.target_ranks under both rules for seen items. Finished models are kept in
--work, so an interrupted run goes on; --add takes the rows of earlier reports over.

    python benchmarks/quality_peers.py --json peers.json
    python benchmarks/quality_peers.py --datasets ml-100k --tasks known --seeds 1 --quick --json -
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from peers.environment import peer_python
from peers.models import Bench, Prepared, measure_ours, measure_peer, prepare
from peers.plan import DATASET_TASKS, PEERS, TASKS, peer_jobs
from peers.report import ratio_key, report, show


def main() -> None:
    """Measure what is asked for and write the report after every model."""
    arguments = parse()
    bench = Bench(
        work=arguments.work,
        python=peer_python(arguments.peer_python) if arguments.peers else None,
        num_threads=arguments.threads,
        stopping_cases=arguments.stopping_cases,
        quick=arguments.quick,
        configs=dict(entry.split("=", 1) for entry in arguments.config),
    )
    found = [row for path in arguments.add for row in json.loads(path.read_text("utf-8"))["rows"]]
    for seed in arguments.seeds:
        for dataset in arguments.datasets:
            for task in arguments.tasks or DATASET_TASKS[dataset]:
                prepared = prepare(bench, arguments.data_dir / dataset, dataset, task)
                for row in measure(bench, prepared, arguments, seed):
                    found.append(row)
                    write(arguments.json, report(found, vars(arguments)))
    document = report(found, vars(arguments))
    write(arguments.json, document)
    show(document)


def measure(
    bench: Bench, prepared: Prepared, arguments: argparse.Namespace, seed: int
) -> list[dict[str, Any]]:
    """Return the figures of every model on one split with one seed."""
    rows = []
    for peer in arguments.peers:
        jobs = peer_jobs(peer, prepared.dataset, prepared.task, seed, quick=bench.quick)
        rows.append(measure_peer(bench, prepared, jobs, seed))
    if not arguments.skip_ours:
        rows.append(measure_ours(bench, prepared, seed))
    for row in rows:
        rule = prepared.rule
        print(
            f"{ratio_key(prepared.task, prepared.dataset)}  {row['model']}  seed {seed}  "
            f"ndcg@10 {row['test'][rule]['ndcg@10']:.4f} ({rule})",
            flush=True,
        )
    return rows


def write(path: str, document: dict[str, Any]) -> None:
    """Write the report, to the screen for `-`."""
    text = json.dumps(document, indent=2) + "\n"
    if path == "-":
        return
    aside = Path(path).with_suffix(".tmp")
    aside.write_text(text, "utf-8")
    aside.replace(path)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--datasets", type=listed(str), default=list(DATASET_TASKS))
    parser.add_argument("--tasks", type=listed(str), help="those of the data set, if absent")
    parser.add_argument("--seeds", type=listed(int), default=[1, 2, 3])
    parser.add_argument("--peers", type=listed(str), default=list(PEERS), help="'' for none")
    parser.add_argument(
        "--config", action="append", default=[], metavar="NAME=FILE",
        help="our settings for a task, NAME being a task or data set:task; default: the presets",
    )  # fmt: skip
    parser.add_argument("--skip-ours", action="store_true", help="measure the peers alone")
    parser.add_argument("--quick", action="store_true", help="two epochs, few cases: a smoke test")
    parser.add_argument("--stopping-cases", type=int, default=2000, help="validation, every epoch")
    parser.add_argument("--threads", type=int, default=1, help="torch's, for every model")
    parser.add_argument("--work", type=Path, default=Path("runs/peers"))
    parser.add_argument("--peer-python", type=Path, help="an interpreter with RecTools")
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="reports to add to")
    parser.add_argument("--json", required=True, help="where the report goes, - for nowhere")
    arguments = parser.parse_args()
    choices = {"datasets": DATASET_TASKS, "peers": PEERS, "tasks": TASKS}
    for name, known in choices.items():
        unknown = [entry for entry in getattr(arguments, name) or () if entry not in known]
        if unknown:
            parser.error(f"--{name} {unknown[0]!r} is unknown; there are {', '.join(known)}")
    return arguments


def listed(kind: type) -> Any:
    """Return a reader of comma-separated values."""
    return lambda text: [kind(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
