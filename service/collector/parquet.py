"""One file of the collector as bytes: a table, what it stands for, and whose rows it has."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.collector.folder import Span
from service.contract.events import user_hash
from service.errors import ServiceError

# Of a user's hash in the footer: 8 bytes, so that a file is read in vain once in 10^13 times.
USER_DIGITS = 16
COMPRESSION = "zstd"


class FileDamaged(ServiceError):
    """A file of the collector cannot be read."""

    status = 503
    slug = "collector-file-damaged"
    title = "Collector file damaged"


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself: its rows' users, and the position of its last entry.

    The position is the number of entries that the stream had ever had with this one, None where
    the server did not know.
    """

    users: frozenset[str]
    position: int | None


def encode(table: pa.Table, span: Span, position: int | None) -> bytes:
    """Return a table as a parquet file whose footer says what it stands for."""
    metadata = {
        "partition": str(span.partition),
        "first": str(span.first),
        "last": str(span.last),
        "position": "" if position is None else str(position),
        "users": "".join(sorted({user_hash(one)[:USER_DIGITS] for one in users_of(table)})),
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression=COMPRESSION) as writer:
        writer.write_table(table)
        # Added here and not to the schema, which the file would hold a second time, in base64.
        writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue().to_pybytes())


def read_footer(path: Path) -> Footer:
    """Return what a file says of itself, without its rows. Raises OSError, FileDamaged."""
    with _readable(path):
        metadata = pq.read_metadata(path).metadata
        users = metadata[b"users"].decode()
        position = metadata[b"position"].decode()
        return Footer(
            users=frozenset(
                users[at : at + USER_DIGITS] for at in range(0, len(users), USER_DIGITS)
            ),
            position=int(position) if position else None,
        )


def num_rows_of(path: Path) -> int:
    """Return the number of a file's rows, without reading them. Raises OSError, FileDamaged."""
    with _readable(path):
        return int(pq.read_metadata(path).num_rows)


def read_rows(path: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """Return a file's rows, all columns or some. Raises OSError, FileDamaged."""
    with _readable(path), pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise  # the disk's; what Arrow cannot make sense of has no number
        reason = f"{type(exc).__name__}: {exc}"
        raise FileDamaged(
            f"{path}: is no whole file of a collector ({reason}); restore it, or move it away: "
            "what the stream still has of it is then collected again"
        ) from exc


def users_of(table: pa.Table) -> list[str]:
    """Return every user of a table once."""
    return [one for one in table["user_id"].unique().to_pylist() if one is not None]
