"""What the service is made of, and whether anything of it is known to be vulnerable.

`audit.py audit` asks the package index and then the OSV data base about the exact versions that
serve; `audit.py sbom` lists them as CycloneDX. Both write to build/ and run tools of the dependency
group `audit`, which are installed into build/audit-tools when they are first needed.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
TOOLS = BUILD / "audit-tools"
BIN = TOOLS / "bin"
REQUIREMENTS = BUILD / "serving-requirements.txt"
OWN_NAME = "sojourn"
EXTRA = "serve"
SERVICES = ("pypi", "osv")
# What pip and the audit say when nothing answers, as opposed to answering with an error.
UNREACHABLE = re.compile(
    r"after connection broken by|requests\.exceptions\.(ProxyError|ConnectionError|ConnectTimeout"
    r"|ReadTimeout)|Could not connect|Max retries exceeded"
)


class Unreachable(Exception):
    """Nothing could be asked, and the network is the reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found: vulnerable versions with their advisories, and what it did not know."""

    found: tuple[str, ...]
    skipped: tuple[str, ...]
    num_checked: int


def main() -> int:
    """Do what the first argument says; return the exit code."""
    REQUIREMENTS.parent.mkdir(exist_ok=True)
    lines = sorted(serving_requirements())
    REQUIREMENTS.write_text("\n".join(lines) + "\n", "utf-8")
    commands = {"audit": audit, "sbom": sbom}
    try:
        install_tools()
        return commands[sys.argv[1]]()
    except Unreachable as exc:
        print(f"not checked: {exc}")
        return 0


def serving_requirements() -> Iterator[str]:
    """Yield `name==version` of all that `pip install sojourn[serve]` brings, as installed here."""
    seen: set[str] = set()
    waiting = [Requirement(f"{OWN_NAME}[{EXTRA}]")]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in seen and not wanted.extras:
            continue
        seen.add(name)
        installed = distribution(wanted.name)
        if name != OWN_NAME:
            yield f"{name}=={installed.version}"
        waiting += _needs(installed.requires or (), wanted.extras or {""})


def _needs(lines: Sequence[str], extras: set[str]) -> list[Requirement]:
    needs = [Requirement(line) for line in lines]
    return [
        need
        for need in needs
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def install_tools() -> None:
    """Install the tools once; raises Unreachable if the package index does not answer."""
    if (BIN / "pip-audit").exists() and (BIN / "cyclonedx-py").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(TOOLS)], check=True)  # noqa: S603  # our own tools
    python = str(BIN / "python")
    for words in (("--upgrade", "pip>=25.1"), ("--group", "audit")):
        done = run(python, "-m", "pip", "install", "--quiet", *words)
        if done.returncode and UNREACHABLE.search(done.stderr):
            raise Unreachable("the tools could not be installed, the package index is not reached")
        if done.returncode:
            sys.exit(done.stderr)


def audit() -> int:
    """Audit the serving versions; return 1 if any is vulnerable or could not be judged."""
    reasons = []
    for service in SERVICES:
        try:
            verdict = ask(service)
        except Unreachable as exc:
            reasons.append(str(exc))
            continue
        if verdict.num_checked:
            return report(verdict, service)
        reasons.append(f"{service} knows none of the packages, as mirrors without advisories do")
    raise Unreachable("; ".join(reasons))


def ask(service: str) -> Verdict:
    """Ask one service about every version; raises Unreachable if it does not answer."""
    output = BUILD / "audit.json"
    output.unlink(missing_ok=True)
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off"]
    options += ["--format", "json", "--output", str(output), "--vulnerability-service", service]
    done = run(str(BIN / "pip-audit"), "--requirement", str(REQUIREMENTS), *options)
    if output.exists():
        return judge(json.loads(output.read_text("utf-8")))
    if UNREACHABLE.search(done.stderr):
        raise Unreachable(f"{service} is not reached")
    sys.exit(done.stderr)


def judge(document: dict[str, Any]) -> Verdict:
    """Read pip-audit's report; what it skipped it has not checked, whatever its exit code says."""
    packages = document["dependencies"]
    checked = [package for package in packages if "skip_reason" not in package]
    return Verdict(
        found=tuple(
            f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
            f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
            for package in checked
            for vulnerability in package["vulns"]
        ),
        skipped=tuple(package["name"] for package in packages if "skip_reason" in package),
        num_checked=len(checked),
    )


def report(verdict: Verdict, service: str) -> int:
    """Print a verdict and return the exit code."""
    for line in verdict.found:
        print(f"vulnerable: {line}")
    for name in verdict.skipped:
        print(f"not checked: {service} does not know {name}")
    print(f"{verdict.num_checked} packages checked by {service}, {len(verdict.found)} advisories")
    return int(bool(verdict.found or verdict.skipped))


def sbom() -> int:
    """Write the list of what serves, and check it against the standard's schema."""
    output = BUILD / "sbom.json"
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--validate"]
    options += ["--output-format", "JSON", "--output-file", str(output)]
    done = run(str(BIN / "cyclonedx-py"), "requirements", str(REQUIREMENTS), *options)
    if done.returncode:
        sys.exit(done.stderr)
    document = json.loads(output.read_text("utf-8"))
    version, num = document["specVersion"], len(document["components"])
    print(f"{output.relative_to(ROOT)}: CycloneDX {version}, {num} packages")
    return 0


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the repository and return what it wrote."""
    return subprocess.run(  # noqa: S603  # our own tools and words
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
