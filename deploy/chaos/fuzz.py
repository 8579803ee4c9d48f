"""The OpenAPI document against the service: schemathesis, all checks, at least 10,000 cases.

The service runs with keys on a Valkey of its own, and is asked for what its document allows and for
what it does not, in single requests and along links. Rounds with other seeds follow until there
were enough cases. Ends with 1 if a check fails, or if the service counted an error of its own.

The tools are those of the dependency group `fuzz`, installed into build/fuzz-tools when they are
first needed; the service runs in the environment of this program.

    python -m deploy.chaos.fuzz
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.chaos.asking import Connection
from deploy.chaos.bundles import folder_of_bundles
from deploy.chaos.programs import ROOT, ProofFailed, free_port, run_proof, service, valkey
from service.security.keys import SCOPES

TOOLS = ROOT / "build" / "fuzz-tools"
CONFIG = ROOT / "deploy" / "chaos" / "schemathesis.toml"
LOG = ROOT / "build" / "fuzz.log"
GENERATED = re.compile(r"(\d+) generated")
MAX_ROUNDS = 12
# Of one operation, in one phase of one round.
EXAMPLES = 100
PATIENT = {
    "REDIS_TIMEOUT_MS": "10000",
    "REQUEST_DEADLINE_MS": "20000",
    # Wrong keys are among the cases, all of them from one address.
    "AUTH_FAILURES_PER_MIN": "100000",
}


def main() -> int:
    """Run the rounds; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    arguments = parser.parse_args()
    install_tools()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, redis_port = free_port(), free_port()
        folder_of_bundles(folder / "bundles", ("one", "two"), 200, 16)
        keys = folder / "keys.json"
        key = create_key(keys)
        url = f"redis://127.0.0.1:{redis_port}"
        settings = PATIENT | {"KEYS_FILE": str(keys)}
        with (
            valkey(folder, redis_port),
            service(folder / "bundles", folder, port, url, **settings),
        ):
            has_failed = not rounds(port, key, arguments.cases, arguments.seed)
            num_errors = asyncio.run(count_errors(port, key))
    return int(has_failed or num_errors > 0)


def install_tools() -> None:
    """Install schemathesis into a place of its own, once, in the tested versions."""
    if (TOOLS / "bin" / "st").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(TOOLS)], check=True)  # noqa: S603  # our own tools
    pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for words in (("--upgrade", "pip>=25.1"), ("-c", "constraints.txt", "--group", "fuzz")):
        subprocess.run([*pip, *words], cwd=ROOT, check=True)  # noqa: S603  # as above


def create_key(path: Path) -> str:
    """Write a file of one key that may do everything; return the key."""
    scopes = [word for scope in SCOPES for word in ("--scope", scope)]
    command = [sys.executable, "-m", "service", "keys", "create", "--file", str(path)]
    done = subprocess.run(  # noqa: S603  # our own program
        [*command, "--name", "fuzz", *scopes], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()[0]


def rounds(port: int, key: str, min_cases: int, first_seed: int) -> bool:
    """Run rounds until there were enough cases; say whether all of them passed every check."""
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("", "utf-8")
    num_cases = 0
    for seed in range(first_seed, first_seed + MAX_ROUNDS):
        passed, output = run_once(port, key, seed)
        with LOG.open("a", encoding="utf-8") as log:
            log.write(output)
        found = GENERATED.search(output)
        num_cases += int(found[1]) if found else 0
        print(f"seed {seed}: {num_cases} cases until now, {'passed' if passed else 'FAILED'}")
        if not passed:
            print(output[-20_000:])
            return False
        if num_cases >= min_cases:
            return True
    raise ProofFailed(f"{MAX_ROUNDS} rounds made {num_cases} cases only")


def run_once(port: int, key: str, seed: int) -> tuple[bool, str]:
    """Run all phases; return whether all checks passed, and what was printed.

    Every check is on that the configuration does not turn off; named here, they would all be.
    """
    options = ["--max-examples", str(EXAMPLES), "--seed", str(seed)]
    options += ["--header", f"Authorization: Bearer {key}", "--generation-database", "none"]
    options += ["--continue-on-failure", "--no-color", "--request-timeout", "30"]
    command = [str(TOOLS / "bin" / "st"), "--config-file", str(CONFIG), "run", *options]
    done = subprocess.run(  # noqa: S603  # our own tools
        [*command, f"http://127.0.0.1:{port}/openapi.json"],
        cwd=TOOLS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout.replace(key, "sjn_...")


async def count_errors(port: int, key: str) -> int:
    """Print how often the service answered with which status; return its errors, its 500s."""
    async with Connection(port) as connection:
        answer = await connection.ask("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})
    text = answer.body.decode()
    counts: dict[str, int] = {}
    sample = r'^sojourn_request_seconds_count\{.*status="(\d+)".*\} ([\d.e+]+)$'
    for status, number in re.findall(sample, text, re.MULTILINE):
        counts[status] = counts.get(status, 0) + int(float(number))
    print("answers by status:", ", ".join(f"{one} {counts[one]}" for one in sorted(counts)))
    unhandled = re.search(r"^sojourn_unhandled_errors_total ([\d.e+]+)$", text, re.MULTILINE)
    if unhandled is None:
        raise ProofFailed(f"no count of errors: {answer.status}")
    others = {one for one in counts if one.startswith("5")} - {"503", "507"}
    return int(float(unhandled[1])) + sum(counts[one] for one in others)


if __name__ == "__main__":
    sys.exit(run_proof(main))
