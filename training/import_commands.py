"""The commands of `python -m training import`: one per kind of log, each writes a dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.cleaning import CleanOptions
from training.config import TrainingError
from training.data import DatasetInfo
from training.importers.amazon import import_amazon
from training.importers.amazon_public import RatingColumns
from training.importers.checkins import import_checkins
from training.importers.csv_text import SHOWN_LINES
from training.importers.events import ColumnOptions, import_events
from training.importers.kuairand import import_kuairand
from training.importers.movielens import import_movielens
from training.importers.raw_log import RawLog
from training.importers.writing import write_cleaned

importers = typer.Typer(no_args_is_help=True, help="Turn a log into a dataset.")

Out = Annotated[Path, typer.Option("--out", help="The folder to write; replaced as a whole.")]
Core = Annotated[int, typer.Option(help="Drop below this many events, until none is; 0 is off.")]
Column = Annotated[str | None, typer.Option(help="The column's name, if the log has it.")]


TypeMap = Annotated[list[str] | None, typer.Option(help="WORD=TYPE: what a word of the log means.")]
Zone = Annotated[str | None, typer.Option(help="Of times without an offset, as Europe/Berlin.")]
Order = Annotated[
    Literal["day-first", "month-first"] | None, typer.Option(help="Of dates as 03/04/2026.")
]
Decimal = Annotated[
    Literal[".", ","] | None, typer.Option(help="What is before a number's fraction.")
]
Delimiter = Annotated[str | None, typer.Option(help="The separator in csv files; `tab` is one.")]
Encoding = Annotated[
    str | None, typer.Option(help="Of csv files, as cp1252; UTF-8 and UTF-16 are found out.")
]
TimeColumn = Annotated[
    str | None, typer.Option(help="When: a date and time, or seconds, ms, µs since 1970.")
]
UserColumn = Annotated[str | None, typer.Option(help="Who acted.")]
ItemColumn = Annotated[str | None, typer.Option(help="On which item.")]
Items = Annotated[Path | None, typer.Option(help="A file of items: item_id, title, …")]


@importers.command("movielens")
def import_movielens_command(
    path: Path, out: Out, min_user_events: Core = 0, min_item_events: Core = 0
) -> None:
    """Import MovieLens in any layout: u.data, ratings.dat, ratings.csv, .inter or parquet.

    Example: python -m training import movielens ml-1m --out data/ml-1m
    """
    _import(import_movielens(path), path, out, min_user_events, min_item_events)


@importers.command("checkins")
def import_checkins_command(
    path: Path, out: Out, min_user_events: Core = 0, min_item_events: Core = 0
) -> None:
    """Import check-ins: Foursquare TSMC2014, Gowalla or Brightkite of SNAP, or parquet.

    Example: python -m training import checkins dataset_TSMC2014_NYC.txt --out data/nyc
    """
    _import(import_checkins(path), path, out, min_user_events, min_item_events)


@importers.command("amazon")
def import_amazon_command(
    path: Path,
    *,
    out: Out,
    rating_columns: Annotated[
        RatingColumns,
        typer.Option(help="The order in a csv without header: user-item (2014), item-user (2018)."),
    ] = "auto",
    min_user_events: Core = 0,
    min_item_events: Core = 0,
) -> None:
    """Import Amazon ratings (csv) or reviews (json lines), with meta_* beside them, or parquet.

    Example: python -m training import amazon reviews_Beauty_5.json.gz --out data/beauty
    """
    log = import_amazon(path, rating_columns)
    _import(log, path, out, min_user_events, min_item_events)


@importers.command("kuairand")
def import_kuairand_command(
    path: Path, out: Out, min_user_events: Core = 0, min_item_events: Core = 0
) -> None:
    """Import KuaiRand's impressions: the folder of log_*.csv, or parquet.

    Example: python -m training import kuairand KuaiRand-Pure --out data/kuairand
    """
    _import(import_kuairand(path), path, out, min_user_events, min_item_events)


@importers.command("events")
def import_events_command(
    path: Path,
    *,
    out: Out,
    user_id_column: UserColumn = None,
    item_id_column: ItemColumn = None,
    time_column: TimeColumn = None,
    event_type_column: Column = None,
    event_id_column: Column = None,
    tz_offset_min_column: Column = None,
    value_column: Column = None,
    duration_s_column: Column = None,
    lat_column: Column = None,
    lon_column: Column = None,
    event_type: Annotated[str, typer.Option(help="The type of events without one.")] = "view",
    event_type_map: TypeMap = None,
    time_zone: Zone = None,
    date_order: Order = None,
    decimal: Decimal = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    items: Items = None,
    min_user_events: Core = 0,
    min_item_events: Core = 0,
) -> None:
    """Import any event log: parquet, csv or jsonl, a file or a folder.

    Columns that are not named are found by their names and content where these leave no doubt; a
    name of - leaves an optional column out.

    What `service collect` wrote needs no options: python -m training import events
    collected/events --out data/shop

    Example: python -m training import events log.csv --out data/shop
    --user-id-column customer --item-id-column sku --time-column bought_at
    """
    columns = ColumnOptions(
        user_id_column, item_id_column, time_column, event_type_column, event_id_column,
        tz_offset_min_column, value_column, duration_s_column, lat_column, lon_column,
        event_type_default=event_type, event_type_map=_pairs(event_type_map or ()),
        delimiter=delimiter, encoding=encoding, decimal=decimal,
        time_zone=time_zone, date_order=date_order, items_file=items,
    )  # fmt: skip
    _import(import_events(path, columns), path, out, min_user_events, min_item_events)


def _pairs(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (word, type) of each `word=type`; raises TrainingError for another text."""
    pairs = [(word, kind) for word, _, kind in (text.rpartition("=") for text in texts)]
    for text, (word, kind) in zip(texts, pairs, strict=True):
        if not word or not kind:
            raise TrainingError(f"--event-type-map {text}: must be WORD=TYPE, as bought=purchase")
    return tuple(pairs)


def _import(log: RawLog, path: Path, out: Path, users: int, items: int) -> None:
    for note in log.notes:
        typer.echo(note)
    options = CleanOptions(min_user_events=users, min_item_events=items, num_examples=SHOWN_LINES)
    info, said, doubts = write_cleaned(log, options, out, path)
    _print_import(info, said, out)
    for doubt in doubts:
        typer.echo(f"look at this: {doubt}")


def _print_import(info: DatasetInfo, said: list[str], out: Path) -> None:
    typer.echo(f"{info.num_rows_read:,} rows read")
    for line in said:
        typer.echo(f"  {line}")
    if not info.dropped:
        typer.echo("  dropped: none")
    typer.echo(
        f"{info.num_events:,} events of {info.num_users:,} users on {info.num_items:,} items, "
        f"{info.repeat_share:.1%} repeats, time axis: {info.time_axis}"
    )
    if info.licence_notice:
        typer.echo(info.licence_notice)
    typer.echo(f"dataset {out}  sha256 {info.data_sha256[:12]}")
