"""Loading bundles beside the one that serves: on a thread, remembering what was refused."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.bundle_folder import BundleFolder, Fingerprint
from service.bundle_loader import LoadedBundle
from service.errors import BundleRefused, ModelRefused, ServiceError, UnknownModel
from service.metrics import Metrics

MAX_LISTED_VERSIONS = 20
MAX_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a version could not be loaded, and how the folder looked then."""

    reason: str
    folder: Fingerprint


class ModelLoader:
    """Loads bundles of a folder, one at a time; keeps at most one that is not served yet."""

    def __init__(
        self, folder: BundleFolder, load: Callable[[Path], LoadedBundle], metrics: Metrics
    ) -> None:
        self._folder = folder
        self._load_bundle = load
        self._metrics = metrics
        self._refusals: dict[str, _Refusal] = {}
        self._prepared: LoadedBundle | None = None

    async def check_there(self, version: str) -> Path:
        """Return where a version is; raises UnknownModel with what there is, or BundleRefused."""
        found = await asyncio.to_thread(self._folder.find, version)
        if found is None:
            raise UnknownModel(await asyncio.to_thread(self._unknown, version))
        return found.path

    async def load(self, version: str) -> LoadedBundle:
        """Read and check a bundle now; raises UnknownModel, ModelRefused or BundleRefused."""
        path = await self.check_there(version)
        looks = await asyncio.to_thread(self._folder.fingerprint)
        try:
            loaded = await asyncio.to_thread(self._load_bundle, path)
        except BundleRefused as exc:
            self._metrics.model_loads.labels("refused").inc()
            self._refusals[version] = _Refusal(str(exc), looks)
            raise ModelRefused(str(exc)) from exc
        self._metrics.model_loads.labels("loaded").inc()
        self._refusals.pop(version, None)
        return loaded

    async def load_once(self, version: str) -> LoadedBundle:
        """Do the same, but take one that is prepared, and try none twice in an unchanged folder."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.manifest.bundle_version == version:
            return prepared
        looks = await asyncio.to_thread(self._folder.fingerprint)
        refusal = self._refusals.get(version)
        if refusal and refusal.folder == looks:
            raise ModelRefused(refusal.reason)
        try:
            return await self.load(version)
        except UnknownModel as exc:
            # Kept for what Redis and CURRENT name only: callers could name any number of versions.
            self._refusals[version] = _Refusal(str(exc), looks)
            raise

    async def prepare(self, version: str) -> None:
        """Load what will perhaps be served; if that fails, the reason is told when it is."""
        try:
            self._prepared = await self.load_once(version)
        except ServiceError:
            # Remembered as a refusal. Nobody serves this version yet, and perhaps nobody will.
            self._prepared = None

    def drop_prepared(self) -> None:
        """Let go what will not be served after all."""
        self._prepared = None

    async def refusals(self) -> dict[str, str]:
        """Return the reasons of what was refused from the folder as it is now, by version."""
        looks = await asyncio.to_thread(self._folder.fingerprint)
        return {v: found.reason for v, found in self._refusals.items() if found.folder == looks}

    def _unknown(self, version: str) -> str:
        versions = [found.version for found in self._folder.bundles()]
        more = (
            "" if len(versions) <= MAX_LISTED_VERSIONS else f" and others, {len(versions)} in all"
        )
        there = ", ".join(versions[:MAX_LISTED_VERSIONS]) + more
        return (
            f"there is no bundle {version[:MAX_SHOWN_CHARS]!r} here; there are: {there or 'none'}"
        )
