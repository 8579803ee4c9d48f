"""Certificates of a day, made by the openssl command, and a server's side of TLS."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = "IP:127.0.0.1"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, in files."""

    cert: Path
    key: Path


def make_certificate(
    folder: Path, name: str, *, issuer: Certificate | None = None, subject: str = HERE
) -> Certificate:
    """Make a certificate for a subject's address, signed by an issuer or, without one, by itself.

    Skips the test where there is no openssl command.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make certificates with")
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", f"/CN={name}"]
    command += ["-keyout", str(made.key), "-out", str(made.cert)]
    if issuer is not None:
        command += ["-CA", str(issuer.cert), "-CAkey", str(issuer.key)]
        command += ["-addext", f"subjectAltName={subject}"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return made


@asynccontextmanager
async def tls_before(
    socket_path: Path, server: Certificate, clients: Certificate
) -> AsyncIterator[int]:
    """Speak TLS before a server's Unix socket, to clients of an issuer only; yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(clients.cert))
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket_path)
        await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))
        connections.discard(task)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until the sender is done or one of the two is gone."""
    try:
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()
