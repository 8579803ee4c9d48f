"""The command line: parse, call one function per stage, say where the result is."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from service.contract.errors import ContractError
from training.cold_start import cold_item_figures, cold_user_figures
from training.config import Protocol, TrainingError, load_run_config, preset_names
from training.demo_data import fetch_demo_data
from training.distributed import join_ranks
from training.export import export_bundle, onnx_scorer
from training.files import write_json
from training.import_commands import Out, importers
from training.importers.movielens import MOVIELENS_NOTICE
from training.importers.writing import hold_items_out
from training.model_config import RequestTime
from training.report import REPORT_FILE, write_evaluation_report
from training.runs import evaluate_run, load_run, read_inputs, run_documents
from training.search.command import search_command
from training.tracking import train_with_report, write_findings
from training.train import METRICS_FILE

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn an event log into a bundle: import, train, evaluate, export.",
)
app.add_typer(importers, name="import")
app.command("search")(search_command)

Run = Annotated[Path, typer.Option("--run", help="The folder of a training run.")]
LOG_FILE_WIDTH = 200
SHOWN_METRICS = ("hr@10", "ndcg@10", "mrr", "coverage@10")


@app.command("fetch-demo")
def fetch_demo_command(out: Out) -> None:
    """Get MovieLens-100K out of the RecBole wheel, for `import movielens`.

    Example: python -m training fetch-demo --out data/ml-100k
    """
    for path in fetch_demo_data(out):
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")
    typer.echo(MOVIELENS_NOTICE)


@app.command("train")
def train_command(
    *,
    data: Annotated[Path, typer.Option("--data", help="A dataset that `import` wrote.")],
    out: Out,
    preset: Annotated[str, typer.Option(help="One of: " + ", ".join(preset_names()))] = "base",
    config: Annotated[Path | None, typer.Option(help="A TOML file over the preset.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    wandb: Annotated[
        str, typer.Option(help="A project of Weights & Biases; WANDB_MODE=offline sends nothing.")
    ] = "",
    export: Annotated[
        Path | None, typer.Option(help="Export the run as a bundle into this folder at its end.")
    ] = None,
) -> None:
    """Train a model; goes on where it was when the run has a checkpoint.

    Example: python -m training train --data data/ml-1m --out runs/ml-1m --set loop.seed=2
    """
    run_config = load_run_config(preset, config, set_ or [])
    inputs = read_inputs(data, run_config)
    state = train_with_report(inputs, run_config, out, wandb)
    typer.echo(
        f"best validation score {state.best_score:.4f} at epoch {state.best_epoch} of "
        f"{state.epoch}; {out / METRICS_FILE}"
    )
    if export is not None and join_ranks().writes:
        export_command(out, export)


@app.command("report")
def report_command(run: Run) -> None:
    """Write the report of a finished run anew.

    Example: python -m training report --run runs/ml-1m
    """
    write_findings(run, load_run(run))
    typer.echo(f"{run / REPORT_FILE}")


@app.command("evaluate")
def evaluate_command(
    *,
    run: Run,
    split: Annotated[Literal["validation", "test"], typer.Option()] = "test",
    protocol: Annotated[Protocol | None, typer.Option(help="Must be the run's own.")] = None,
    request_time: Annotated[RequestTime | None, typer.Option(help="The run's, if absent.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    page: Annotated[Path | None, typer.Option("--report", help="Write an HTML page.")] = None,
    engine: Annotated[Literal["torch", "onnx"], typer.Option()] = "torch",
) -> None:
    """Rank all items for every held-out event, beside the baselines.

    Example: python -m training evaluate --run runs/ml-1m --split test
    --protocol leave-one-out --request-time unknown --json test.json --report test.html
    """
    make_scorer = onnx_scorer if engine == "onnx" else None
    report = evaluate_run(run, split, protocol, request_time, make_scorer)
    _print_report(report)
    if json_file is not None:
        write_json(json_file, report)
    if page is not None:
        write_evaluation_report(page, report, *run_documents(run))


@app.command("hold-out")
def hold_out_command(
    dataset: Annotated[Path, typer.Option(help="A dataset made by import.")],
    out: Out,
    share: Annotated[float, typer.Option(help="The share of the items.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Draws the items.")] = 1,
) -> None:
    """Write a dataset without the events of some items, to measure new items with.

    Example: python -m training hold-out --dataset data/industrial --out data/industrial-90
    """
    info = hold_items_out(dataset, share, seed, out)
    typer.echo(
        f"{out}: {info.num_events:,} events of {info.num_items:,} items, "
        f"{info.dropped['held_out_item']:,} events left out"
    )


@app.command("cold-items")
def cold_items_command(
    *,
    run: Run,
    dataset: Annotated[Path, typer.Option(help="The whole dataset that hold-out read.")],
    group: Annotated[str, typer.Option(help="An attribute to take as category.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
) -> None:
    """Rank items that a run never met by their texts, beside chance and their category.

    Example: python -m training cold-items --run runs/industrial-90 --dataset data/industrial
    """
    figures = cold_item_figures(load_run(run), dataset, group)
    for name in ("among_all", "among_new"):
        ways = figures[name]
        typer.echo(f"{name}: {figures['num_cases']:,} cases, {ways['num_candidates']:,} items")
        for way in (way for way in ("run", "category_popularity", "chance") if way in ways):
            typer.echo(f"  {way:<22}recall@50 {ways[way]['recall@50']:.4f}")
    if json_file is not None:
        write_json(json_file, figures)


@app.command("cold-users")
def cold_users_command(
    *,
    run: Run,
    split: Annotated[Literal["validation", "test"], typer.Option()] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
) -> None:
    """Rank for users of whom only the last none, one, two or three events are known.

    Example: python -m training cold-users --run runs/ml-1m
    """
    figures = cold_user_figures(load_run(run), split)
    for way, found in figures.items():
        typer.echo(f"  {way:<12}ndcg@10 {found['ndcg@10']:.4f}")
    if json_file is not None:
        write_json(json_file, figures)


@app.command("export")
def export_command(run: Run, out: Out) -> None:
    """Export a run as a bundle: OUT/<version>/, named in OUT/CURRENT.

    Example: python -m training export --run runs/ml-1m --out bundles
    """
    bundle, manifest = export_bundle(run, out)
    typer.echo(
        f"torch and ONNX Runtime differ by at most {manifest.parity_max_abs:.2e} "
        f"on the golden windows (opset {manifest.onnx_opset})"
    )
    typer.echo(f"bundle {bundle}")


def main() -> None:
    """Run the command line; what a person can mend is one line, not a traceback."""
    # A file has no width; a line that is cut in two cannot be searched.
    console = Console(stderr=True, width=None if sys.stderr.isatty() else LOG_FILE_WIDTH)
    handler = RichHandler(
        console=console, show_path=False, show_level=False, log_time_format="%Y-%m-%d %H:%M:%S"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    # The exporter logs every pass, and warns of packages that nothing here uses.
    for noisy in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    _guarded(app)


def _guarded(command: Callable[[], Any]) -> None:
    try:
        command()
    except (TrainingError, ContractError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise SystemExit(2) from exc


def _print_report(report: dict[str, Any]) -> None:
    title = (
        f"{report['dataset']}: {report['split']}, {report['protocol']}, request time "
        f"{report['request_time']}, split {report['split_sha256'][:12]}, seed {report['seed']}"
    )
    table = Table("scorer", "seen items", *SHOWN_METRICS, title=title)
    for rule, results in report["results_by_seen_items"].items():
        for name, values in results.items():
            table.add_row(name, rule, *(f"{values[metric]:.4f}" for metric in SHOWN_METRICS))
    console = Console(width=110)
    console.print(table)
    for name, found in report["significance"].items():
        low, high = found["interval"]
        console.print(
            f"model less {name}: {found['metric']} {found['difference']:+.4f} "
            f"({low:+.4f} to {high:+.4f}), p = {found['p_value']:.2g}"
        )
    for name, values in report.get("tasks", {}).items():
        shown = "  ".join(f"{metric} {value:.4f}" for metric, value in values.items())
        console.print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
