"""Finding and reading an importer's files; what is missing or damaged is named with its fix."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from training.config import TrainingError


def find_log(
    path: Path, patterns: Sequence[str], what: str, *, beside: str = ""
) -> tuple[str, Path]:
    """Return the first pattern that the name of a log fits, and the log that `path` is or holds.

    Names that fit `beside` are no logs. Raises TrainingError, which lists the patterns, unless
    exactly one log fits.
    """
    wanted = ", ".join(patterns)
    if not path.exists():
        raise TrainingError(f"{path}: no such file or folder; give the one with {what}: {wanted}")
    for pattern in patterns:
        candidates = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [
            file
            for file in candidates
            if file.is_file() and fnmatch(file.name, pattern) and not fnmatch(file.name, beside)
        ]
        if len(found) > 1:
            raise TrainingError(
                f"{path}: holds {found[0].name} and {found[1].name}, logs of their own; "
                "give one file instead of the folder"
            )
        if found:
            return pattern, found[0]
    verb = "holds" if path.is_dir() else "is"
    raise TrainingError(f"{path}: {verb} none of {wanted}; give the file or folder with {what}")


def read_parquet(path: Path, required: Sequence[str], numbers: Sequence[str] = ()) -> pa.Table:
    """Read a parquet file, with the columns `numbers`, where there are such, as float64.

    Raises TrainingError when the file or a required column is missing or of another type.
    """
    with readable(path):
        table = pq.read_table(path)
        for place, name in enumerate(table.column_names):
            if name in numbers:
                table = table.set_column(place, name, table[name].cast(pa.float64()))
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise TrainingError(
            f"{path}: no column {missing[0]!r}; needed are {', '.join(required)}, "
            f"there are {', '.join(table.column_names)}"
        )
    return table


def read_delimited(
    path: Path,
    columns: Mapping[str, pa.DataType],
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> tuple[pa.Table, int]:
    """Read columns of a text table, plain or gzipped; an empty field is null.

    `names` are all columns of a file without a header; such a file has no quoting. Returns the
    table and the number of lines left out because they have another number of fields.
    Raises TrainingError when the file cannot be read, or a field is not of its column's type.
    """
    num_bad = 0

    def leave_out(_: csv.InvalidRow) -> str:
        nonlocal num_bad
        num_bad += 1
        return "skip"

    with readable(path):
        table = csv.read_csv(
            path,
            csv.ReadOptions(column_names=names, encoding=encoding),
            csv.ParseOptions(
                delimiter=delimiter,
                quote_char=False if names else '"',
                invalid_row_handler=leave_out,
            ),
            csv.ConvertOptions(
                column_types=dict(columns),
                include_columns=list(columns),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    return table, num_bad


def first_lines(path: Path, number: int) -> list[str]:
    """Return the first lines of a text file, plain or gzipped."""
    with readable(path), open_text(path) as stream:
        return [line.rstrip("\r\n") for line in islice(stream, number)]


@contextmanager
def open_text(path: Path) -> Iterator[Iterator[str]]:
    """Open a UTF-8 text file, plain or gzipped."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as binary:
        yield (line.decode("utf-8", "replace") for line in binary)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a missing or damaged file raises into one line that names it."""
    try:
        yield
    except FileNotFoundError as exc:
        raise TrainingError(f"{path}: missing; get the whole data set") from exc
    except (OSError, EOFError, ValueError, pa.ArrowException) as exc:
        reason = " ".join(str(exc).split())
        raise TrainingError(f"{path}: cannot be read: {reason}; get the file again") from exc
