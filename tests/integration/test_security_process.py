"""Keys as an operator uses them: the real commands, a real service, several workers."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import (
    ADDRESS,
    READY_LINE,
    ROOT,
    TIMEOUT_S,
    serving,
    start_service,
    stop,
)
from tests.keys import bearer

pytestmark = pytest.mark.integration

EVERYWHERE = "0.0.0.0"  # noqa: S104  # that it is refused is the claim
PATH = "/v1/users/anna/recommendations"
# Each call comes on a connection of its own, which either worker may take.
CLOSE = {"connection": "close"}


def keys(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m service keys`."""
    command = [sys.executable, "-m", "service", "keys", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def created(path: Path, *scopes: str) -> str:
    """Make a key with the command and return it."""
    options = [word for scope in scopes for word in ("--scope", scope)]
    done = keys("create", "--file", str(path), "--name", "shop", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
def test_without_keys_nobody_but_this_machine_is_let_in(bundle_path: Path, host: str) -> None:
    """One line, which says both ways out, before anything is started."""
    process = start_service(bundle_path, "--host", host)
    assert process.wait() == 1
    assert process.output.startswith(f"error: host: {host} is reached by others")
    assert "--keys-file (SOJOURN_KEYS_FILE)" in process.output
    assert "--allow-open (SOJOURN_ALLOW_OPEN=true)" in process.output
    assert len(process.output.splitlines()) == 1


@pytest.mark.parametrize("way", ["option", "variable", "keys"])
def test_the_ways_out_lead_out(bundle_path: Path, tmp_path: Path, way: str) -> None:
    """Told to be open by option or variable, or given keys, it serves the network."""
    options = ["--host", EVERYWHERE, "--data-dir", str(tmp_path / "data")]
    env = dict(os.environ)
    if way == "option":
        options.append("--allow-open")
    elif way == "variable":
        env["SOJOURN_ALLOW_OPEN"] = "true"
    else:
        created(tmp_path / "keys.json", "recommend")
        options += ["--keys-file", str(tmp_path / "keys.json")]
    process = start_service(bundle_path, *options, env=env)
    try:
        process.wait_for(READY_LINE)
        assert process.end() == 0
    finally:
        stop(process)


def test_keys_are_made_listed_rotated_and_revoked_under_two_workers(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole life of a key; both workers notice within a second, and no log has a secret."""
    # What is asked while one worker knows and the other does not counts as wrong keys: with the
    # default a slow machine spends all that an address has, and is answered 429 from then on.
    monkeypatch.setenv("SOJOURN_AUTH_FAILURES_PER_MIN", "100000")
    path = tmp_path / "keys.json"
    old = created(path, "recommend", "write-events")
    options = ("--keys-file", str(path), "--data-dir", str(tmp_path / "data"))
    with serving(bundle_path, *options, workers=2) as (process, client):
        assert client.get("/healthz").status_code == 200
        assert statuses(client, None) == {401}
        assert statuses(client, old) == {200}
        new = created(path, "recommend")
        wait_for_statuses(client, new, {200})
        assert statuses(client, old) == {200}
        listed = keys("list", "--file", str(path)).stdout
        revoked = keys("revoke", old.split("_")[1], "--file", str(path))
        wait_for_statuses(client, old, {401})
        assert statuses(client, new) == {200}
        assert process.end() == 0
    assert revoked.returncode == 0
    assert [line.split("\t")[1:] for line in listed.splitlines()] == [
        ["write-events,recommend", "never", "shop"],
        ["recommend", "never", "shop"],
    ]
    for text in (old, new):
        assert text.split("_", 2)[2] not in process.output + listed + path.read_text()
    assert "Traceback" not in process.output


def statuses(client: httpx.Client, key: str | None, num_calls: int = 12) -> set[int]:
    """Return the statuses of several calls, which both workers get to see."""
    headers = CLOSE | (bearer(key) if key else {})
    return {client.get(PATH, headers=headers).status_code for _ in range(num_calls)}


def wait_for_statuses(client: httpx.Client, key: str, expected: set[int]) -> None:
    """Call until both workers have noticed the change; within a second if the machine is idle."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while statuses(client, key) != expected:
        assert time.monotonic() < deadline_s, "the workers did not notice"
        time.sleep(0.1)


def test_a_broken_file_of_keys_ends_the_start_in_one_line(
    bundle_path: Path, tmp_path: Path
) -> None:
    """A service that was to ask for keys must not start without."""
    path = tmp_path / "keys.json"
    path.write_text("{")
    process = start_service(bundle_path, "--keys-file", str(path))
    assert process.wait() == 1
    assert process.output.startswith(f"error: {path}: the file: ")
    assert len(process.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("create", "--name", "x", "--scope", "everything"), "scope: 'everything' is none of"),
        (("create", "--name", "", "--scope", "admin"), "name:"),
        (("revoke", "sjn_0123456789ab_secret"), "key_id:"),
    ],
)
def test_a_wrong_option_is_refused_and_changes_nothing(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    """Which, and what would be right; a key that was pasted is not repeated."""
    path = tmp_path / "keys.json"
    created(path, "admin")
    before = path.read_bytes()
    done = keys(*words, "--file", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert "sjn_" not in done.stderr
    assert path.read_bytes() == before


def test_the_command_loads_no_model(tmp_path: Path) -> None:
    """Keys are made on machines that serve nothing."""
    code = (
        "import sys, service.key_commands; "
        "print(sorted({'onnxruntime', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]"


def test_the_embedded_server_is_asked_without_the_others_password(
    bundle_path: Path, tmp_path: Path
) -> None:
    """Whoever tries `--embedded` may have the settings of a real server in the environment."""
    env = os.environ | {
        "SOJOURN_REDIS_URL": "rediss://127.0.0.1:1/0",
        "SOJOURN_REDIS_PASSWORD": "hunter3",
        "SOJOURN_REDIS_CA_FILE": "ca.crt",
    }
    process = start_service(bundle_path, "--embedded", "--data-dir", str(tmp_path), env=env)
    try:
        address = process.wait_for(ADDRESS)[1]
        assert httpx.get(f"{address}/readyz", timeout=TIMEOUT_S).status_code == 200
    finally:
        stop(process)


def test_a_password_in_the_settings_is_never_repeated(bundle_path: Path, tmp_path: Path) -> None:
    """What is wrong with several settings at once would show all of them."""
    env = os.environ | {
        "SOJOURN_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "SOJOURN_REDIS_PASSWORD": "hunter3",
        "SOJOURN_REDIS_CA_FILE": "ca.crt",
        "SOJOURN_RATE_LIMIT_PER_S": "5",
    }
    process = start_service(bundle_path, env=env)
    assert process.wait() == 1
    assert process.output.startswith("error: settings: ")
    assert "hunter" not in process.output
    del env["SOJOURN_REDIS_CA_FILE"], env["SOJOURN_RATE_LIMIT_PER_S"]
    process = start_service(bundle_path, env=env)
    try:
        process.wait_for(READY_LINE)
        process.end()
    finally:
        stop(process)
    assert "hunter" not in process.output
