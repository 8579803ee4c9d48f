"""Bundles for the proofs: made here, so that they need no training and no data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.contract.bundle import CURRENT_FILE, read_manifest
from tests.builders import make_bundle

CATEGORIES = ("café", "museum", "park", "bar", "shop", "cinema", "pool")


def add_bundle(folder: Path, name: str, num_items: int, dim: int, seed: int = 0) -> str:
    """Write a bundle of random vectors into a folder of bundles; return its version."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_items, dim)).astype(np.float32) / dim**0.5
    ids = [f"item-{number}" for number in rng.permutation(num_items)]
    facts = {item_id: _facts(number) for number, item_id in enumerate(ids)}
    made = make_bundle(
        folder / "new", name=name, item_rows=dict(zip(ids, rows, strict=True)), item_facts=facts
    )
    version = read_manifest(made).bundle_version
    made.rename(folder / version)
    return version


def folder_of_bundles(folder: Path, names: tuple[str, ...], num_items: int, dim: int) -> list[str]:
    """Write bundles of the same items, of which CURRENT names the first; return their versions."""
    folder.mkdir()
    versions = [add_bundle(folder, name, num_items, dim, at) for at, name in enumerate(names)]
    (folder / CURRENT_FILE).write_text(versions[0], "utf-8")
    return versions


def _facts(number: int) -> Mapping[str, Any]:
    return {
        "categories": [CATEGORIES[number % len(CATEGORIES)], CATEGORIES[number % 3]],
        "attributes": json.dumps({"price": number % 100, "brand": f"brand-{number % 40}"}),
        "lat": 48.0 + number % 100 / 100,
        "lon": 2.0 + number % 90 / 90,
    }
