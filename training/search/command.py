"""The command that searches for settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.config import RunConfig, load_run_config
from training.files import write_text
from training.report import REPORT_FILE
from training.runs import read_inputs
from training.search.loop import Search, SearchPlan
from training.search.outcomes import Outcome, best_outcome
from training.search.page import search_page
from training.search.results import (
    BEST_SETTINGS_FILE,
    HEADER,
    require_best,
    table_rows,
    write_best_settings,
    write_tables,
)
from training.search.space_file import read_space
from training.search.study import Method

TABLE_WIDTH = 110


def search_command(
    *,
    data: Annotated[Path, typer.Option("--data", help="A dataset that `import` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the search; it goes on there.")],
    space: Annotated[Path, typer.Option("--space", help="A TOML file: what varies over what.")],
    method: Annotated[Method, typer.Option(help="How values are proposed.")] = "tpe",
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many; 20, or the whole grid, if absent.")
    ] = None,
    preset: Annotated[str, typer.Option(help="What does not vary, as for train.")] = "base",
    config: Annotated[Path | None, typer.Option(help="A TOML file over the preset.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the proposals; loop.seed trains.")] = 1,
) -> None:
    """Train one trial after another and write the settings with the best validation score.

    A search that was ended goes on when it is started again; more --trials add to it.
    Example: python -m training search --data data/ml-1m --out searches/ml-1m
    --space space.toml --method tpe --trials 30
    """
    given = set_ or []

    def settings(texts: Sequence[str]) -> RunConfig:
        return load_run_config(preset, config, [*given, *texts])

    axes = read_space(space, settings, given)
    names = [axis.name for axis in axes]
    plan = SearchPlan(axes, method, seed, trials)
    search = Search(read_inputs(data, settings([])), plan, settings, out)
    outcomes: list[Outcome] = []
    for outcomes in search.run():
        write_tables(out, outcomes, names)
        write_text(out / REPORT_FILE, search_page(outcomes, axes))
        best = best_outcome(outcomes)
        if best is not None:
            write_best_settings(out, best, search.settings_of(best))
    _print_trials(outcomes, names)
    best = require_best(outcomes)
    typer.echo(f"best trial {best.place:03d}; {out / BEST_SETTINGS_FILE}, {out / REPORT_FILE}")


def _print_trials(outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
    headers = (name.replace(".", ".\n") for name in names)
    table = Table(*HEADER, *headers, title="trials, best validation score each")
    for row in table_rows(outcomes, names):
        table.add_row(*(_shown(value) for value in row[:-1]))
    Console(width=TABLE_WIDTH).print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
