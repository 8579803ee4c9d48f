"""Folders of bundles, as exports, operators and bad disks leave them."""

import os
from pathlib import Path

from service.contract import bundle as contract
from tests.builders import ITEM_ROWS, make_bundle
from tests.fakes import NOON_MS

BEFORE_NOON_S = NOON_MS // 1000 - 3_600


def add_bundle(folder: Path, name: str, *, reverse: bool = False) -> str:
    """Write a bundle into the folder as an export does, and return its version."""
    rows = dict(reversed([*ITEM_ROWS.items()])) if reverse else ITEM_ROWS
    made = make_bundle(folder / "new", name=name, item_rows=rows)
    version = contract.read_manifest(made).bundle_version
    made.rename(folder / version)
    return version


def point_at(folder: Path, version: str, at_s: int = BEFORE_NOON_S) -> None:
    """Move CURRENT, as if at this time (seconds since 1970)."""
    new = folder / "CURRENT.new"
    new.write_text(version, encoding="utf-8")
    os.utime(new, (at_s, at_s))
    new.replace(folder / contract.CURRENT_FILE)


def flip_a_byte(path: Path) -> None:
    """Damage a file as a bad disk would."""
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
