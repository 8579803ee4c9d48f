"""The service's command line: settle the settings, start what is needed, serve."""

import asyncio
import gc
import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
import uvicorn
from pydantic import ValidationError

from service import key_commands, memory_command
from service.config import Settings
from service.errors import ServiceError
from service.logs import configure_logs
from service.metrics import shared_between_workers
from service.security.addresses import is_loopback
from service.security.keys import read_key_file
from service.store.embedded import EmbeddedValkey
from service.tracing import check_telemetry

APP_FACTORY = "service.app:create_app_from_environment"
REDIS_CREDENTIALS = tuple(
    f"SOJOURN_REDIS_{part}"
    for part in (
        "USERNAME",
        "PASSWORD",
        "SENTINEL_USERNAME",
        "SENTINEL_PASSWORD",
        "CA_FILE",
        "CERT_FILE",
        "KEY_FILE",
    )
)
SECRET_SETTINGS = frozenset(
    {"redis_url", "redis_password", "redis_sentinel_password", "log_user_key"}
)

Past = Annotated[
    Path | None,
    typer.Option(help="A dataset whose users' newest events are stored before serving."),
]
KeysFile = Annotated[
    Path | None, typer.Option(help="API keys to ask for; `keys create` makes the file.")
]

cli = typer.Typer(
    help="Sojourn's recommendation service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


cli.add_typer(key_commands.cli, name="keys")
cli.command()(memory_command.memory)


@cli.callback()
def _program() -> None:
    """Serve recommendations from a bundle and live events."""


@cli.command(
    epilog="Examples:  sojourn-serve run --bundle bundles  |  "
    "sojourn-serve run --bundle bundles --redis redis://localhost:6379/0 --workers 2"
)
def run(
    *,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle, or the directory whose CURRENT file names one.")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="Redis or Valkey, as redis://host:6379/0 or a Cluster."),
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start a Valkey; the default without --redis.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen at, 0 for a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, one a core.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded Valkey keeps histories.")
    ] = None,
    history: Past = None,
    keys_file: KeysFile = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Serve others than this machine without keys.")
    ] = False,
) -> None:
    """Serve a bundle; every option is also a SOJOURN_* variable, and the option wins.

    Histories are in Redis, or in an embedded Valkey that keeps them in a directory.
    """
    if redis and embedded:
        _fail("--redis and --embedded exclude each other; name one")
    given = {
        "bundle_path": bundle,
        "redis_url": redis,
        "host": host,
        "port": port,
        "workers": workers,
        "data_dir": data_dir,
        "keys_file": keys_file,
        "allow_open": allow_open or None,
    }
    settings = _settings({name: value for name, value in given.items() if value is not None})
    configure_logs(level=settings.log_level, as_json=settings.log_json)
    _end_cleanly_on_sigterm()
    _check_who_may_call(settings)
    _check_address(settings)
    try:
        _run(settings, embedded=embedded, history=history)
    except ServiceError as exc:
        _fail(str(exc))


@cli.command(
    epilog="Examples:  sojourn-serve collect --redis redis://localhost:6379/0 --out collected  |  "
    "sojourn-serve collect --out collected --once  (Redis from SOJOURN_REDIS_URL)  |  "
    "sojourn-serve collect --out collected --retention-days 90 --metrics-port 9101"
)
def collect(
    *,
    out: Annotated[Path, typer.Option(help="The folder to write to; one collector at a time.")],
    redis: Annotated[
        str | None,
        typer.Option(help="Redis or Valkey, as redis://host:6379/0 or a Cluster."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Write what there is and end.")] = False,
    max_rows: Annotated[int, typer.Option(help="Entries after which a file is closed.")] = 10_000,
    max_age_s: Annotated[float, typer.Option(help="Seconds after which a file is closed.")] = 300.0,
    retention_days: Annotated[int, typer.Option(help="Days to keep; 0 keeps all.")] = 0,
    dedup_events: Annotated[
        int, typer.Option(help="Events of a partition within which a repeated id is written once.")
    ] = 20_000,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of Prometheus metrics, 0 for a free one.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics.")] = "127.0.0.1",
) -> None:
    """Carry accepted events from Redis into parquet files, each of them once.

    `training import events OUT/events` reads them. Runs until SIGTERM, which finishes the files.
    """
    settings = _settings({} if redis is None else {"redis_url": redis})
    if settings.redis_url is None:
        _fail("redis: no server is named; give --redis URL or set SOJOURN_REDIS_URL")
    given = {
        "out": out,
        "once": once,
        "max_rows": max_rows,
        "max_age_s": max_age_s,
        "retention_days": retention_days,
        "dedup_events": dedup_events,
        "metrics_port": metrics_port,
        "metrics_host": metrics_host,
    }
    configure_logs(level=settings.log_level, as_json=settings.log_json)
    _collect(settings, given)


def main() -> None:
    """Run the command line."""
    cli()


def _run(settings: Settings, *, embedded: bool, history: Path | None) -> None:
    check_telemetry(settings.traces_endpoint)
    if settings.keys_file is not None:
        read_key_file(settings.keys_file)
    with ExitStack() as stack:
        redis_url = None if embedded else settings.redis_url
        if redis_url is None:
            redis_url = stack.enter_context(EmbeddedValkey(settings.data_dir)).url
        stack.enter_context(_worker_environment(settings, redis_url))
        decided = settings.model_copy(update={"redis_url": redis_url})
        if history is not None:
            # Loads NumPy, which has to wait for the environment that the line above made.
            from service.past_events import store_past_events  # noqa: PLC0415  # as above

            asyncio.run(store_past_events(history, decided))
        _serve(decided)


def _settings(given: dict[str, object]) -> Settings:
    try:
        return Settings(**given)  # type: ignore[arg-type]  # validated by the class
    except ValidationError as exc:
        _fail_for(exc)


def _collect(settings: Settings, given: dict[str, object]) -> None:
    # Parquet loads NumPy, which the other command must not do before its workers are set up.
    from service.collector.options import CollectorOptions  # noqa: PLC0415  # as above
    from service.collector.program import collect_into  # noqa: PLC0415  # as above

    try:
        collect_into(settings, CollectorOptions.model_validate(given))
    except ValidationError as exc:
        _fail_for(exc)
    except (ServiceError, OSError) as exc:
        _fail(str(exc))


@contextmanager
def _worker_environment(settings: Settings, redis_url: str) -> Iterator[None]:
    """Say to this process and its workers, through the environment, what was decided here."""
    os.environ |= {
        "SOJOURN_BUNDLE": str(settings.bundle_path),
        "SOJOURN_REDIS_URL": redis_url,
        "SOJOURN_DATA_DIR": str(settings.data_dir),
        "SOJOURN_HOST": settings.host,
        "SOJOURN_PORT": str(settings.port),
        "SOJOURN_WORKERS": str(settings.workers),
        "SOJOURN_KEYS_FILE": str(settings.keys_file or ""),
    }
    if redis_url != settings.redis_url:
        # The embedded server takes whoever reaches its private socket, and refuses passwords.
        for name in REDIS_CREDENTIALS:
            os.environ.pop(name, None)
    # NumPy's products would start a thread for every core of the machine, container or not.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Arrays of millions are made once, at the start: huge pages for them took longer to get from
    # the system than all the work that is done in them, a third of a second or more.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    if settings.workers == 1:
        yield
        return
    with shared_between_workers():
        yield


def _serve(settings: Settings) -> None:
    if settings.workers > 1:
        _check_bundle(settings)
    else:
        # Nearly all that is imported and loaded from here on stays, and to look through it again
        # and again takes an eighth of a second; the application turns it on when it is built.
        gc.disable()
    # Named, not imported: NumPy reads its number of threads when it is loaded.
    uvicorn.run(
        APP_FACTORY,
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # On by default for callers of this machine, who could then come from any address; our own
        # reading of the header asks whom the operator trusts.
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s),
    )


def _check_who_may_call(settings: Settings) -> None:
    """Refuse to let the network in without keys, unless told that something else asks for them."""
    if settings.keys_file is not None or settings.allow_open or is_loopback(settings.host):
        return
    _fail(
        f"host: {settings.host} is reached by others than this machine, and no key is asked for; "
        "give keys with --keys-file (SOJOURN_KEYS_FILE), made by `keys create`, or, if something "
        "before the service decides who may call, say --allow-open (SOJOURN_ALLOW_OPEN=true)"
    )


def _check_address(settings: Settings) -> None:
    """Refuse an address that is taken before anything is started; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # As the server does: a port that was closed a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        _fail(f"port: cannot listen on {where}: {exc.strerror}; choose another with --port")


def _check_bundle(settings: Settings) -> None:
    """Refuse a bad bundle once, here, and not again in every worker."""
    from service.model_parts import load_first  # noqa: PLC0415  # after the environment is set

    asyncio.run(load_first(settings))


def _end_cleanly_on_sigterm() -> None:
    """Make SIGTERM an ordinary end; while uvicorn serves, it drains first and raises it again."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _fail_for(error: ValidationError) -> NoReturn:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    # A Redis URL may hold a password, and whoever mistypes it must not find it in a log.
    # What is wrong with several settings at once has all of them as its input.
    is_shown = where and where not in SECRET_SETTINGS
    shown = f", not {str(first['input'])[:80]!r}" if is_shown else ""
    _fail(f"{where or 'settings'}: {first['msg']}{shown}")


def _fail(reason: str) -> NoReturn:
    typer.echo(f"error: {reason}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
