"""The manifest: every field counts, nothing unknown is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.contract import bundle as contract
from service.contract.errors import BundleMismatch
from tests.builders import make_bundle


def rewritten(folder: Path, **changes: Any) -> Path:
    """Change fields of a valid bundle's manifest as somebody with an editor would."""
    path = folder / contract.MANIFEST_FILE
    document = json.loads(path.read_text())
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            document[section][key] = value
        else:
            document[section] = value
    path.write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"features__window_len": 7},
        {"features__uses_request_time": False},
        {"features__knows_offsets": False},
        {"exclude_seen": "all"},
        {"event_types": ["purchase", "view"]},
        {"parity_max_abs": 9.0},
        {"name": "other"},
    ],
)
def test_a_changed_field_is_found_out(tmp_path: Path, change: dict[str, Any]) -> None:
    """A window cut at another length, or other event codes, would score quietly wrong."""
    folder = rewritten(make_bundle(tmp_path), **change)
    with pytest.raises(BundleMismatch, match="the manifest was changed after the export"):
        contract.verify_files(folder, contract.read_manifest(folder))


def test_the_time_of_creation_is_not_content(tmp_path: Path) -> None:
    """The same run exported tomorrow is the same version."""
    folder = rewritten(make_bundle(tmp_path), created_at="2030-01-01T00:00:00+00:00")
    contract.verify_files(folder, contract.read_manifest(folder))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"surprise": 1}, "surprise"),
        ({"num_items": 0}, "num_items"),
        ({"features__inputs": ["items", "mood"]}, "unknown inputs mood"),
        ({"features__outputs": ["answer"]}, "gives no 'query'"),
        ({"schema_version": "1"}, "schema_version is missing or malformed"),
    ],
)
def test_a_manifest_that_does_not_fit_names_the_field(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    """Refused with the reason, never patched."""
    folder = rewritten(make_bundle(tmp_path), **change)
    with pytest.raises(BundleMismatch, match=reason):
        contract.read_manifest(folder)


def test_a_folder_of_bundles_is_read_through_its_pointer(tmp_path: Path) -> None:
    """CURRENT names one beside it, and nothing elsewhere."""
    bundle = make_bundle(tmp_path / "bundles" / "one")
    pointer = tmp_path / "bundles" / contract.CURRENT_FILE
    pointer.write_text("one\n")
    assert contract.resolve_bundle(tmp_path / "bundles") == bundle
    for bad in ("two", "../one", ""):
        pointer.write_text(bad)
        with pytest.raises(BundleMismatch, match="no bundle beside it"):
            contract.resolve_bundle(tmp_path / "bundles")


def test_no_bundle_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    """The first thing that a newcomer sees when they start the service too early."""
    with pytest.raises(BundleMismatch, match="python -m training export"):
        contract.resolve_bundle(tmp_path)
