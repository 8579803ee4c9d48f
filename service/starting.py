"""Which model a process starts with, and when the file CURRENT is news."""

from collections.abc import Callable
from pathlib import Path

from service.bundle_folder import BundleFolder, Pointer
from service.bundle_loader import LoadedBundle
from service.errors import BundleRefused
from service.logs import get_logger
from service.store.announcements import Announced


def is_news(pointer: Pointer, announced: Announced, *, at_start: bool) -> bool:
    """Say whether CURRENT was moved after what is announced: the latest change wins.

    A name that was taken up once is no news, whichever process sees it. What changes while we
    look is news. At a start only the times can tell: a file that is older than the last change
    names what was active before it.
    """
    if pointer.version == announced.pointer:
        return False
    return not at_start or pointer.written_at_ms > announced.changed_at_ms


def versions_to_start_with(pointer: Pointer | None, announced: Announced | None) -> list[str]:
    """Return what to serve first, best first: the latest change, then what else is known."""
    named = [pointer.version] if pointer else []
    if announced is None:
        return named
    if pointer and is_news(pointer, announced, at_start=True):
        return [*named, announced.active]
    return [announced.active, *named]


def first_bundle(
    folder: BundleFolder, announced: Announced | None, load: Callable[[Path], LoadedBundle]
) -> LoadedBundle:
    """Load the bundle to start with; blocks. Raises BundleRefused if none of them can be served."""
    refused: BundleRefused | None = None
    for version in versions_to_start_with(folder.pointer(), announced):
        found = folder.find(version)
        if found is None:
            continue
        try:
            return load(found.path)
        except BundleRefused as exc:
            get_logger(__name__).error("bundle refused", reason=str(exc), version=version)
            refused = refused or exc
    if refused is not None:
        raise refused
    # One bundle, or a folder without any: loading it says what is missing.
    return load(folder.path)
