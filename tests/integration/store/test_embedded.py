import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import EmbeddedServerFailed, StoreUnavailable
from service.store.embedded import EmbeddedValkey
from service.store.outcomes import ACCEPTED, DUPLICATE
from tests.integration.store.builders import event, store_at

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
OWNER = """
import os, signal, sys
from pathlib import Path
from service.store.embedded import EmbeddedValkey
with EmbeddedValkey(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def link() -> Iterator[Path]:
    """Return a short path that a test lets lead to a server's socket."""
    with tempfile.TemporaryDirectory(prefix="sojourn-") as folder:
        yield Path(folder) / "s"


def point(link: Path, server: EmbeddedValkey) -> None:
    """Let the link lead to the server's socket."""
    link.unlink(missing_ok=True)
    link.symlink_to(server.url.removeprefix("unix://"))


async def test_histories_survive_a_restart(tmp_path: Path) -> None:
    """The data directory is the store: stop, start, and the user is known."""
    with EmbeddedValkey(tmp_path) as server:
        async with store_at(server.url) as store:
            await store.append([event(1)])
    with EmbeddedValkey(tmp_path) as server:
        async with store_at(server.url) as store:
            assert (await store.read("anna")).item_ids == ("i1",)
            assert await store.append([event(1), event(2)]) == [DUPLICATE, ACCEPTED]


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """The append-only file is written before the answer, so only a machine can lose events."""
    with EmbeddedValkey(tmp_path) as server:
        async with store_at(server.url) as store:
            for number in range(50):
                assert await store.append([event(number)]) == [ACCEPTED]
            os.kill(server.pid, signal.SIGKILL)
    with EmbeddedValkey(tmp_path) as server:
        async with store_at(server.url) as store:
            assert len(await store.read("anna")) == 50


async def test_a_store_whose_server_is_down_says_so_and_works_when_it_is_back(
    tmp_path: Path, link: Path
) -> None:
    """The same store object, without a restart of the service; the script cache is empty too."""
    async with store_at(f"unix://{link}") as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        with EmbeddedValkey(tmp_path) as server:
            point(link, server)
            await store.append([event(1)])
        with pytest.raises(StoreUnavailable):
            await store.read("anna")
        with pytest.raises(StoreUnavailable, match="append"):
            await store.append([event(2)])
        with EmbeddedValkey(tmp_path) as server:
            point(link, server)
            assert await store.append([event(2)]) == [ACCEPTED]
            assert (await store.read("anna")).item_ids == ("i1", "i2")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """Two servers on one append-only file would destroy it."""
    with EmbeddedValkey(tmp_path) as server:
        second = EmbeddedValkey(tmp_path, lock_timeout_s=0)
        with pytest.raises(EmbeddedServerFailed, match=f"process {server.pid}"):
            second.__enter__()
    with EmbeddedValkey(tmp_path) as again:
        assert again.url


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_service_leaves_no_server_behind(tmp_path: Path) -> None:
    """Started again, the service must find its directory free."""
    owner = subprocess.run(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert owner.returncode == -signal.SIGKILL
    with EmbeddedValkey(tmp_path) as server:
        assert server.pid != int(owner.stdout)


def test_closing_ends_the_server_and_removes_its_socket(tmp_path: Path) -> None:
    """Nothing stays but the data; a closed server has no URL."""
    with EmbeddedValkey(tmp_path) as server:
        socket_path, pid = Path(server.url.removeprefix("unix://")), server.pid
        assert socket_path.is_socket()
        assert socket_path.parent.stat().st_mode & 0o077 == 0
    assert not socket_path.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EmbeddedServerFailed):
        _ = server.url


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """An append-only file that is no such file: the server's own words are the best hint."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text("no manifest\n")
    with pytest.raises(EmbeddedServerFailed, match="AOF manifest"):
        EmbeddedValkey(tmp_path).__enter__()
