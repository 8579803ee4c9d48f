"""Tables of any of the usual kinds, a file or a folder of them, as one Daft frame."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import daft
import pyarrow as pa
from daft import DataType
from pyarrow import csv as arrow_csv

from training.config import TrainingError
from training.importers.csv_text import CsvShape, inspect_csv

SUFFIXES: Mapping[str, frozenset[str]] = {
    "parquet": frozenset({".parquet", ".pq"}),
    "csv": frozenset({".csv", ".tsv"}),
    "jsonl": frozenset({".jsonl", ".ndjson"}),
}
# A file of such a name, given by itself, is text, or something that the reader of text names.
_OTHERS = frozenset({".txt", ".tab", ".xlsx", ".xls", ".zip", ".gz", ""})
_UTF_8 = ("utf-8", "utf-8-sig")


@dataclass(frozen=True, slots=True)
class Table:
    """A frame of all files, and how each text file is read; its columns are all text then."""

    frame: daft.DataFrame
    shapes: dict[Path, CsvShape] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out of the text files without being told, each once."""
        return tuple(dict.fromkeys(note for s in self.shapes.values() for note in s.notes))


def read_table(path: Path, delimiter: str | None = None, encoding: str | None = None) -> Table:
    """Read a parquet, csv or jsonl file, or a folder of such files of one kind.

    Raises TrainingError when a file cannot be read, and says what to do with it.
    """
    kind, files = _files(path)
    if kind == "csv":
        return _read_csv(files, delimiter, encoding)
    try:
        return Table(_READERS[kind]([str(file) for file in files]))
    except (OSError, ValueError, daft.exceptions.DaftCoreException) as exc:
        raise TrainingError(f"{path}: cannot be read as {kind}: {exc}") from exc


def _files(path: Path) -> tuple[str, list[Path]]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    by_kind = {
        kind: [file for file in files if file.is_file() and file.suffix.lower() in suffixes]
        for kind, suffixes in SUFFIXES.items()
    }
    present = [kind for kind, found in by_kind.items() if found]
    if not present and path.is_file() and path.suffix.lower() in _OTHERS:
        return "csv", [path]
    if not path.exists():
        raise TrainingError(f"{path}: no such file; give a parquet, csv or jsonl file or a folder")
    if len(present) != 1:
        seen = f"holds {' and '.join(present)} files together" if present else "holds no log"
        raise TrainingError(f"{path}: {seen}; give parquet, csv or jsonl files of one kind")
    return present[0], by_kind[present[0]]


def _read_csv(files: list[Path], delimiter: str | None, encoding: str | None) -> Table:
    """Read csv with every column as text, so that an id such as 007 stays what it is."""
    shapes = {file: inspect_csv(file, delimiter, encoding) for file in files}
    first = shapes[files[0]]
    for file, shape in shapes.items():
        # Columns are taken by place, so files in another order would swap them silently.
        if shape.header != first.header:
            raise TrainingError(f"{file}: its columns are not those of {files[0]}, in their order")
    kinds = {(s.delimiter, s.encoding in _UTF_8) for s in shapes.values()}
    if kinds == {(first.delimiter, True)}:
        schema = {column: DataType.string() for column in first.header}
        names = [str(file) for file in files]
        frame = daft.read_csv(names, delimiter=first.delimiter, schema=schema, infer_schema=False)
        return Table(frame, shapes)
    return Table(
        daft.from_arrow(pa.concat_tables(_arrow(*each) for each in shapes.items())), shapes
    )


def _arrow(file: Path, shape: CsvShape) -> pa.Table:
    """Read a text file that is not UTF-8, which Daft cannot; all of it in memory."""
    types = dict.fromkeys(shape.header, pa.string())
    return arrow_csv.read_csv(
        file,
        arrow_csv.ReadOptions(
            column_names=list(shape.header), skip_rows=1, encoding=shape.encoding
        ),
        arrow_csv.ParseOptions(delimiter=shape.delimiter, newlines_in_values=True),
        arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


_READERS: Mapping[str, Callable[[list[str]], daft.DataFrame]] = {
    "parquet": daft.read_parquet,
    "jsonl": daft.read_json,
}
