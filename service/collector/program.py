"""The collector as a process: connection, folder, metrics port and signals."""

import asyncio
import contextlib
import signal

from prometheus_client import start_http_server

from service.collector.collector import Collector
from service.collector.folder import CollectorRefused, Folder
from service.collector.metrics import CollectorMetrics
from service.collector.options import CollectorOptions
from service.config import Settings
from service.logs import get_logger
from service.metrics import Metrics
from service.store.client import connect
from service.store.stream import EventStreams

# A collector has no caller that waits; a page of every partition is some megabytes.
MIN_TIMEOUT_MS = 5_000


def collect_into(settings: Settings, options: CollectorOptions) -> None:
    """Collect until SIGTERM or SIGINT, or with `once` until everything is written.

    Raises ServiceError and OSError, both with a message for the operator.
    """
    metrics = CollectorMetrics()
    try:
        folder = Folder(options.out)
    except OSError as exc:
        raise CollectorRefused(f"{options.out}: {exc.strerror}; choose another --out") from exc
    with contextlib.closing(folder):
        _serve_metrics(options, metrics)
        asyncio.run(_collect(settings, options, folder, metrics))


async def _collect(
    settings: Settings, options: CollectorOptions, folder: Folder, metrics: CollectorMetrics
) -> None:
    timeout_ms = max(settings.redis_timeout_ms, MIN_TIMEOUT_MS)
    client = connect(settings.model_copy(update={"redis_timeout_ms": timeout_ms}))
    async with contextlib.aclosing(client):
        collector = Collector(EventStreams(client, Metrics()), folder, options, metrics)
        log = get_logger(__name__)
        if options.once:
            await collector.drain()
            log.info("collector_drained")
            return
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        log.info("collector_started")
        await collector.run(stop)
        log.info("collector_stopped")


def _serve_metrics(options: CollectorOptions, metrics: CollectorMetrics) -> None:
    if options.metrics_port is None:
        return
    host = options.metrics_host
    try:
        server, _ = start_http_server(options.metrics_port, host, metrics.registry)
    except OSError as exc:
        raise CollectorRefused(
            f"metrics-port: cannot listen on {host}:{options.metrics_port}: {exc.strerror}; "
            "choose another with --metrics-port"
        ) from exc
    get_logger(__name__).info("collector_metrics", host=host, port=server.server_port)
