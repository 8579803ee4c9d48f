"""Programs that some tests need and no Python package brings: found, or the test is skipped."""

import os
import shutil

import pytest

# The packages that bring them, Debian's where nothing else is said.
PACKAGES = {
    "chromium": "chromium",
    "curl": "curl",
    # Of Kubernetes' own archive: Debian's kubernetes-client is older than its kustomize may be.
    "kubectl": "kubectl",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
REQUIRED = "SOJOURN_REQUIRE_PROGRAMS"
# No archive of Debian has one that is new enough, so a build server may be without it.
ALWAYS_OPTIONAL = {"kubectl"}


def program(name: str) -> str:
    """Return the path of a program, that of SOJOURN_<NAME> before the one that PATH finds.

    Without it the test is skipped, and fails where SOJOURN_REQUIRE_PROGRAMS is set: a build server
    that has lost a browser must not pass.
    """
    variable = f"SOJOURN_{name.upper()}"
    found = shutil.which(os.environ.get(variable) or name)
    if found is not None:
        return found
    reason = f"{name} is not installed: apt-get install {PACKAGES[name]}, or say {variable}=PATH"
    if os.environ.get(REQUIRED) and name not in ALWAYS_OPTIONAL:
        pytest.fail(reason)
    pytest.skip(reason)
