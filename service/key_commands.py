"""`python -m service keys`: make, list and revoke API keys in their file."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.errors import KeysRefused
from service.security.keys import (
    SCOPES,
    ApiKey,
    KeyFile,
    Scope,
    changing,
    digest_of,
    key_id_of,
    new_key_text,
    read_key_file,
    write_key_file,
)

MAX_DAYS = 36_500.0
MAX_RATE_PER_S = 1_000_000.0

cli = typer.Typer(
    help="Make, list and revoke API keys; a running service notices within a second.",
    no_args_is_help=True,
)

KeysFile = Annotated[
    Path,
    typer.Option("--file", envvar="SOJOURN_KEYS_FILE", help="The file of keys."),
]


@cli.command()
def create(
    *,
    file: KeysFile,
    name: Annotated[str, typer.Option(help="Who will use it, for people.")],
    scope: Annotated[
        list[str], typer.Option(help=f"What it may do: {', '.join(SCOPES)}; several times.")
    ],
    expires_in_days: Annotated[
        float | None,
        typer.Option(min=0.0, max=MAX_DAYS, help="How long it counts; for good without it."),
    ] = None,
    rate_limit_per_s: Annotated[
        float | None,
        typer.Option(min=0.0, max=MAX_RATE_PER_S, help="Its own rate limit, 0 for none."),
    ] = None,
) -> None:
    """Make a key and print it: this once, since only its hash is kept."""
    text = new_key_text()
    key = ApiKey(
        id=key_id_of(text),
        name=_checked_name(name),
        sha256=digest_of(text),
        scopes=frozenset(_checked_scope(word) for word in scope),
        expires_at=_after_days(expires_in_days),
        rate_limit_per_s=rate_limit_per_s,
    )
    with _reported(file), changing(file) as content:
        write_key_file(file, KeyFile(keys=(*content.keys, key)))
    typer.echo(text)


@cli.command("list")
def list_keys(*, file: KeysFile) -> None:
    """List the keys: id, scopes, when they expire, name."""
    with _reported(file):
        keys = read_key_file(file).keys
    for key in keys:
        scopes = ",".join(word for word in SCOPES if word in key.scopes)
        until = key.expires_at.isoformat() if key.expires_at else "never"
        typer.echo(f"{key.id}\t{scopes}\t{until}\t{key.name}")


@cli.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `list` shows it.")], *, file: KeysFile
) -> None:
    """Remove a key; calls with it are refused within a second."""
    with _reported(file), changing(file) as content:
        kept = tuple(key for key in content.keys if key.id != key_id)
        if len(kept) == len(content.keys):
            # The whole key may have been pasted, so it is not repeated.
            _fail("key_id: no key has this id; `keys list` shows those that are there")
        write_key_file(file, KeyFile(keys=kept))
    typer.echo(f"revoked {key_id}")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except KeysRefused as exc:
        _fail(str(exc))
    except OSError as exc:
        _fail(f"{path}: {exc.strerror}")


def _after_days(days: float | None) -> datetime | None:
    if days is None:
        return None
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def _checked_name(name: str) -> str:
    if not 1 <= len(name) <= 100 or not name.isprintable():  # noqa: PLR2004  # as the file says
        _fail(f"name: {name[:80]!r} should have 1 to 100 printable characters")
    return name


def _checked_scope(word: str) -> Scope:
    known = [scope for scope in SCOPES if scope == word]
    if not known:
        _fail(f"scope: {word[:80]!r} is none of {', '.join(SCOPES)}")
    return known[0]


def _fail(reason: str) -> NoReturn:
    typer.echo(f"error: {reason}", err=True)
    raise typer.Exit(1)
