"""The command line: parse, call one function per stage, say where the result is."""

import json
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
from training.cleaning import CleanOptions
from training.config import Protocol, RequestTime, TrainingError, load_run_config, preset_names
from training.data import DatasetInfo
from training.demo_data import fetch_demo_data
from training.export import export_bundle, onnx_scorer
from training.importers import (
    MOVIELENS_NOTICE,
    ColumnOptions,
    RawLog,
    import_events,
    import_movielens,
    write_dataset,
)
from training.runs import evaluate_run, read_inputs
from training.train import METRICS_FILE, train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn an event log into a bundle: import, train, evaluate, export.",
)
importers = typer.Typer(no_args_is_help=True, help="Turn a log into a dataset.")
app.add_typer(importers, name="import")

Out = Annotated[Path, typer.Option("--out", help="The folder to write; replaced as a whole.")]
Run = Annotated[Path, typer.Option("--run", help="The folder of a training run.")]
Core = Annotated[int, typer.Option(help="Drop below this many events, until none is; 0 is off.")]
Column = Annotated[str | None, typer.Option(help="The column's name, if the log has it.")]
LOG_FILE_WIDTH = 200
SHOWN_METRICS = ("hr@10", "ndcg@10", "mrr", "coverage@10")


@importers.command("movielens")
def import_movielens_command(
    path: Path, out: Out, min_user_events: Core = 0, min_item_events: Core = 0
) -> None:
    """Import MovieLens in any layout: u.data, ratings.dat, ratings.csv, .inter or parquet.

    Example: python -m training import movielens ml-1m --out data/ml-1m
    """
    _import(import_movielens(path), path, out, min_user_events, min_item_events)


@importers.command("events")
def import_events_command(
    path: Path,
    *,
    out: Out,
    user_id_column: Annotated[str, typer.Option(help="Who acted.")] = "user_id",
    item_id_column: Annotated[str, typer.Option(help="On which item.")] = "item_id",
    time_column: Annotated[
        str, typer.Option(help="When: RFC 3339, or seconds, ms or µs since 1970.")
    ] = "timestamp",
    event_type_column: Column = None,
    event_id_column: Column = None,
    tz_offset_min_column: Column = None,
    value_column: Column = None,
    duration_s_column: Column = None,
    lat_column: Column = None,
    lon_column: Column = None,
    event_type: Annotated[str, typer.Option(help="The type of events without one.")] = "view",
    delimiter: Annotated[str, typer.Option(help="The separator in csv files.")] = ",",
    items: Annotated[Path | None, typer.Option(help="A file of items: item_id, title, …")] = None,
    min_user_events: Core = 0,
    min_item_events: Core = 0,
) -> None:
    """Import any event log: parquet, csv or jsonl, a file or a folder.

    Example: python -m training import events log.csv --out data/shop
    --user-id-column customer --item-id-column sku --time-column bought_at
    """
    columns = ColumnOptions(
        user_id=user_id_column,
        item_id=item_id_column,
        time=time_column,
        event_type=event_type_column,
        event_id=event_id_column,
        tz_offset_min=tz_offset_min_column,
        value=value_column,
        duration_s=duration_s_column,
        lat=lat_column,
        lon=lon_column,
        event_type_default=event_type,
        delimiter=delimiter,
        items_file=items,
    )
    _import(import_events(path, columns), path, out, min_user_events, min_item_events)


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
    data: Annotated[Path, typer.Option("--data", help="A dataset that `import` wrote.")],
    out: Out,
    preset: Annotated[str, typer.Option(help="One of: " + ", ".join(preset_names()))] = "base",
    config: Annotated[Path | None, typer.Option(help="A TOML file over the preset.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> None:
    """Train a model; goes on where it was when the run has a checkpoint.

    Example: python -m training train --data data/ml-1m --out runs/ml-1m --set loop.seed=2
    """
    run_config = load_run_config(preset, config, set_ or [])
    state = train(read_inputs(data, run_config), run_config, out)
    typer.echo(
        f"best validation ndcg@10 {state.best_ndcg:.4f} at epoch {state.best_epoch} of "
        f"{state.epoch}; {out / METRICS_FILE}"
    )


@app.command("evaluate")
def evaluate_command(
    *,
    run: Run,
    split: Annotated[Literal["validation", "test"], typer.Option()] = "test",
    protocol: Annotated[Protocol | None, typer.Option(help="Must be the run's own.")] = None,
    request_time: Annotated[RequestTime | None, typer.Option(help="The run's, if absent.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    engine: Annotated[Literal["torch", "onnx"], typer.Option()] = "torch",
) -> None:
    """Rank all items for every held-out event, beside the baselines.

    Example: python -m training evaluate --run runs/ml-1m --split test
    --protocol leave-one-out --request-time unknown --json test.json
    """
    make_scorer = onnx_scorer if engine == "onnx" else None
    report = evaluate_run(run, split, protocol, request_time, make_scorer)
    _print_report(report)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        aside = json_file.with_name(json_file.name + ".writing")
        aside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        aside.replace(json_file)


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


def _import(log: RawLog, path: Path, out: Path, users: int, items: int) -> None:
    options = CleanOptions(min_user_events=users, min_item_events=items)
    info = write_dataset(log, options, out, path)
    _print_import(info, out)


def _print_import(info: DatasetInfo, out: Path) -> None:
    typer.echo(f"{info.num_rows_read:,} rows read")
    for rule, rows in info.dropped.items():
        typer.echo(f"  dropped {rule}: {rows:,}")
    if not info.dropped:
        typer.echo("  dropped: none")
    typer.echo(
        f"{info.num_events:,} events of {info.num_users:,} users on {info.num_items:,} items, "
        f"{info.repeat_share:.1%} repeats, time axis: {info.time_axis}"
    )
    if info.licence_notice:
        typer.echo(info.licence_notice)
    typer.echo(f"dataset {out}  sha256 {info.data_sha256[:12]}")


def _print_report(report: dict[str, Any]) -> None:
    title = (
        f"{report['dataset']}: {report['split']}, {report['protocol']}, request time "
        f"{report['request_time']}, split {report['split_sha256'][:12]}, seed {report['seed']}"
    )
    table = Table("scorer", "seen items", *SHOWN_METRICS, title=title)
    for rule, results in report["results_by_seen_items"].items():
        for name, values in results.items():
            table.add_row(name, rule, *(f"{values[metric]:.4f}" for metric in SHOWN_METRICS))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
