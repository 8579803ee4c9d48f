"""Text tables as people have them: separator, encoding and quotes found out, or the fix named."""

import csv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from training.config import TrainingError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SPELT = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";"}
HEAD_BYTES = 65_536
TRIED_RECORDS = 20
SHOWN_CHARS = 60
SHOWN_LINES = 3
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What a file is by its first bytes, whatever its name says, and what to do with it.
_OTHER_KINDS = {
    b"\x1f\x8b": "is packed with gzip; unpack it first: gunzip FILE",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook of the old kind; open it and save it as CSV UTF-8",
    b"PAR1": "is a parquet file; give it a name that ends in .parquet",
}


@dataclass(frozen=True, slots=True)
class CsvShape:
    """How a text table is to be read; `notes` say what was found out without being told."""

    delimiter: str
    encoding: str
    header: tuple[str, ...]
    notes: tuple[str, ...] = ()


def inspect_csv(path: Path, delimiter: str | None, encoding: str | None) -> CsvShape:
    """Find out how to read a text table, and read it once to see that it can be.

    Raises TrainingError, with line numbers, for what no reader can make sense of: another kind of
    file, bytes that are not text, quotes that do not close, lines with other numbers of fields.
    """
    head = _head(path)
    chosen, notes = _encoding(path, head, encoding)
    separator = _separator(path, chosen, delimiter)
    if delimiter is None and separator != ",":
        notes.append(f"separator: {SEPARATORS[separator]}")
    records = _records(path, chosen, separator)
    header = _header(path, next(records)[1])
    num_events = _check_records(path, records, len(header))
    if not num_events:
        raise TrainingError(f"{path}: has a line of column names and no event below it")
    return CsvShape(separator, chosen, header, tuple(notes))


def find_lines(path: Path, shape: CsvShape, wanted: Sequence[dict[str, str]]) -> list[int | None]:
    """Return the line of each row, given by the fields that it has, None if there is no such."""
    found: list[int | None] = [None] * len(wanted)
    left = set(range(len(wanted)))
    records = _records(path, shape.encoding, shape.delimiter)
    next(records)
    for line, fields in records:
        row = dict(zip(shape.header, fields, strict=False))
        fit = next((place for place in left if wanted[place].items() <= row.items()), None)
        if fit is not None:
            found[fit] = line
            left.discard(fit)
        if not left:
            break
    return found


def shown(text: str) -> str:
    """Return a text as it goes into a message: quoted, on one line, cut where it is long."""
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as exc:
        raise TrainingError(f"{path}: cannot be read: {exc.strerror}") from exc
    if not head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
        raise TrainingError(
            f"{path}: is empty; it needs a line of column names, and a line for each event"
        )
    if head.startswith(b"PK\x03\x04"):
        raise TrainingError(f"{path}: {_archive(path)}")
    for magic, advice in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise TrainingError(f"{path}: {advice.replace('FILE', path.name)}")
    return head


def _archive(path: Path) -> str:
    """Say what to do with a file that is a zip archive; Excel's workbooks are such."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        names = []
    if any(name.startswith("xl/") for name in names):
        return (
            "is an Excel workbook; open it, choose File > Save As > 'CSV UTF-8 (comma delimited)', "
            "and import the .csv file"
        )
    held = f", which holds {names[0]}" if names else ""
    return f"is a zip archive{held}; unpack it first: unzip {path.name}"


def _encoding(path: Path, head: bytes, given: str | None) -> tuple[str, list[str]]:
    if given is not None:
        try:
            "".encode(given)
        except LookupError as exc:
            raise TrainingError(
                f"--encoding {given}: is unknown; utf-8, utf-16, cp1252 and latin-1 are usual"
            ) from exc
        return given, []
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            plain = "UTF-8 with a byte order mark" if name == "utf-8-sig" else "UTF-16"
            return name, [f"encoding: {plain}"]
    if b"\x00" in head:
        order = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        raise TrainingError(
            f"{path}: has NUL bytes, as UTF-16 without its mark has; add --encoding {order}, or "
            "save it as UTF-8"
        )
    return "utf-8", []


def _separator(path: Path, encoding: str, given: str | None) -> str:
    """Return the separator that was named, or the one that parts all of the first lines alike."""
    named = None if given is None else SPELT.get(given, given)
    if named is not None and (len(named) != 1 or named in '"\r\n'):
        raise TrainingError(f"--delimiter {given}: must be one character, or `tab`")
    counts = {sep: _field_counts(path, encoding, sep) for sep in SEPARATORS}
    parting = {sep: found for sep, found in counts.items() if found and found[0] > 1}
    if named is not None:
        own = _field_counts(path, encoding, named)
        if own and own[0] == 1 and parting:
            better = max(parting, key=lambda sep: parting[sep][0])
            name = "tab" if better == "\t" else better
            raise TrainingError(
                f"{path}: line 1 has one column only when split at {given!r}; its separator looks "
                f"like a {SEPARATORS[better]}: --delimiter '{name}'"
            )
        return named
    if not parting:
        line = "".join(islice(_lines(path, encoding), 1)).strip()
        raise TrainingError(
            f"{path}: line 1, {shown(line)}, has one column only; it needs the columns of user, "
            "item and time, separated by a comma, semicolon or tab: another one is said with "
            "--delimiter"
        )
    even = {sep: found for sep, found in parting.items() if len(set(found)) == 1}
    among = even or parting
    best = max(among, key=lambda sep: among[sep][0])
    if sum(found[0] == among[best][0] for found in among.values()) > 1:
        raise TrainingError(
            f"{path}: comma and semicolon part its lines alike; say which with --delimiter"
        )
    return best


def _field_counts(path: Path, encoding: str, delimiter: str) -> list[int]:
    """Return how many fields the first records have; not strict, since broken ones come later."""
    try:
        records = csv.reader(_lines(path, encoding), delimiter=delimiter)
        return [len(fields) for fields in islice(records, TRIED_RECORDS) if fields]
    except csv.Error:
        return []


def _header(path: Path, fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns; an unnamed one is called by its place."""
    names = [name.strip() or f"column {place}" for place, name in enumerate(fields, 1)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TrainingError(f"{path}: two columns are named {twice[0]!r}; rename one in line 1")
    return tuple(names)


def _check_records(path: Path, records: Iterator[tuple[int, list[str]]], width: int) -> int:
    num_records, num_other = 0, 0
    examples: list[str] = []
    for line, fields in records:
        num_records += 1
        if len(fields) != width:
            num_other += 1
            if len(examples) < SHOWN_LINES:
                examples.append(f"line {line} has {len(fields)}: {shown(' '.join(fields))}")
    if num_other:
        raise TrainingError(
            f"{path}: line 1 has {width} fields, and {num_other:,} other "
            f"{'line has' if num_other == 1 else 'lines have'} not: {'; '.join(examples)}; put a "
            'text that holds the separator in "quotes", or mend the lines'
        )
    return num_records


def _records(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, fields) of every record that is not blank."""
    reader = csv.reader(_lines(path, encoding), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise TrainingError(
                f"{path}: line {line}, {shown(_line(path, encoding, line))}, has a quote that is "
                'not closed; a quote inside a quoted text is written twice: "a ""word"" in it"'
            ) from exc
        if fields:
            yield line, fields
        line = reader.line_num + 1


def _lines(path: Path, encoding: str) -> Iterator[str]:
    with path.open(encoding=encoding, newline="") as stream:
        try:
            yield from stream
        except UnicodeError as exc:
            raise TrainingError(f"{path}: {_not_text(path, encoding)}") from exc


def _line(path: Path, encoding: str, number: int) -> str:
    return "".join(islice(_lines(path, encoding), number - 1, number)).rstrip("\r\n")


def _not_text(path: Path, encoding: str) -> str:
    """Name the first line whose bytes are not in the encoding, and what it may be instead."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode(encoding)
            except UnicodeError:
                western = line.decode("cp1252", "replace").strip()
                return (
                    f"line {number} is not {encoding}; if it should read {shown(western)}, add "
                    "--encoding cp1252 (Latin-1, as Windows and Excel write it)"
                )
    return f"is not {encoding}; say what it is with --encoding, or save it as UTF-8"
