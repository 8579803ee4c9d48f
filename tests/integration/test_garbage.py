"""The collector of a worker: on again after the start, and seldom at work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.app import GARBAGE_THRESHOLDS
from service.config import Settings

pytestmark = pytest.mark.integration

STARTED = """
import gc
gc.disable()  # as the command line does for one worker
from service.app import create_app_from_environment
create_app_from_environment()
print(gc.isenabled(), *gc.get_threshold(), gc.get_freeze_count() > 10_000)
"""


def test_a_worker_collects_its_garbage(store_settings: Settings, bundle_path: Path) -> None:
    """Off, it would grow for ever; as Python has it, slow answers would be twice as slow."""
    env = {
        "SOJOURN_BUNDLE": str(bundle_path),
        "SOJOURN_REDIS_URL": str(store_settings.redis_url),
    }
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        env=os.environ | env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    thresholds = " ".join(map(str, GARBAGE_THRESHOLDS))
    assert done.stdout.splitlines()[-1] == f"True {thresholds} True"
