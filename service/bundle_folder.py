"""The folder of bundles: what could be served, and what its file CURRENT names."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from service.contract import bundle as contract
from service.contract.bundle import Manifest
from service.contract.errors import ContractError
from service.errors import BundleRefused

# Changes whenever a file of a bundle does: name, time of the last change in ns, size in bytes.
Fingerprint: TypeAlias = tuple[tuple[str, int, int], ...]

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ListedBundle:
    """One bundle of the folder; without a manifest `reason` says what is wrong with it.

    A bundle whose manifest cannot be read goes by the name of its directory.
    """

    version: str
    path: Path
    manifest: Manifest | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What CURRENT names, and when it was last written, ms since 1970."""

    version: str
    written_at_ms: int


class BundleFolder:
    """A bundle, or a folder of bundles, at a path; reads the disk at every call and keeps nothing.

    Every method blocks on the disk, so call them on a thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """Return where the folder is."""
        return self._path

    def holds_one(self) -> bool:
        """Say whether the path is a bundle itself, so that there is nothing to choose from."""
        return (self._path / contract.MANIFEST_FILE).is_file()

    def bundles(self) -> list[ListedBundle]:
        """Return what is there, by version; raises BundleRefused if the folder cannot be read."""
        if self.holds_one():
            return [_listed(self._path)]
        try:
            folders = [
                entry
                for entry in self._path.iterdir()
                if (entry / contract.MANIFEST_FILE).is_file()
            ]
        except OSError as exc:
            raise BundleRefused(f"{self._path}: cannot be read: {exc.strerror}") from exc
        return sorted(map(_listed, folders), key=lambda found: (found.version, found.path))

    def find(self, version: str) -> ListedBundle | None:
        """Return the bundle of a version; raises BundleRefused if the folder cannot be read."""
        return next((found for found in self.bundles() if found.version == version), None)

    def pointer(self) -> Pointer | None:
        """Return what CURRENT names, None if there is no such file or it cannot be read.

        What it names may be missing or broken; then its text stands for the version.
        """
        path = self._path / contract.CURRENT_FILE
        try:
            written_at_ms = path.stat().st_mtime_ns // NS_PER_MS
            named = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        is_beside = Path(named).name == named and named != ""
        version = _listed(self._path / named).version if is_beside else named
        return Pointer(version, written_at_ms)

    def pointer_stamp(self) -> tuple[int, int, int]:
        """Return what changes when CURRENT is written again: inode, time in ns, size."""
        try:
            found = (self._path / contract.CURRENT_FILE).stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def fingerprint(self) -> Fingerprint:
        """Return what changes when a bundle comes, goes or is repaired; it reads no file."""
        try:
            files = [path for path in self._path.glob("*/*") if path.is_file()]
            stats = [(path, path.stat()) for path in files]
        except OSError:
            # A file went meanwhile: the next look sees a folder that stands still.
            return ()
        return tuple(sorted((str(path), found.st_mtime_ns, found.st_size) for path, found in stats))


def _listed(path: Path) -> ListedBundle:
    try:
        manifest = contract.read_manifest(path)
    except ContractError as exc:
        return ListedBundle(path.name, path, None, str(exc))
    return ListedBundle(manifest.bundle_version, path, manifest)
